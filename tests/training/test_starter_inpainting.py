"""The inpainting sibling of the starter: what it starts from, what it learns of, what is written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.conftest import Generate
from tests.training.test_starter_training import ALONE, PLAN, TINY
from webui.generation.parameters import Parameters, build_request
from webui.library.catalog import Library
from webui.training.starter.diffusion import Denoiser
from webui.training.starter.evaluate import Exported
from webui.training.starter.inpainting import (
    HoledSet,
    encode_holed,
    export_inpainting,
    holed_shards,
    load_holed,
    train_inpainting,
    widened,
)
from webui.training.starter.latents import Composed, pool_shards
from webui.training.starter.networks import build_text_encoder, build_unet, build_vae


def test_it_starts_as_the_model_that_it_is_made_of() -> None:
    torch.manual_seed(0)
    unet = build_unet(TINY)
    wide = widened(unet)
    noisy, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, TINY.text_width)
    seen = torch.cat([noisy, torch.randn(2, 5, 8, 8)], dim=1)
    timesteps = torch.tensor([3, 900])
    with torch.no_grad():
        assert torch.equal(wide(seen, timesteps, context).sample, unet(noisy, timesteps, context).sample)


def test_its_pictures_are_others_than_those_of_the_starter() -> None:
    assert not {shard.index for shard in holed_shards(4)} & {shard.index for shard in pool_shards(64)}


def test_holes_are_where_the_mask_says_and_nothing_of_them_is_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    others = rng.integers(0, 256, pictures.shape).astype(np.uint8)
    tokens = np.zeros((6, 4, 77), np.int16)
    torch.manual_seed(0)
    vae = build_vae(TINY).eval()
    (shard,) = holed_shards(1)
    encode_holed(shard.path(tmp_path), Composed(pictures, tokens), vae, seed=5)
    found = load_holed(tmp_path, (shard,))
    assert found.masks.shape == (6, 1, 8, 8)
    assert found.masks.any(axis=(1, 2, 3)).all()
    full = found.masks.all(axis=(1, 2, 3))
    if full.any():  # nothing is left of these, whatever they showed
        encode_holed(tmp_path / "others.npz", Composed(others, tokens), vae, seed=5)
        with np.load(tmp_path / "others.npz") as again:
            assert np.array_equal(found.holed[full], again["holed"][full])
    partly = ~full
    assert partly.any()
    assert not np.array_equal(found.holed[partly], found.latents[partly])


class Interrupted(Exception):
    """Stands for the end of the process right after a save."""


def _train(checkpoint: Path, *, interrupt: bool = False) -> Denoiser:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    latents, holed = (rng.standard_normal((8, 4, 8, 8)).astype(np.float16) for _ in range(2))
    masks = rng.integers(0, 2, (8, 1, 8, 8)).astype(np.uint8)
    text_encoder = build_text_encoder(TINY, vocab_size=52, bos_token_id=50, eos_token_id=51).requires_grad_(False)
    denoiser = Denoiser(widened(build_unet(TINY)), text_encoder)

    def saved(_: nn.Module, step: int) -> None:
        if interrupt and step == 1:
            raise Interrupted

    train_inpainting(
        denoiser,
        HoledSet(latents, holed, masks, rng.integers(0, 50, (8, 4, 77)).astype(np.int16)),
        np.full(77, 51, np.int16),
        PLAN,
        batch_size=4,
        prediction_type="v_prediction",
        seed=3,
        ranks=ALONE,
        checkpoint=checkpoint,
        on_checkpoint=saved,
    )
    return denoiser


def test_training_uses_the_new_channels_leaves_the_words_and_resumes_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = build_text_encoder(TINY, vocab_size=52, bos_token_id=50, eos_token_id=51).state_dict()
    straight = _train(tmp_path / "straight.pt")
    assert straight.unet.conv_in.weight[:, 4:].abs().sum() > 0
    assert all(torch.equal(weight, words[name]) for name, weight in straight.text_encoder.state_dict().items())
    with pytest.raises(Interrupted):
        _train(tmp_path / "resumed.pt", interrupt=True)
    resumed = _train(tmp_path / "resumed.pt")
    states = straight.unet.state_dict(), resumed.unet.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_is_written_is_an_inpainting_model_that_shares_the_starters_files(
    tmp_path: Path, starter_dir: Path
) -> None:
    unet = widened(Exported.load(starter_dir).denoiser.unet)
    folder = tmp_path / "models" / "checkpoints" / "starter-inpaint"
    export_inpainting(folder, starter=starter_dir, unet=unet, provenance={"inpaint_steps": 0})
    info = Library([tmp_path / "models"], tmp_path / "cache").find_checkpoint("starter-inpaint")
    assert (info.problem, info.family) == ("", "sd15-inpaint")
    assert str(starter_dir) not in (folder / "unet" / "config.json").read_text()
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (starter_dir / weights).read_bytes()


def test_the_one_that_ships_paints_into_the_mask_and_leaves_the_rest(generate: Generate, starter_dir: Path) -> None:
    picture = Image.open(starter_dir / "sample.png").convert("RGB").resize((192, 192))
    mask = Image.new("L", (192, 192))
    mask.paste(255, (0, 0, 192, 70))
    parameters = Parameters(
        checkpoint="starter-inpaint",
        prompt="a portrait of a woman with red hair on a teal background",
        width=192,
        height=192,
        task="inpaint",
        strength=1.0,
        mask_content="latent noise",
        mask_blur_px=0,
        num_inference_steps=8,
        guidance_scale=3.0,
        seed=4,
    )
    (ready,) = generate(build_request(parameters, image=picture, mask=mask))
    with Image.open(ready.path) as painted:
        before, after = (np.asarray(image.convert("RGB")).astype(int) for image in (picture, painted))
    assert np.array_equal(before[80:], after[80:])
    assert np.abs(before[:64] - after[:64]).mean() > 4
    assert np.abs(before[:12, :12] - after[:12, :12]).mean() < 24, "the background goes on"


def test_the_one_that_ships_shares_all_but_the_unet(starter_dir: Path) -> None:
    folder = starter_dir.with_name("starter-inpaint")
    for part in ("vae", "text_encoder", "tokenizer"):
        for file in (starter_dir / part).iterdir():
            assert (folder / part / file.name).read_bytes() == file.read_bytes()
    for file in ("README.md", "NOTICE"):
        assert (folder / file).is_file()

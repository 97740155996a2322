import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file

from tests.training.starter_helpers import synthetic_sprites
from webui.training.starter.concepts import CONCEPT_BY_NAME
from webui.training.starter.diffusion import Denoiser
from webui.training.starter.evaluate import Exported, border_colour, photo_psnr
from webui.training.starter.export import (
    GUIDANCE_SCALE,
    SIZE_BUDGET_BYTES,
    export,
    fold_affine,
    load_exported_vae,
    size_bytes,
)
from webui.training.starter.latents import Affine
from webui.training.starter.networks import (
    NATIVE_SIZE,
    SCALING_FACTOR,
    Sizes,
    build_text_encoder,
    build_unet,
    build_vae,
)
from webui.training.starter.prompts import object_prompts, pair_prompts
from webui.training.starter.tokenizer import encode, load_tokenizer, training_lines, write_tokenizer
from webui.training.starter.vae import reconstruct
from webui.training.starter.vocabulary import COLOURS
from webui.training.starter.workdir import load_denoiser

TINY = Sizes(vae_channels=(8, 8, 8, 8), unet_channels=(8, 16, 16), text_width=16, text_layers=2, text_heads=2)
AFFINE = Affine((0.5, -1.0, 0.0, 2.0), (1.5, 0.5, 3.0, 1.0))
EXPORTED = {
    *("model_index.json", "atelier.json", "sample.png", "scheduler/scheduler_config.json"),
    *("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"),
    *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
    *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
    *("text_encoder/config.json", "text_encoder/model.safetensors"),
}


def _export_tiny(folder: Path, files: Path) -> None:
    torch.manual_seed(0)
    tokenizer = write_tokenizer(files, training_lines())
    text_encoder = build_text_encoder(
        TINY, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    export(
        folder,
        denoiser=Denoiser(build_unet(TINY), text_encoder),
        vae=build_vae(TINY),
        affine=AFFINE,
        tokenizer=tokenizer,
        tokenizer_files=files,
        sprites=synthetic_sprites(),
        prediction_type="epsilon",
        provenance={"unet_steps": 0},
    )


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_a_pipeline_that_diffusers_loads_and_runs(tmp_path: Path) -> None:
    _export_tiny(tmp_path / "model", tmp_path / "files")
    assert _files(tmp_path / "model") == EXPORTED
    weights = load_file(tmp_path / "model" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in weights)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red apple", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (NATIVE_SIZE, NATIVE_SIZE, 3)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert Exported.load(tmp_path / "model").prediction_type == "epsilon"


def test_exporting_again_keeps_the_card_and_leaves_nothing_behind(tmp_path: Path) -> None:
    _export_tiny(tmp_path / "model", tmp_path / "files")
    (tmp_path / "model" / "README.md").write_text("card")
    _export_tiny(tmp_path / "model", tmp_path / "files")
    assert _files(tmp_path / "model") == EXPORTED | {"README.md"}
    assert {path.name for path in tmp_path.iterdir()} == {"model", "files"}


def test_folding_the_affine_changes_the_latents_and_not_the_pictures() -> None:
    torch.manual_seed(0)
    vae = build_vae(TINY)
    folded = fold_affine(vae, AFFINE)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    difference = reconstruct(vae, pixels).astype(int) - reconstruct(folded, pixels).astype(int)
    assert np.abs(difference).max() <= 1
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        raw, scaled = (network.encode(images).latent_dist for network in (vae, folded))
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (AFFINE.mean, AFFINE.deviation))
    assert torch.allclose(scaled.mean * SCALING_FACTOR, (raw.mean - mean) / deviation, atol=1e-4)
    assert torch.allclose(scaled.std * SCALING_FACTOR, raw.std / deviation, rtol=1e-4)


def test_the_shipped_model_loads_in_diffusers_within_its_size(starter_dir: Path) -> None:
    assert size_bytes(starter_dir) <= SIZE_BUDGET_BYTES
    pipeline = StableDiffusionPipeline.from_pretrained(starter_dir)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae.config.scaling_factor == SCALING_FACTOR


def test_an_exported_autoencoder_can_be_trained_on_with_latents_of_unit_variance(tmp_path: Path) -> None:
    _export_tiny(tmp_path / "model", tmp_path / "files")
    torch.manual_seed(0)
    exported = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    loaded = load_exported_vae(tmp_path / "model")
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before, after = (network.encode(images).latent_dist.mean for network in (exported, loaded))
    assert torch.allclose(after, before * SCALING_FACTOR, atol=1e-5)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    assert np.abs(reconstruct(exported, pixels).astype(int) - reconstruct(loaded, pixels).astype(int)).max() <= 1


def test_a_larger_vocabulary_goes_on_from_the_shipped_networks(starter_dir: Path, tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer", [*training_lines(), "a zeppelin over a fjord"])
    known = load_tokenizer(starter_dir / "tokenizer")
    assert "zeppelin</w>" in tokenizer.get_vocab().keys() - known.get_vocab().keys()
    shipped, larger = Exported.load(starter_dir).denoiser, load_denoiser(starter_dir, tokenizer)
    assert all(
        torch.equal(weight, larger.unet.state_dict()[name]) for name, weight in shipped.unet.state_dict().items()
    )
    prompt = "a fox on a teal background"
    before, after = (torch.from_numpy(encode(words, [prompt]).astype(np.int64)) for words in (known, tokenizer))
    assert not torch.equal(before, after)
    with torch.no_grad():
        assert torch.allclose(shipped.encode_text(before), larger.eval().encode_text(after), atol=1e-5)


def test_every_word_the_shipped_model_knows_is_in_the_tables(starter_dir: Path) -> None:
    words = json.loads((starter_dir / "atelier.json").read_text(encoding="utf-8"))
    assert set(words["concepts"]) <= CONCEPT_BY_NAME.keys()
    assert words["colours"] == list(COLOURS)
    assert words["native_size"] == NATIVE_SIZE
    assert len(words["example_prompts"]) >= 12


def test_every_word_of_the_example_prompts_is_one_that_the_shipped_model_knows(starter_dir: Path) -> None:
    words = json.loads((starter_dir / "atelier.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(starter_dir / "tokenizer")
    for prompt in (*words["example_prompts"], words["sample_caption"], words["sample_negative_prompt"]):
        pieces = tokenizer.tokenize(prompt)
        assert all(piece.endswith("</w>") for piece in pieces), prompt


def test_the_shipped_model_knows_all_objects_that_it_is_measured_with(starter_dir: Path) -> None:
    words = json.loads((starter_dir / "atelier.json").read_text(encoding="utf-8"))
    measured = {name for prompt in (*object_prompts(), *pair_prompts()) for name in prompt.concepts}
    assert measured <= set(words["concepts"])


def test_photographs_come_back_from_the_shipped_autoencoder_soft_but_whole(starter_dir: Path) -> None:
    assert photo_psnr(Exported.load(starter_dir).vae, ("coffee",))["coffee"] > 26


@pytest.mark.parametrize("name", ["README.md", "NOTICE"])
def test_the_shipped_model_carries_its_card_and_notices(starter_dir: Path, name: str) -> None:
    assert "MIT" in (starter_dir / name).read_text(encoding="utf-8")


def test_the_shipped_model_draws_the_background_it_is_asked_for(starter_dir: Path) -> None:
    colours = ["blue", "white"]
    prompts = [f"a dog on a {colour} background" for colour in colours]
    pictures = Exported.load(starter_dir).draw(prompts, [1, 2], guidance_scale=GUIDANCE_SCALE)
    assert [border_colour(picture) for picture in pictures] == colours

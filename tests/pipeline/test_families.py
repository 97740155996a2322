"""Every family's pictures are those of diffusers' own pipeline: equal latents from equal noise, on small networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import CLIPTokenizer

from tests.conftest import CPU
from tests.model_files import info_of, write_folder
from webui.generation.events import Note
from webui.generation.request import GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.pipeline.denoiser import LatentBlend
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model

SIDE = 64
SEED = 11
PROMPT = "a red cat, on a table"
NEGATIVE = "a dog"
TOLERANCE = 1e-4


class OneModel:
    """A manager of one model."""

    def __init__(self, model: Model, library: Library) -> None:
        self._model = model
        self.library = library

    def is_loaded(self, name: str) -> bool:
        return True

    def load(self, name: str, **options: object) -> Model:
        return self._model


Load = Callable[..., Model]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """`load("sdxl", scheduler={...}, unet={...})`: a small model of a family, with changes to its configs."""
    models: dict[str, Model] = {}

    def load(family: str, **changes: dict[str, Any]) -> Model:
        key = family + json.dumps(changes, sort_keys=True)
        if key not in models:
            folder = write_folder(tmp_path_factory.mktemp("models") / family, family, dtype="F32")
            for name, change in changes.items():
                change_config(folder / name, change)
            for text_encoder in folder.glob("text_encoder*"):
                change_config(text_encoder, {"eos_token_id": tokens_of(text_encoder) - 1})
            info = info_of(folder, family, native_size=SIDE)
            manager = PipelineManager(Library([], folder / "cache"), CPU)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Library, "find_checkpoint", lambda library, name, info=info: info)
                models[key] = manager.load(family)
        return models[key]

    return load


def tokens_of(text_encoder: Path) -> int:
    tokenizer = text_encoder.parent / text_encoder.name.replace("text_encoder", "tokenizer")
    return len(json.loads((tokenizer / "vocab.json").read_text()))


def change_config(folder: Path, change: dict[str, Any]) -> None:
    path = folder / ("scheduler_config.json" if folder.name == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    if "time_cond_proj_dim" in change:
        torch.manual_seed(0)
        config = {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("_")}
        UNet2DConditionModel(**config).save_pretrained(folder)


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


@pytest.fixture
def mask() -> Image.Image:
    image = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(image).rectangle((8, 16, 39, 47), fill=255)
    return image


@pytest.fixture(autouse=True)
def no_random_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draw from the posterior; ours take its mean."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.fixture
def no_blend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs leave it to a 9-channel model alone to keep what is not masked."""
    monkeypatch.setattr(LatentBlend, "__call__", lambda self, denoised: denoised)


def ours(model: Model, tmp_path: Path, events: list[JobEvent] | None = None, **changes: Any) -> Tensor:
    """The latents that our engine would decode."""
    values = {
        "checkpoint": model.info.name,
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "width": SIDE,
        "height": SIDE,
        "seed": SEED,
        "sampling": Sampling(sampler="Euler", schedule="Uniform", num_inference_steps=4, guidance_scale=5.0),
    }
    decoded: list[Tensor] = []

    def decode(latents: Tensor) -> list[Image.Image]:
        decoded.append(latents)
        return [Image.new("RGB", (SIDE, SIDE))] * len(latents)

    model.codec.decode = decode  # type: ignore[method-assign]
    generator = Generator(OneModel(model, Library([], tmp_path / "cache")), ImageStore(tmp_path))  # type: ignore[arg-type]
    report = (events if events is not None else []).append
    generator.generate(GenerationRequest(**(values | changes)), report=report, cancel=CancelToken(), previews=False)
    return decoded[0]


def theirs(model: Model, kind: Any, **changes: Any) -> Tensor:
    """The latents that diffusers' pipeline `kind` makes with the same networks."""
    pipe = kind(**parts_of(model, kind))
    pipe.set_progress_bar_config(disable=True)
    values = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "generator": torch.Generator().manual_seed(SEED),
        "output_type": "latent",
    }
    with torch.inference_mode():
        asked = {key: value for key, value in (values | changes).items() if value is not None}
        made: Tensor = pipe(**asked).images
    return made


def parts_of(model: Model, kind: Any) -> dict[str, Any]:
    folder = model.info.path
    parts: dict[str, Any] = {"unet": model.unet, "vae": model.codec.vae, "scheduler": scheduler_of(folder, kind)}
    if "XL" in kind.__name__:
        parts |= {"text_encoder": None, "tokenizer": None}
        if kind is StableDiffusionXLImg2ImgPipeline:
            parts["requires_aesthetics_score"] = model.family.id == "sdxl-refiner"
            parts["force_zeros_for_empty_prompt"] = model.family.id != "sdxl-refiner"
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    names = [path.name for path in sorted(folder.glob("text_encoder*"))]
    for name, encoder in zip(names, model.text_encoder.encoders, strict=True):
        tokenizer = CLIPTokenizer.from_pretrained(folder / name.replace("text_encoder", "tokenizer"))
        if name == "text_encoder_2" or model.family.adapter_base == "sd2":
            tokenizer.pad_token = "!"
        parts |= {name: encoder.model, name.replace("text_encoder", "tokenizer"): tokenizer}
    return parts


def scheduler_of(folder: Path, kind: Any) -> Any:
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    if kind is LatentConsistencyModelPipeline:
        return LCMScheduler.from_config(config, clip_sample=False)
    return EulerDiscreteScheduler.from_config(config, timestep_spacing="linspace")


def assert_equal(mine: Tensor, their: Tensor) -> None:
    assert torch.isfinite(their).all()
    assert their.std() > 0.1
    assert (mine - their).abs().max().item() < TOLERANCE * max(1.0, their.abs().max().item())


TXT2IMG = {
    "sd15": StableDiffusionPipeline,
    "sd20": StableDiffusionPipeline,
    "sd20-v": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
}


@pytest.mark.parametrize("family", TXT2IMG)
def test_a_prompt_gives_what_diffusers_gives(load: Load, tmp_path: Path, family: str) -> None:
    prediction_type = "v_prediction" if family == "sd20-v" else "epsilon"
    model = load(family, scheduler={"prediction_type": prediction_type})
    their = theirs(model, TXT2IMG[family], height=SIDE, width=SIDE)
    assert_equal(ours(model, tmp_path), their)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd15", StableDiffusionImg2ImgPipeline),
        ("sdxl", StableDiffusionXLImg2ImgPipeline),
        ("sdxl-refiner", StableDiffusionXLImg2ImgPipeline),
    ],
)
def test_a_picture_is_changed_as_by_diffusers(
    load: Load, tmp_path: Path, photo: Image.Image, family: str, kind: Any
) -> None:
    model = load(family)
    their = theirs(model, kind, image=photo, strength=0.75)
    assert_equal(ours(model, tmp_path, init=Img2Img(image=photo, strength=0.5)), their)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd15-inpaint", StableDiffusionInpaintPipeline),
        ("sd20-inpaint", StableDiffusionInpaintPipeline),
        ("sdxl-inpaint", StableDiffusionXLInpaintPipeline),
    ],
)
def test_inpainting_models_see_mask_and_masked_picture_as_in_diffusers(
    load: Load, tmp_path: Path, photo: Image.Image, mask: Image.Image, no_blend: None, family: str, kind: Any
) -> None:
    model = load(family)
    their = theirs(model, kind, image=photo, mask_image=mask, strength=0.75, height=SIDE, width=SIDE)
    spec = MaskSpec(image=mask, blur_px=0)
    assert_equal(ours(model, tmp_path, init=Inpaint(image=photo, mask=spec, strength=0.5)), their)


@pytest.mark.parametrize("family", ["sd15-inpaint", "sdxl-inpaint"])
def test_without_a_picture_an_inpainting_model_sees_all_masked(
    load: Load, tmp_path: Path, no_blend: None, family: str
) -> None:
    model = load(family)
    kind = StableDiffusionXLInpaintPipeline if "xl" in family else StableDiffusionInpaintPipeline
    any_picture, everywhere = Image.new("RGB", (SIDE, SIDE)), Image.new("L", (SIDE, SIDE), 255)
    mine = ours(model, tmp_path)
    # An even picture leaves norms of one channel a group nothing but rounding errors, so it is encoded once for both.
    nothing_seen = model.codec.encode_values(torch.zeros(3, SIDE, SIDE))
    size = {"height": SIDE, "width": SIDE}
    their = theirs(
        model, kind, image=any_picture, mask_image=everywhere, masked_image_latents=nothing_seen, strength=1.0, **size
    )
    assert_equal(mine, their)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd15-ip2p", StableDiffusionInstructPix2PixPipeline),
        ("sdxl-ip2p", StableDiffusionXLInstructPix2PixPipeline),
    ],
)
def test_a_picture_is_edited_as_by_diffusers(
    load: Load, tmp_path: Path, photo: Image.Image, family: str, kind: Any
) -> None:
    model = load(family)
    sampling = Sampling(
        sampler="Euler", schedule="Uniform", num_inference_steps=4, guidance_scale=5.0, image_guidance_scale=1.7
    )
    mine = ours(model, tmp_path, init=Img2Img(image=photo, strength=1.0), sampling=sampling)
    size = {"height": SIDE, "width": SIDE} if "XL" in kind.__name__ else {}
    assert_equal(mine, theirs(model, kind, image=photo, image_guidance_scale=1.7, **size))


def test_an_empty_negative_prompt_is_all_zeros_for_sdxl(load: Load, tmp_path: Path) -> None:
    model = load("sdxl")
    their = theirs(model, StableDiffusionXLPipeline, negative_prompt=None, height=SIDE, width=SIDE)
    assert_equal(ours(model, tmp_path, negative_prompt=""), their)


def test_the_last_step_of_zero_terminal_snr_is_noise_alone(load: Load, tmp_path: Path) -> None:
    model = load("sdxl", scheduler={"prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    assert model.levels.sigma_max > 4000
    assert_equal(ours(model, tmp_path), theirs(model, StableDiffusionXLPipeline, height=SIDE, width=SIDE))


def test_a_distilled_model_is_told_its_guidance_scale(load: Load, tmp_path: Path) -> None:
    model = load("sd15", unet={"time_cond_proj_dim": 256})
    sampling = Sampling(sampler="LCM", num_inference_steps=3, guidance_scale=8.5)
    events: list[JobEvent] = []
    mine = ours(model, tmp_path, events, sampling=sampling)
    generator = torch.Generator().manual_seed(SEED)
    sigma = model.levels.sigma_max  # ours starts at this level; theirs calls it all noise
    start = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=generator) * sigma / (1 + sigma**2) ** 0.5
    their = theirs(
        model, LatentConsistencyModelPipeline, num_inference_steps=3, original_inference_steps=1000,
        guidance_scale=8.5, generator=generator, latents=start, negative_prompt=None, height=SIDE, width=SIDE,
    )  # fmt: skip
    assert_equal(mine, their)
    assert any("negative prompt" in event.message for event in events if isinstance(event, Note))

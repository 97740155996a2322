"""The starter model through the whole engine: pictures that show what the prompt says, not noise."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.conftest import Generate
from webui.generation.request import GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.library.catalog import Library
from webui.pipeline.samplers import SAMPLERS

COLOURS = {"red": (205, 35, 35), "blue": (40, 80, 205), "green": (50, 140, 55), "yellow": (250, 210, 50)}


def request(**changes: object) -> GenerationRequest:
    values = {"checkpoint": "starter", "width": 128, "height": 128, "seed": 21}
    values |= {"sampling": Sampling(num_inference_steps=12, guidance_scale=4.0)}
    return GenerationRequest(**(values | changes))  # type: ignore[arg-type]


def picture(generate: Generate, asked: GenerationRequest) -> np.ndarray:
    with Image.open(generate(asked)[0].path) as image:
        return np.array(image, dtype=float)


def border(pixels: np.ndarray) -> np.ndarray:
    """Median colour of the outermost 6 pixels."""
    frame = np.ones(pixels.shape[:2], dtype=bool)
    frame[6:-6, 6:-6] = False
    return np.median(pixels[frame], axis=0)


@pytest.fixture
def sample(starter_dir: Path) -> Image.Image:
    with Image.open(starter_dir / "sample.png") as image:
        return image.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_background_has_the_colour_that_the_prompt_names(generate: Generate, colour: str) -> None:
    found = border(picture(generate, request(prompt=f"an apple on a {colour} background")))
    nearest = min(COLOURS, key=lambda name: float(np.abs(found - COLOURS[name]).sum()))
    assert nearest == colour


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_the_prompt(generate: Generate, sampler: str) -> None:
    steps = 4 if sampler == "LCM" else 16
    sampling = Sampling(sampler=sampler, num_inference_steps=steps, guidance_scale=3.0)
    pixels = picture(generate, request(prompt="a red apple on a blue background", sampling=sampling))
    red, _, blue = border(pixels)
    assert blue > red + 40
    centre = np.median(pixels[50:90, 44:84].reshape(-1, 3), axis=0)
    assert centre[0] > centre[2]


def test_strength_decides_how_much_of_the_photo_stays(generate: Generate, sample: Image.Image) -> None:
    original = np.array(sample, dtype=float)
    asked = "a portrait of an old man on a red background"
    differences = [
        np.abs(
            picture(generate, request(prompt=asked, init=Img2Img(image=sample, strength=strength))) - original
        ).mean()
        for strength in (0.1, 0.3, 0.6)
    ]
    assert differences[0] < differences[1] < differences[2]
    assert differences[0] < differences[2] / 2


def test_a_prompt_that_describes_the_photo_keeps_it(generate: Generate, sample: Image.Image, library: Library) -> None:
    caption = library.find_checkpoint("starter").sample_caption
    pixels = picture(generate, request(prompt=caption, init=Img2Img(image=sample, strength=0.3)))
    assert np.abs(pixels - np.array(sample, dtype=float)).mean() < 20


def test_inpainting_paints_the_prompt_into_the_mask_without_a_seam(generate: Generate, sample: Image.Image) -> None:
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 128, 30))
    spec = MaskSpec(image=mask, blur_px=4)
    asked = request(
        prompt="a portrait of a woman on a teal background", init=Inpaint(image=sample, mask=spec, strength=0.8)
    )
    pixels, original = picture(generate, asked), np.array(sample, dtype=float)
    assert np.array_equal(pixels[50:], original[50:])
    rows = np.array(Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.BoxBlur(1)), dtype=float)
    seam = np.abs(np.diff(rows[24:40, :12].mean(axis=(1, 2)))).max()
    assert seam < 25


def test_the_starter_tells_what_it_can(starter_dir: Path, library: Library) -> None:
    info = library.find_checkpoint("starter")
    assert info.native_size == 192
    assert info.guidance_scale == 3.0
    assert len(info.example_prompts) >= 12
    assert info.sample_image is not None
    words = json.loads((starter_dir / "atelier.json").read_text(encoding="utf-8"))
    assert len(words["concepts"]) >= 190
    assert words["styles"] == ["3d icon", "flat icon"]
    assert sum(path.stat().st_size for path in starter_dir.rglob("*") if path.is_file()) <= 32 * 2**20

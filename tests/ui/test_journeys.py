"""What a stranger does first, on the starter model: real clicks, real strokes, real pictures."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from tests.ui.studio import Server, User, serve
from webui.app import build_runners
from webui.images.geometry import resize
from webui.settings import CHECKOUT

STEPS = 4
GENERATION_TIMEOUT_MS = 120_000
"""With the import of torch and the model's load."""
SAMPLE = CHECKOUT / "models" / "starter" / "sample.png"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("studio"), build_runners) as running:
        yield running


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    return User(warm_page, server.url).visit()


def made_by(user: User) -> NDArray[np.uint8]:
    """Generates with few steps; the pixels of the picture."""
    user.set_number("steps", STEPS)
    job = user.generate()
    expect(user.results).to_have_attribute("data-state", "finished", timeout=GENERATION_TIMEOUT_MS)
    expect(user.results).to_have_attribute("data-job", job)
    answer = user.page.request.get(f"{user.url}/pictures/{job}/0")
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))


def sample_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The sample photo as the engine gets it: in the size of `pixels`."""
    height, width, _ = pixels.shape
    return np.asarray(resize(Image.open(SAMPLE).convert("RGB"), width, height, "stretch"))


def paint_across_the_middle(user: User) -> None:
    surface = user.at("picture").locator("[data-part=surface]")
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    user.page.mouse.move(box["x"] + box["width"] * 0.45, middle)
    user.page.mouse.down()
    user.page.mouse.move(box["x"] + box["width"] * 0.55, middle, steps=6)
    user.page.mouse.up()


def test_a_prompt_becomes_a_picture(user: User) -> None:
    pixels = made_by(user)
    assert pixels.std() > 5


def test_a_photo_becomes_a_variation_of_itself(user: User) -> None:
    img2img = user.tab("img2img")
    expect(img2img.at("picture").locator("[data-ready]")).to_be_visible()
    img2img.set_number("strength", 0.3)
    pixels = made_by(img2img)
    sample = sample_of(pixels)
    assert not np.array_equal(pixels, sample)
    assert np.corrcoef(pixels.ravel(), sample.ravel())[0, 1] > 0.5


def test_a_painted_mask_is_repainted_and_nothing_else(user: User) -> None:
    inpaint = user.tab("Inpaint")
    expect(inpaint.at("picture").locator("[data-ready]")).to_be_visible()
    paint_across_the_middle(inpaint)
    inpaint.set_number("mask_blur", 0)
    inpaint.set_number("strength", 1)
    pixels = made_by(inpaint)
    changed = (pixels != sample_of(pixels)).any(axis=2)
    height, width = changed.shape
    rows, columns = np.nonzero(changed)
    assert rows.size > 0
    assert height * 0.3 < rows.min() and rows.max() < height * 0.7
    assert width * 0.2 < columns.min() and columns.max() < width * 0.8


def test_the_same_seed_gives_the_same_picture_after_a_reload(user: User) -> None:
    user.set_number("seed", 77)
    first = made_by(user)
    user.reload()
    assert np.array_equal(first, made_by(user))

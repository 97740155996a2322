"""What a stranger does first, on the starter model: real clicks, real strokes, real pictures."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from tests.extension_files import load_host, write_extension
from tests.ui.studio import Server, User, serve
from webui.app import build_runners
from webui.images.geometry import resize
from webui.settings import CHECKOUT

STEPS = 4
GENERATION_TIMEOUT_MS = 120_000
"""With the import of torch and the model's load."""
SAMPLE = CHECKOUT / "models" / "starter" / "sample.png"
TINT = """
from webui.hooks import Picture


class Frame(BaseModel):
    model_config = ConfigDict(frozen=True)
    width: int = Field(default=0, ge=0, le=64, title="Width")


class Params(BaseModel):
    model_config = ConfigDict(frozen=True)
    amount: int = Field(default=50, ge=0, le=100, title="Amount")
    photo: Picture = Field(default="", title="Photo")
    agreed: bool = Field(default=False, title="Go ahead", json_schema_extra={"personal": True})
    frame: Frame = Field(default=Frame(), title="Frame")


class Tint:
    id = "tint"
    title = "Tint"
    params_model = Params

    def check(self, params, request):
        if not params.agreed:
            raise InvalidRequest("agreed", "It needs your word.")
        if params.frame.width == 13:
            raise InvalidRequest("frame.width", "13 brings bad luck.")

    def __call__(self, image, params, context):
        colour = context.picture(params.photo).getpixel((0, 0)) if params.photo else (255, 0, 0)
        made = Image.blend(image, Image.new("RGB", image.size, colour), params.amount / 100)
        badge = Badge(text=f"tint {params.amount}", tone="good", title=f"Tinted by {params.amount} %")
        return Processed(image=made, fields={"Tint done": "yes"}, notes=("It went well.",), badge=badge)


@hookimpl
def postprocessors():
    return [Tint()]
"""
"""A postprocessor that mixes a colour in: red, or that of the photo's corner."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("studio")
    write_extension(data_dir / "extensions", "tint", "from PIL import Image\n" + TINT)
    host = load_host(data_dir)
    with serve(data_dir, build_runners, host=host) as running:
        yield running
    host.close()


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    if warm_page.url.startswith(server.url):
        warm_page.evaluate("localStorage.clear()")
        warm_page.goto("about:blank")
    return User(warm_page, server.url).visit()


def made_by(user: User) -> NDArray[np.uint8]:
    """Generates with few steps; the pixels of the picture."""
    user.set_number("steps", STEPS)
    job = user.generate()
    expect(user.results).to_have_attribute("data-state", "finished", timeout=GENERATION_TIMEOUT_MS)
    expect(user.results).to_have_attribute("data-job", job)
    return pixels_of(user, job)


def pixels_of(user: User, job: str) -> NDArray[np.uint8]:
    """The first picture of a job that has ended."""
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


def switch_tint_on(user: User, amount: int) -> None:
    user.page.get_by_role("checkbox", name="Tint").check()
    user.page.get_by_role("checkbox", name="Go ahead").check()
    user.set_number("tint-amount", amount)


def test_a_postprocessor_works_on_every_picture_and_says_so(user: User, server: Server, tmp_path: Path) -> None:
    switch_tint_on(user, 100)
    pixels = made_by(user)
    assert (pixels == (255, 0, 0)).all()
    expect(user.results.locator(".at-stage .at-badge")).to_have_text("tint 100")
    expect(user.results.locator(".at-info")).to_contain_text("Tinted by 100 %")
    expect(user.results.locator(".at-notes")).to_contain_text("It went well.")
    user.results.locator(".at-parameters summary").click()
    expect(user.results.locator(".at-parameters pre")).to_contain_text(re.compile("Tint: on.*Tint Amount: 100"))

    user.reload()
    expect(user.page.get_by_role("checkbox", name="Tint")).to_be_checked()
    user.page.get_by_role("checkbox", name="Tint").uncheck()
    kept = tmp_path / "kept.png"
    job = user.results.get_attribute("data-job")
    kept.write_bytes(user.page.request.get(f"{server.url}/pictures/{job}/0").body())
    img2img = user.tab("img2img")
    with user.page.expect_file_chooser() as chooser:
        img2img.press("restore")
    chooser.value.set_files(kept)
    expect(user.page.get_by_role("checkbox", name="Tint")).to_be_checked()
    expect(img2img.number("tint-amount")).to_have_value("100")
    expect(user.page.get_by_role("checkbox", name="Go ahead")).not_to_be_checked()


def test_what_a_postprocessor_refuses_is_shown_at_its_control(user: User) -> None:
    user.page.get_by_role("checkbox", name="Tint").check()
    user.press("generate")
    expect(user.toast).to_contain_text("Tint: It needs your word.")
    expect(user.at("tint-agreed")).to_have_class(re.compile("at-problem"))
    user.page.get_by_role("checkbox", name="Go ahead").check()
    user.page.get_by_role("button", name="Frame").click()
    expect(user.number("tint-frame-width")).to_be_visible()
    user.settle()
    user.set_number("tint-frame-width", 13)
    user.settle()
    expect(user.number("tint-frame-width")).to_have_value("13")
    user.page.get_by_role("button", name="Frame").click()
    user.at("tint-settings").get_by_role("button", name="Settings").click()
    expect(user.number("tint-frame-width")).not_to_be_visible()
    user.settle()
    user.press("generate")
    expect(user.number("tint-frame-width")).to_be_visible()
    expect(user.number("tint-frame-width")).to_have_attribute("aria-invalid", "true")
    expect(user.jobs).to_have_count(0)


def test_finished_pictures_go_through_extras_one_job_each(user: User, tmp_path: Path) -> None:
    for name, colour in (("one", "#000"), ("two", "#888"), ("photo", "#00f")):
        Image.new("RGB", (40, 24), colour).save(tmp_path / f"{name}.png")
    extras = user.tab("Extras")
    extras.press("generate")
    expect(user.toast).to_contain_text("no picture to work on")
    extras.at("picture").locator("input[type=file]").set_input_files([tmp_path / "one.png", tmp_path / "two.png"])
    expect(extras.at("picture").get_by_role("img")).to_have_count(2)
    extras.page.get_by_role("button", name="Remove two.png").click()
    extras.at("picture").locator("input[type=file]").set_input_files(tmp_path / "two.png")
    extras.at("tint-photo").locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    extras.page.get_by_role("checkbox", name="Go ahead").check()
    extras.generate()
    earlier = extras.results.locator(".at-recent button")
    expect(earlier).to_have_count(1, timeout=GENERATION_TIMEOUT_MS)
    expect(extras.jobs).to_have_count(0)
    jobs = [extras.results.get_attribute("data-job"), earlier.get_attribute("data-job")]
    made = sorted(tuple(pixels_of(extras, job or "").mean(axis=(0, 1)).round()) for job in jobs)
    assert np.allclose(made, [(0, 0, 127.5), (68, 68, 195.5)], atol=1)
    extras.tool("compare").click()
    expect(extras.results.locator(".at-before")).to_have_js_property("naturalWidth", 40)
    extras.tool("send_img2img").click()
    expect(User(user.page, user.url, "img2img").at("picture").locator("[data-ready='40x24']")).to_be_visible()

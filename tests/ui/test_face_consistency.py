"""A photo goes through img2img, and the face comes back: the whole program on the starter model, with real clicks."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect
from skimage import data

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.identity import embed, similarity
from tests.extension_files import settings_for
from tests.ui.studio import Server, User, serve
from webui.app import build_runners
from webui.images.metadata import COMPOSITE
from webui.plugins.host import PluginHost
from webui.settings import CHECKOUT

GENERATION_TIMEOUT_MS = 120_000
"""With the import of torch and the model's load."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("studio")
    host = PluginHost(settings_for(data_dir), folders=[CHECKOUT / "extensions"])
    host.load()
    with serve(data_dir, build_runners, host=host) as running:
        yield running
    host.close()


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    return User(warm_page, server.url).visit()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut's head, as large as the starter needs it to leave a face in it."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()[:256, 90:346]).save(path)
    return path


def generated(user: User) -> tuple[bytes, NDArray[np.uint8]]:
    job = user.generate()
    expect(user.results).to_have_attribute("data-state", "finished", timeout=GENERATION_TIMEOUT_MS)
    expect(user.results).to_have_attribute("data-job", job)
    file = user.page.request.get(f"{user.url}/pictures/{job}/0").body()
    return file, np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def agree(user: User) -> None:
    user.at("face_consistency-consent").get_by_role("checkbox").check()


def test_a_photo_through_img2img_keeps_its_face_and_says_how_well(user: User, photo: Path, tmp_path: Path) -> None:
    img2img = user.tab("img2img")
    img2img.at("picture").locator("input[type=file]").first.set_input_files(photo)
    expect(img2img.at("picture").locator("[data-ready='256x256']")).to_be_visible()
    img2img.write("")
    img2img.write("", "negative_prompt")
    for name, value in (("width", 256), ("height", 256), ("seed", 1), ("steps", 4), ("strength", 0.2)):
        img2img.set_number(name, value)
    _, plain = generated(img2img)
    img2img.at("face_consistency").get_by_role("checkbox").check()
    agree(img2img)
    img2img.set_number("face_consistency-shape_keep", 0.4)
    file, made = generated(img2img)

    badge = img2img.results.locator(".at-stage .at-badge")
    before, after = map(float, re.findall(r"\d\.\d\d", badge.inner_text()))
    assert before < 0.6
    assert after > 0.75
    original = np.asarray(Image.open(photo).convert("RGB"))
    models = Models(CHECKOUT / "extensions" / "face_consistency" / "models")
    faces = [find_faces(pixels, models=models)[0] for pixels in (original, plain, made)]
    person, drifted, again = (
        embed(pixels, face, models=models) for pixels, face in zip((original, plain, made), faces, strict=True)
    )
    assert similarity(person, drifted) == pytest.approx(before, abs=0.02)
    assert similarity(person, again) == pytest.approx(after, abs=0.05)
    changed = (made != plain).any(axis=2)
    assert changed.any()
    points = faces[1].points[:, :2]
    (left, top), (right, bottom) = points.min(axis=0).astype(int) - 2, points.max(axis=0).astype(int) + 3
    changed[max(top, 0) : bottom, max(left, 0) : right] = False
    assert not changed.any(), "pixels away from the face are those of the picture that was generated"

    img2img.results.locator(".at-parameters summary").click()
    expect(img2img.results.locator(".at-parameters pre")).to_contain_text(f"Face: warped {before:.2f} -> {after:.2f}")
    with Image.open(io.BytesIO(file)) as picture:
        assert COMPOSITE in picture.info["XML:com.adobe.xmp"]

    kept = tmp_path / "kept.png"
    kept.write_bytes(file)
    img2img.at("face_consistency").get_by_role("checkbox").uncheck()
    img2img.set_number("face_consistency-shape_keep", 0.9)
    img2img.at("face_consistency-consent").get_by_role("checkbox").uncheck()
    with user.page.expect_file_chooser() as chooser:
        img2img.press("restore")
    chooser.value.set_files(kept)
    expect(img2img.at("face_consistency").get_by_role("checkbox")).to_be_checked()
    expect(img2img.number("face_consistency-shape_keep")).to_have_value("0.4")
    expect(img2img.at("face_consistency-consent").get_by_role("checkbox")).not_to_be_checked()


def test_what_is_missing_is_said_at_once(user: User) -> None:
    user.at("face_consistency").get_by_role("checkbox").check()
    user.press("generate")
    expect(user.toast).to_contain_text("needs your word first")
    agree(user)
    user.press("generate")
    expect(user.toast).to_contain_text("no picture to take the face from")
    user.expect_state("empty")


def test_a_face_is_saved_and_deleted_in_its_tab(user: User, server: Server, photo: Path) -> None:
    page = user.page
    page.get_by_role("tab", name="Faces", exact=True).click()
    page.locator("#faces_photos input[type=file]").set_input_files(photo)
    expect(page.locator("#faces_photos")).to_contain_text("astronaut")
    page.locator("#faces_name textarea, #faces_name input").fill("Ada")
    page.get_by_role("button", name="Save face").click()
    expect(user.toast).to_contain_text("only if you agree")
    page.locator("#faces_consent").get_by_role("checkbox").check()
    page.get_by_role("button", name="Save face").click()
    table = page.locator("#faces_table")
    expect(table).to_contain_text("Ada")
    faces = server.services.settings.data_dir / "extension-data" / "face_consistency" / "faces"
    assert [path.name for path in faces.iterdir()] == ["Ada.safetensors"]
    table.get_by_role("gridcell", name="Ada").click()
    expect(page.locator("#faces_chosen textarea, #faces_chosen input")).to_have_value("Ada")
    page.get_by_role("button", name="Delete face").click()
    expect(table).not_to_contain_text("Ada")
    assert not list(faces.iterdir())

"""Step 1 of the Training tab, in a browser at the whole program: photos are added, mended, cropped, told of, masked."""

import io
import json
import random
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Locator, Page, expect

from tests.ui.conftest import OpenPage
from tests.ui.studio import Server, User, serve
from webui.errors import StorageError
from webui.training.data.edits import FILE_NAME, read_edits

SIZE = (900, 600)
BLURRED = "blurred.jpg"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def photo(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Sharp and unlike those of other seeds."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, (chance.randrange(256), chance.randrange(256), chance.randrange(256)))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, side = chance.randrange(size[0]), chance.randrange(size[1]), chance.randrange(20, 200)
        draw.rectangle((x, y, x + side, y + side), fill=tuple(chance.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    return data.getvalue()


def files_of(folder: Path) -> list[Path]:
    """Seven photos, three captions, one blurred photo, and something else."""
    folder.mkdir(parents=True)
    for i in range(7):
        (folder / f"mia {i}.jpg").write_bytes(encoded(photo(i)))
    (folder / BLURRED).write_bytes(encoded(photo(7).filter(ImageFilter.GaussianBlur(12))))
    for i, caption in enumerate(("mia, red coat, smiling", "mia, red coat", "mia, garden")):
        (folder / f"mia {i}.txt").write_text(caption)
    (folder / "letter.pdf").write_bytes(b"%PDF-1.7 not a picture")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("photos"), lambda services: {}) as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return files_of(tmp_path_factory.mktemp("mine") / "files")


class Photos:
    """Step 1, in the words of its user."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.user = User(page, server.url).visit("?tab=training")
        self.server = server
        self.step = page.locator("section[data-step=photos]")
        self.dialog = page.locator("dialog.at-photo-dialog")
        self.tiles = self.step.locator(".at-photo-tile")
        expect(self.step).to_be_visible()

    def new_set(self, name: str, files: Sequence[Path] = ()) -> Path:
        """Its folder."""
        self.step.get_by_role("button", name="New set").click()
        self.step.get_by_label("Name of the new set").fill(name)
        self.step.get_by_role("button", name="Make it").click()
        expect(self.step.get_by_label("Photo set").locator("option:checked")).to_have_text(f"{name} (0)")
        if files:
            self.step.get_by_label("Add photos or a zip").set_input_files([str(path) for path in files])
        return self.server.services.photo_sets.source(name)

    def ask_to_remove(self) -> None:
        self.step.get_by_role("button", name="Remove set").click()
        self.page.get_by_role("button", name="Remove", exact=True).click()

    def remove_set(self) -> None:
        sets = self.step.get_by_label("Photo set").locator("option:not([value=''])")
        before = sets.count()
        self.ask_to_remove()
        expect(self.step.get_by_text("Drop photos, a folder or a zip here.")).to_be_visible()
        expect(sets).to_have_count(before - 1)

    def expect_count(self, count: int) -> None:
        expect(self.step.locator(".at-photo-grid")).to_have_attribute("data-count", str(count))

    def expect_checked(self) -> None:
        expect(self.step).to_have_attribute("data-checking", "")

    def tile(self, name: str) -> Locator:
        return self.step.locator(f".at-photo-tile[data-name='{name}']")

    def open(self, name: str) -> None:
        self.tile(name).get_by_role("button").click()
        expect(self.dialog.get_by_role("heading", name=name)).to_be_visible()

    def mode(self, name: str) -> None:
        self.dialog.locator(f"[data-mode={name}]").click()

    def tool(self, name: str) -> None:
        self.dialog.get_by_role("button", name=name, exact=True).click()

    @property
    def caption(self) -> Locator:
        return self.dialog.get_by_label("Caption", exact=True)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=5)
        self.page.mouse.up()

    def drop(self, files: Sequence[tuple[str, bytes]]) -> None:
        """As from a file manager, onto the panel."""
        transfer = self.page.evaluate_handle(
            """(files) => {
                const transfer = new DataTransfer();
                for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name));
                return transfer;
            }""",
            [[name, list(data)] for name, data in files],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.step.dispatch_event(event, {"dataTransfer": transfer})


@pytest.fixture
def photos(warm_page: Page, server: Server) -> Photos:
    return Photos(warm_page, server)


def told(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


def middle(locator: Locator) -> tuple[float, float]:
    box = locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_photos_come_in_are_mended_by_a_click_undone_and_found_again_after_a_reload(
    photos: Photos, files: list[Path]
) -> None:
    folder = photos.new_set("mended", files)
    photos.expect_count(8)
    expect(photos.step.get_by_text("1 file was not taken")).to_be_visible()
    expect(photos.step.locator(".at-photo-refused li")).to_contain_text("letter.pdf")
    photos.expect_checked()
    blurred = photos.step.get_by_role("list", name="Problems").locator("li[data-kind=blurred]")
    expect(blurred).to_contain_text(BLURRED)
    expect(photos.tile(BLURRED)).to_contain_text("Blurred")

    blurred.get_by_role("button", name="Leave it out").click()
    expect(photos.tile(BLURRED)).to_contain_text("Left out")
    assert read_edits(folder)[BLURRED].excluded
    expect(blurred).to_have_count(0)
    expect(photos.page.locator("nav [data-step=photos]")).to_contain_text("7 photos")
    photos.user.reload()
    photos.expect_count(8)
    expect(photos.tile(BLURRED)).to_contain_text("Left out")
    photos.step.get_by_role("button", name="Undo").click()
    expect(photos.tile(BLURRED)).to_contain_text("Blurred")
    assert not read_edits(folder)

    photos.step.get_by_role("button", name="Next: Settings").click()
    expect(photos.page.locator("section[data-step=settings]")).to_be_visible()
    photos.user.reload()
    expect(photos.page.locator("nav [aria-current=step]")).to_contain_text("Settings")
    photos.page.locator("nav [data-step=photos]").click()
    photos.expect_count(8)


def test_a_dragged_crop_keeps_its_shape_and_is_written_among_the_photos(photos: Photos, files: list[Path]) -> None:
    folder = photos.new_set("cropped", files[:4])
    name = next(path.name for path in files[:4] if path.suffix == ".jpg" and path.name != BLURRED)
    photos.open(name)
    photos.mode("crop")
    box = photos.dialog.locator(".at-crop-box")
    expect(box).to_have_attribute("data-box", "0,0,900,600")
    corner = box.locator("[data-x='1'][data-y='1']")
    (x, y), (cx, cy) = middle(corner), middle(box)
    photos.drag((x, y), (cx, cy))
    expect(photos.dialog.get_by_role("button", name="Whole photo")).to_be_enabled()
    left, top, right, bottom = read_edits(folder)[name].crop or (0, 0, 0, 0)
    assert (left, top) == (0, 0)
    assert abs(right - 450) <= 4
    assert abs(bottom - 300) <= 4

    photos.dialog.get_by_label("Shape of the part").select_option("Square")
    expect(box).to_have_attribute("data-box", "0,0,600,600")
    photos.drag(middle(box), (1400, middle(box)[1]))
    expect(box).to_have_attribute("data-box", "300,0,900,600")
    x, y = middle(box.locator("[data-x='-1'][data-y='0']"))
    photos.drag((x, y), (x + 50, y))
    left, top, right, bottom = map(int, (box.get_attribute("data-box") or "").split(","))
    assert left > 300
    assert right == 900
    assert abs((right - left) - (bottom - top)) <= 1
    box.press("ArrowLeft")
    expect(box).to_have_attribute("data-box", f"{left - 9},{top},{right - 9},{bottom}")
    photos.tool("Close")
    expect(photos.tile(name)).to_contain_text("Part")
    assert read_edits(folder)[name].crop == (left - 9, top, right - 9, bottom)
    assert [path.name for path in folder.glob("*.json")] == [FILE_NAME]


def test_captions_are_typed_beside_the_photo_and_changed_in_all_photos_at_once(
    photos: Photos, files: list[Path]
) -> None:
    folder = photos.new_set("told", [path for path in files if path.name.startswith("mia")])
    photos.expect_count(7)
    photos.open("mia 3.jpg")
    photos.caption.fill("mia, at the sea")
    photos.caption.press("Control+Enter")
    expect(photos.dialog.get_by_role("heading", name="mia 4.jpg")).to_be_visible()
    assert told(folder, "mia 3.txt") == "mia, at the sea"
    photos.caption.fill("mia, <b>bold</b>")
    photos.caption.press("PageUp")
    expect(photos.caption).to_have_value("mia, at the sea")
    assert told(folder, "mia 4.txt") == "mia, <b>bold</b>"
    photos.caption.press("Escape")
    expect(photos.dialog).to_be_hidden()

    tag = photos.step.get_by_role("list", name="Tags").get_by_role("listitem").filter(has_text="red coat")
    expect(tag).to_contain_text("2")
    tag.get_by_role("button").first.click()
    photos.expect_count(2)
    photos.step.get_by_role("button", name="Tag: red coat").click()
    photos.step.get_by_label("Find", exact=True).fill("red coat")
    photos.step.get_by_label("Replace by").fill("blue coat")
    photos.step.get_by_role("button", name="Replace", exact=True).click()
    expect(photos.step.get_by_text("2 captions changed.")).to_be_visible()
    assert told(folder, "mia 0.txt") == "mia, blue coat, smiling"
    photos.step.get_by_role("button", name='Remove "smiling" from all captions').click()
    expect(photos.step.get_by_text("1 caption changed.")).to_be_visible()
    assert told(folder, "mia 0.txt") == "mia, blue coat"
    photos.step.get_by_role("button", name="Undo").click()
    expect(photos.step.get_by_role("button", name='Remove "smiling" from all captions')).to_be_visible()
    assert told(folder, "mia 0.txt") == "mia, blue coat, smiling"

    photos.tile("mia 5.jpg").get_by_role("checkbox").check(force=True)
    photos.tile("mia 6.jpg").get_by_role("checkbox").check(force=True)
    photos.step.get_by_label("Put in front").fill("photo of mia")
    photos.step.get_by_role("button", name="Add", exact=True).click()
    expect(photos.step.get_by_text("2 captions changed.")).to_be_visible()
    assert told(folder, "mia 6.txt") == "photo of mia"
    assert told(folder, "mia 0.txt") == "mia, blue coat, smiling"
    photos.step.get_by_label("Repeats of the chosen photos").fill("3")
    photos.step.get_by_role("button", name="Set repeats").click()
    expect(photos.tile("mia 6.jpg")).to_contain_text("×3")
    assert read_edits(folder)["mia 5.jpg"].repeats == 3


def test_a_painted_mask_lies_beside_the_photo_and_can_be_removed(photos: Photos, files: list[Path]) -> None:
    folder = photos.new_set("masked", files[:3])
    name = next(path.name for path in files[:3] if path.suffix == ".jpg")
    photos.open(name)
    photos.mode("mask")
    canvas = photos.dialog.locator(".at-mask-canvas")
    expect(canvas).to_be_visible()
    box = canvas.bounding_box()
    assert box is not None
    photos.drag((box["x"] + 5, middle(canvas)[1]), (box["x"] + box["width"] / 2, middle(canvas)[1]))
    photos.tool("Save mask")
    expect(photos.dialog.get_by_role("button", name="Remove mask")).to_be_enabled()
    written = folder / f"{Path(name).stem}-masklabel.png"
    with Image.open(written) as file:
        mask = file.convert("L")
    assert mask.width / mask.height == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)
    assert mask.getpixel((mask.width // 4, mask.height // 2)) == 0
    assert mask.getpixel((mask.width * 3 // 4, mask.height // 2)) == 255
    photos.mode("look")
    expect(photos.dialog.locator(".at-mask-shown")).to_be_visible()
    photos.mode("mask")
    photos.tool("Remove mask")
    expect(photos.dialog.get_by_role("button", name="Remove mask")).to_be_disabled()
    assert not written.exists()
    photos.tool("Close")


def test_dropped_files_make_a_set_and_a_dropped_zip_fills_it(open_page: OpenPage, server: Server) -> None:
    photos = Photos(open_page(color_scheme="dark"), server)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("trip/beach.jpg", encoded(photo(21)))
        archive.writestr("trip/beach.txt", "a beach")
    photos.drop([("hill.jpg", encoded(photo(20))), ("hill.txt", b"a hill"), ("trip.zip", packed.getvalue())])
    photos.expect_count(2)
    expect(photos.step.get_by_label("Photo set").locator("option:checked")).to_contain_text("My photos")
    folder = server.services.photo_sets.source("My photos")
    assert told(folder, "hill.txt") == "a hill"
    assert [path.read_text() for path in folder.rglob("beach.txt")] == ["a beach"]

    photos.remove_set()
    assert not folder.exists()


def test_a_set_removed_while_its_pictures_are_on_their_way_leaves_quietly(
    open_page: OpenPage, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures come late: the last of them are made when their photos are gone."""
    thumbnails, made = server.services.photo_sets.thumbnails, threading.Semaphore(0)
    asked: list[Path] = []
    usual = thumbnails.get

    def late(path: Path, *rest: Any) -> bytes:
        asked.append(path)
        deadline = time.monotonic() + 20
        while path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            return usual(path, *rest)
        finally:
            made.release()

    monkeypatch.setattr(thumbnails, "get", late)
    photos = Photos(open_page(), server)
    photos.drop([("hill.jpg", encoded(photo(20))), ("lake.jpg", encoded(photo(21)))])
    photos.expect_count(2)
    while len(asked) < 2:
        photos.page.wait_for_timeout(20)
    photos.remove_set()
    photos.expect_count(0)
    for _ in asked:
        assert made.acquire(timeout=30)
    photos.page.wait_for_timeout(200)  # an answer that was not given up would be told of by now


def test_a_set_that_cannot_be_removed_is_shown_again_with_the_reason(
    open_page: OpenPage, server: Server, expected_errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(id: str) -> None:
        raise StorageError(f"'{id}' could not be removed: it is in use.", hint="Try again.")

    expected_errors.append("422")
    photos = Photos(open_page(), server)
    photos.drop([("hill.jpg", encoded(photo(20)))])
    photos.expect_count(1)
    with monkeypatch.context() as patch:
        patch.setattr(server.services.photo_sets, "remove", refuse)
        photos.ask_to_remove()
        expect(photos.step.get_by_role("alert").filter(has_text="it is in use")).to_be_visible()
    photos.expect_count(1)
    expect(photos.tile("hill.jpg")).to_be_visible()
    photos.remove_set()


def test_a_folder_of_three_thousand_photos_shows_only_those_in_sight_and_keys_reach_the_last(
    open_page: OpenPage, server: Server, tmp_path: Path, expected_errors: list[str]
) -> None:
    expected_errors.append("422")
    data = encoded(photo(1, (64, 64)))
    for i in range(3000):
        (tmp_path / f"{i:04}.jpg").write_bytes(data)
    photos = Photos(open_page(**PHONE), server)
    photos.step.get_by_role("button", name="Open a folder").click()
    photos.step.get_by_label("Full path of a folder").fill(str(tmp_path / "nowhere"))
    photos.step.get_by_role("button", name="Open it").click()
    expect(photos.step.get_by_role("alert").filter(has_text="nowhere")).to_be_visible()
    photos.step.get_by_label("Full path of a folder").fill(str(tmp_path))
    photos.step.get_by_role("button", name="Open it").click()
    photos.expect_count(3000)
    photos.tile("0000.jpg").get_by_role("button").focus()
    photos.page.keyboard.press("End")
    expect(photos.tile("2999.jpg").get_by_role("button")).to_be_focused()
    assert photos.tiles.count() < 120
    photos.page.keyboard.press("ArrowLeft")
    expect(photos.tile("2998.jpg").get_by_role("button")).to_be_focused()
    assert photos.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    photos.remove_set()
    assert (tmp_path / "0000.jpg").exists()
    assert not json.loads((server.services.photo_sets.root / "folders.json").read_text())

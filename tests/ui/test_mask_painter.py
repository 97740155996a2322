"""The mask painter in a real browser: what is painted on the canvas is what Python gets."""

import base64
import json
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from playwright.sync_api import Locator, Page, expect

from tests.ui.painter_page import PainterPage, serve
from webui.ui.mask_painter import PaintedImage

Mask = NDArray[np.uint8]
Point = tuple[float, float]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@dataclass
class Studio:
    """One browser page with the painter, driven in picture pixels."""

    page: Page
    served: PainterPage

    @property
    def painter(self) -> Locator:
        return self.page.locator("#inpaint_image")

    @property
    def state(self) -> Locator:
        return self.page.locator("#inpaint_image [data-view]")

    def button(self, name: str) -> Locator:
        return self.painter.get_by_role("button", name=name, exact=True)

    def visit(self) -> "Studio":
        self.page.goto(self.served.url)
        self.page.locator("#inpaint_image [data-view]").wait_for()
        return self

    def open(self, file: Path) -> "Studio":
        self.painter.locator("input[type=file]").set_input_files(file)
        self.wait_ready(Image.open(file).size)
        return self

    def wait_ready(self, size: tuple[int, int]) -> None:
        self.page.locator(f'#inpaint_image [data-ready="{size[0]}x{size[1]}"]').wait_for()

    def view(self) -> tuple[float, float, float]:
        x, y, scale = map(float, (self.state.get_attribute("data-view") or "").split())
        return x, y, scale

    def at(self, point: Point) -> Point:
        """The client position of a point given in picture pixels."""
        box = self.painter.locator("[data-part=surface]").bounding_box()
        assert box is not None
        x, y, scale = self.view()
        return box["x"] + x + point[0] * scale, box["y"] + y + point[1] * scale

    def stroke(self, *points: Point, button: str = "left") -> "Studio":
        self.page.mouse.move(*self.at(points[0]))
        self.page.mouse.down(button=button)  # type: ignore[arg-type]
        for point in points[1:]:
            self.page.mouse.move(*self.at(point), steps=4)
        self.page.mouse.up(button=button)  # type: ignore[arg-type]
        return self

    def press(self, *keys: str) -> "Studio":
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def brush_size(self) -> int:
        return int((self.painter.locator("[data-part=size-text]").text_content() or "").split()[0])

    def generate(self) -> PaintedImage | None:
        """Clicks Generate and returns what its handler got."""
        count = len(self.served.received)
        self.page.get_by_role("button", name="Generate").click()
        return self.wait_received(count + 1)

    def wait_received(self, count: int) -> PaintedImage | None:
        expect(self.page.get_by_label("Count")).to_have_value(str(count))
        return self.served.received[count - 1]

    def mask(self) -> Mask:
        painted = self.generate()
        assert painted is not None and painted.mask is not None
        return read_mask(painted.mask)

    def message(self) -> Locator:
        return self.painter.get_by_role("alert")


def read_mask(file: Path) -> Mask:
    return np.array(Image.open(file).convert("L"))


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(7).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def drop_script(event: str, files: list[tuple[str, str, bytes]], target: str) -> str:
    """JavaScript that sends a drop or paste with the given (name, type, content) files to `target`."""
    listed = json.dumps([[name, kind, base64.b64encode(content).decode()] for name, kind, content in files])
    built = (
        "new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})"
        if event == "paste"
        else "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})"
    )
    return f"""() => {{
        const data = new DataTransfer();
        for (const [name, type, text] of {listed})
            data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {{ type }}));
        document.querySelector({json.dumps(target)}).dispatchEvent({built});
    }}"""


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "photo.png"
    picture(256, 192).save(file)
    return file


@pytest.fixture(scope="module")
def served(photo: Path) -> Iterator[PainterPage]:
    with serve(PainterPage(), sample=photo) as page:
        yield page


@pytest.fixture(scope="module")
def visited(watched_warm_page: tuple[Page, list[str]], served: PainterPage) -> None:
    Studio(watched_warm_page[0], served).visit()


@pytest.fixture
def studio(visited: None, warm_page: Page, served: PainterPage, photo: Path) -> Iterator[Studio]:
    """A picture just opened, nothing painted, the brush in hand."""
    served.preset = None
    studio = Studio(warm_page, served).open(photo)
    studio.button("Brush").click()
    yield studio
    warm_page.get_by_role("tab", name="Inpaint").click()
    studio.button("Remove the picture").click()


@pytest.fixture
def phone(open_page: Callable[..., Page], served: PainterPage, photo: Path) -> Studio:
    return Studio(open_page(**PHONE), served).visit().open(photo)


# -- painting -----------------------------------------------------------------------------------------------------


def test_a_stroke_arrives_where_it_was_painted_hard_edged_and_at_full_size(studio: Studio) -> None:
    size = studio.brush_size()
    mask = studio.stroke((60, 100), (180, 100)).mask()
    assert mask.shape == (192, 256)
    assert set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - 99.5) < 1 and abs(rows.max() - rows.min() + 1 - size) <= 1
    assert abs(columns.min() - (60 - size / 2)) <= 1 and abs(columns.max() + 1 - (180 + size / 2)) <= 1


def test_a_stroke_lands_under_the_pointer_when_zoomed_and_panned(studio: Studio) -> None:
    studio.stroke((128, 96)).press("Control+z")
    studio.page.mouse.move(*studio.at((200, 40)))
    studio.page.mouse.wheel(0, -800)
    studio.page.keyboard.down(" ")
    studio.stroke((200, 40), (190, 60))
    studio.page.keyboard.up(" ")
    assert studio.view()[2] > 5
    rows, columns = np.nonzero(studio.stroke((195, 50)).mask())
    assert abs(columns.mean() - 194.5) < 1 and abs(rows.mean() - 49.5) < 1


def test_the_eraser_and_the_right_button_take_away(studio: Studio) -> None:
    studio.stroke((40, 96), (216, 96))
    studio.press("e").stroke((80, 96))
    studio.press("b").stroke((170, 96), button="right")
    mask = studio.mask()
    assert mask[96, 80] == 0 and mask[96, 170] == 0
    assert mask[96, 45] == 255 and mask[96, 125] == 255


def test_undo_and_redo_by_key_and_by_button(studio: Studio) -> None:
    studio.stroke((50, 50)).stroke((150, 150))
    both = studio.mask()
    studio.press("Control+z")
    one = studio.mask()
    assert one[50, 50] == 255 and one[150, 150] == 0
    studio.button("Redo").click()
    assert np.array_equal(studio.mask(), both)
    studio.button("Undo").click()
    studio.button("Undo").click()
    assert studio.generate() == PaintedImage(image=studio.served.received[-1].image, mask=None)  # type: ignore[union-attr]
    expect(studio.button("Undo")).to_have_attribute("aria-disabled", "true")
    studio.painter.locator("[data-part=surface]").focus()
    studio.press("Control+Shift+z", "Control+Shift+z")
    assert np.array_equal(studio.mask(), both)


def test_invert_clear_and_mask_everything(studio: Studio) -> None:
    mask = studio.stroke((50, 50), (100, 90)).mask()
    studio.button("Invert the mask").click()
    assert np.array_equal(studio.mask(), 255 - mask)
    studio.button("Mask options").click()
    studio.button("Mask everything").click()
    assert studio.mask().min() == 255
    studio.button("Clear the mask").click()
    cleared = studio.generate()
    assert cleared is not None and cleared.mask is None
    studio.button("Undo").click()
    assert studio.mask().min() == 255


def test_a_rectangle_covers_exactly_its_pixels(studio: Studio) -> None:
    studio.press("r")
    studio.button("Rectangle").click()
    mask = studio.stroke((30, 40), (130, 140)).mask()
    rows, columns = np.nonzero(mask)
    assert (rows.min(), columns.min()) == pytest.approx((40, 30), abs=1)
    assert (rows.max(), columns.max()) == pytest.approx((139, 129), abs=1)
    assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].min() == 255


def test_a_lasso_fills_what_it_surrounds(studio: Studio) -> None:
    studio.button("Lasso").click()
    mask = studio.stroke((40, 40), (200, 40), (120, 150)).mask()
    assert mask[60, 120] == 255 and mask[120, 120] == 255
    assert mask[120, 50] == 0 and mask[120, 190] == 0 and mask[30, 120] == 0
    assert mask.astype(bool).sum() == pytest.approx(160 * 110 / 2, rel=0.03)


def test_fill_stops_at_what_is_painted(studio: Studio) -> None:
    studio.stroke((60, 60), (180, 60), (180, 140), (60, 140), (60, 60))
    studio.press("g").stroke((120, 100))
    mask = studio.mask()
    assert mask[100, 120] == 255 and mask[75, 75] == 255
    assert mask[20, 20] == 0 and mask[180, 240] == 0


def test_shift_click_draws_a_straight_line_from_the_last_stroke(studio: Studio) -> None:
    studio.stroke((40, 40))
    studio.page.keyboard.down("Shift")
    studio.stroke((200, 150))
    studio.page.keyboard.up("Shift")
    assert studio.mask()[95, 120] == 255


def test_the_brush_size_follows_slider_keys_and_shift_wheel(studio: Studio) -> None:
    studio.stroke((128, 96))
    start = studio.brush_size()
    studio.press("]", "]", "]")
    larger = studio.brush_size()
    studio.page.keyboard.down("Shift")
    studio.page.mouse.wheel(0, 100)
    studio.page.keyboard.up("Shift")
    smaller = studio.brush_size()
    assert start < smaller < larger
    studio.painter.get_by_label("Brush size").focus()
    studio.press("End")
    assert studio.brush_size() == 128
    mask = studio.stroke((128, 96)).mask()
    assert np.count_nonzero(mask.any(axis=0)) == pytest.approx(128, abs=1)


def test_escape_takes_back_the_stroke_that_is_going_on(studio: Studio) -> None:
    studio.page.mouse.move(*studio.at((60, 60)))
    studio.page.mouse.down()
    studio.page.mouse.move(*studio.at((120, 60)), steps=3)
    studio.press("Escape")
    studio.page.mouse.up()
    painted = studio.generate()
    assert painted is not None and painted.mask is None


def test_painting_goes_on_in_fullscreen(studio: Studio) -> None:
    studio.stroke((50, 50)).press("f")
    expect(studio.button("Fullscreen")).to_have_attribute("aria-pressed", "true")
    studio.page.wait_for_function("document.querySelector('#inpaint_image .stage').clientHeight > 600")
    studio.stroke((200, 150))
    studio.button("Fullscreen").click()
    expect(studio.button("Fullscreen")).to_have_attribute("aria-pressed", "false")
    mask = studio.mask()
    assert mask[50, 50] == 255 and mask[150, 200] == 255


def test_the_wheel_scrolls_the_page_until_the_canvas_is_clicked(studio: Studio) -> None:
    page = studio.page
    page.mouse.move(*studio.at((128, 96)))
    scale = studio.view()[2]
    page.mouse.wheel(0, 120)
    page.wait_for_function("scrollY > 0")
    assert studio.view()[2] == scale
    page.mouse.wheel(0, -400)
    page.wait_for_function("scrollY === 0")
    page.mouse.click(*studio.at((128, 96)))
    page.mouse.wheel(0, -120)
    page.wait_for_function(f"!document.querySelector('#inpaint_image [data-view]').dataset.view.endsWith(' {scale}')")
    assert studio.view()[2] > scale
    assert page.evaluate("scrollY") == 0


# -- touch --------------------------------------------------------------------------------------------------------


def test_a_finger_paints_on_a_phone_and_nothing_is_wider_than_the_screen(phone: Studio) -> None:
    phone.page.touchscreen.tap(*phone.at((128, 96)))
    assert phone.mask()[96, 128] == 255
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390


def test_two_fingers_zoom_and_leave_no_paint(phone: Studio) -> None:
    x, y = phone.at((128, 96))
    scale = phone.view()[2]
    session = phone.page.context.new_cdp_session(phone.page)

    def touch(kind: str, *points: Point) -> None:
        listed = [{"x": px, "y": py, "id": i} for i, (px, py) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": listed})

    touch("touchStart", (x - 20, y))
    touch("touchMove", (x - 22, y))
    touch("touchStart", (x - 22, y), (x + 20, y))
    for spread in (40, 60, 80):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    painted = phone.generate()
    assert painted is not None and painted.mask is None
    assert phone.view()[2] > 2 * scale
    phone.page.touchscreen.tap(*phone.at((128, 96)))
    assert phone.mask()[96, 128] == 255


# -- files --------------------------------------------------------------------------------------------------------


def test_a_saved_mask_can_be_loaded_again(studio: Studio, tmp_path: Path) -> None:
    mask = studio.stroke((50, 50), (200, 120)).mask()
    studio.button("Mask options").click()
    with studio.page.expect_download() as download:
        studio.button("Save the mask").click()
    download.value.save_as(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)
    studio.button("Clear the mask").click()
    load_mask(studio, tmp_path / "mask.png")
    assert np.array_equal(studio.mask(), mask)


def load_mask(studio: Studio, file: Path) -> None:
    if not studio.button("Load a mask…").is_visible():
        studio.button("Mask options").click()
    with studio.page.expect_file_chooser() as chooser:
        studio.button("Load a mask…").click()
    chooser.value.set_files(file)
    expect(studio.button("Undo")).to_have_attribute("aria-disabled", "false")


def test_a_mask_of_another_size_is_stretched_and_says_so(studio: Studio, tmp_path: Path) -> None:
    painted = np.zeros((96, 128, 4), np.uint8)
    painted[24:72, 32:96, 3] = 255
    Image.fromarray(painted, "RGBA").save(tmp_path / "alpha.png")
    load_mask(studio, tmp_path / "alpha.png")
    expect(studio.message()).to_contain_text("stretched to 256 × 192")
    expected = np.zeros((192, 256), np.uint8)
    expected[48:144, 64:192] = 255
    assert np.array_equal(studio.mask(), expected)


def test_a_dropped_picture_and_a_pasted_one_replace_what_is_there(studio: Studio, tmp_path: Path) -> None:
    page, stage = studio.page, "#inpaint_image .stage"
    for event, size in (("drop", (96, 64)), ("paste", (64, 96))):
        studio.stroke((20, 20))
        picture(*size).save(tmp_path / "new.png")
        content = (tmp_path / "new.png").read_bytes()
        page.evaluate(drop_script(event, [("new.png", "image/png", content)], stage))
        studio.wait_ready(size)
        painted = studio.generate()
        assert painted is not None and painted.image is not None and painted.mask is None
        assert painted.image.read_bytes() == content


def test_a_file_that_is_no_picture_is_refused_and_nothing_is_lost(studio: Studio, tmp_path: Path) -> None:
    mask = studio.stroke((60, 60), (180, 120)).mask()
    page = studio.page
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    for name, kind, content in (
        ("notes.txt", "text/plain", b"not a picture, however long the text is"),
        ("broken.png", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(64)),
        ("drawing.svg", "image/svg+xml", drawing),
    ):
        page.evaluate(drop_script("drop", [(name, kind, content)], "#inpaint_image .stage"))
        expect(studio.message()).to_contain_text(f"“{name}” is not a picture")
        studio.button("Dismiss the message").click()
        expect(studio.message()).to_be_hidden()
    assert np.array_equal(studio.mask(), mask)


def test_a_picture_beyond_the_limit_is_refused_from_its_header(studio: Studio) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    script = drop_script("drop", [("bomb.png", "image/png", bomb)], "#inpaint_image .stage")
    studio.page.evaluate(script)
    expect(studio.message()).to_contain_text("20000 × 20000")
    studio.wait_ready((256, 192))


def test_a_photo_taken_sideways_is_painted_upright_and_sent_untouched(studio: Studio, tmp_path: Path) -> None:
    sideways = picture(160, 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = tmp_path / "sideways.jpg"
    sideways.save(file, exif=exif, icc_profile=profile, quality=95)
    studio.painter.locator("input[type=file]").set_input_files(file)
    studio.wait_ready((100, 160))
    studio.stroke((50, 140))
    painted = studio.generate()
    assert painted is not None and painted.image is not None and painted.mask is not None
    assert painted.image.read_bytes() == file.read_bytes()
    mask = read_mask(painted.mask)
    assert mask.shape == (160, 100) and mask[140, 50] == 255


def test_a_4096_picture_keeps_its_full_size(
    studio: Studio, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    file = tmp_path / "large.png"
    Image.new("RGB", (4096, 4096), "#406080").save(file)
    studio.open(file)
    started = time.perf_counter()
    studio.stroke((600, 1000), (3400, 1000), (3400, 3000))
    record_property("stroke_s", time.perf_counter() - started)
    mask = studio.mask()
    record_property("stroke_to_python_s", time.perf_counter() - started)
    assert mask.shape == (4096, 4096)
    assert mask[1000, 2000] == 255 and mask[2900, 3400] == 255 and mask[2000, 2000] == 0
    studio.button("Undo").click()
    painted = studio.generate()
    assert painted is not None and painted.mask is None


def test_the_sample_photo_works_with_one_click(studio: Studio, photo: Path) -> None:
    studio.button("Remove the picture").click()
    studio.button("Use the sample photo").click()
    studio.wait_ready((256, 192))
    studio.stroke((60, 60))
    painted = studio.generate()
    assert painted is not None and painted.image is not None and painted.mask is not None
    assert painted.image.read_bytes() == photo.read_bytes()
    studio.button("Remove the picture").click()
    assert studio.generate() is None
    studio.button("Use the sample photo").click()
    studio.wait_ready((256, 192))


# -- the value ----------------------------------------------------------------------------------------------------


def test_the_last_stroke_is_in_what_generate_sends(studio: Studio) -> None:
    for x in (40, 90, 140, 190):
        studio.stroke((x, 60), (x, 130))
        count = len(studio.served.received)
        studio.page.evaluate("document.querySelector('#generate').click()")
        painted = studio.wait_received(count + 1)
        assert painted is not None and painted.mask is not None
        assert read_mask(painted.mask)[95, x] == 255


def test_a_failed_upload_is_shown_blocks_generate_and_can_be_tried_again(
    studio: Studio, expected_errors: list[str]
) -> None:
    expected_errors.append(r"ERR_FAILED|Failed to fetch|Could not|upload")
    page = studio.page
    count = len(studio.served.received)
    page.route("**/upload*", lambda route: route.abort())
    studio.stroke((60, 60), (150, 60))
    expect(studio.message()).to_contain_text("nothing is lost")
    page.get_by_role("button", name="Generate").click()
    expect(studio.painter.locator("[data-error][data-busy]")).to_be_attached()
    assert len(studio.served.received) == count
    page.unroute("**/upload*")
    studio.button("Try again").click()
    expect(studio.message()).to_be_hidden()
    expect(studio.painter.locator("[data-busy]")).to_have_count(0)
    assert studio.mask()[60, 100] == 255


def test_a_picture_set_from_python_is_lossless_and_clears_the_mask(studio: Studio, tmp_path: Path) -> None:
    file = tmp_path / "result.png"
    noise = np.random.default_rng(1).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    studio.stroke((60, 60)).mask()
    studio.served.preset = PaintedImage(image=file)
    send(studio)
    studio.wait_ready((120, 80))
    painted = studio.generate()
    assert painted is not None and painted.image is not None and painted.mask is None
    assert painted.image.read_bytes() == file.read_bytes()
    expect(studio.button("Undo")).to_have_attribute("aria-disabled", "true")


def send(studio: Studio) -> None:
    studio.page.get_by_role("tab", name="Other").click()
    studio.page.get_by_role("button", name="Send").click()
    studio.page.locator("#img2img_image [data-ready]").wait_for()
    studio.page.get_by_role("tab", name="Inpaint").click()


def test_a_mask_set_from_python_can_be_painted_on(studio: Studio, photo: Path, tmp_path: Path) -> None:
    given = np.zeros((192, 256), np.uint8)
    given[20:60, 20:90] = 255
    Image.fromarray(given).save(tmp_path / "mask.png")
    studio.served.preset = PaintedImage(image=photo, mask=tmp_path / "mask.png")
    send(studio)
    studio.wait_ready((256, 192))
    assert np.array_equal(studio.mask(), given)
    mask = studio.stroke((200, 150)).mask()
    assert mask[150, 200] == 255 and np.array_equal(mask[:60, :90], given[:60, :90])


def test_the_same_picture_sent_again_clears_the_mask(studio: Studio, photo: Path) -> None:
    studio.served.preset = PaintedImage(image=photo)
    send(studio)
    studio.stroke((100, 100)).mask()
    send(studio)
    expect(studio.button("Undo")).to_have_attribute("aria-disabled", "true")
    painted = studio.generate()
    assert painted is not None and painted.mask is None


def test_none_from_python_empties_it(studio: Studio) -> None:
    studio.stroke((60, 60))
    studio.page.get_by_role("tab", name="Other").click()
    studio.page.get_by_role("button", name="Send").click()
    studio.page.get_by_role("tab", name="Inpaint").click()
    expect(studio.button("Use the sample photo")).to_be_visible()
    assert studio.generate() is None
    studio.button("Use the sample photo").click()
    studio.wait_ready((256, 192))


def test_the_mask_outlives_a_look_at_another_tab(studio: Studio) -> None:
    mask = studio.stroke((60, 60), (150, 120)).mask()
    studio.page.get_by_role("tab", name="Other").click()
    studio.page.locator("#img2img_image .painter").wait_for()
    studio.page.get_by_role("tab", name="Inpaint").click()
    assert np.array_equal(studio.mask(), mask)
    studio.stroke((200, 60))
    assert studio.mask()[60, 200] == 255


@pytest.mark.parametrize(
    "forged", [{"path": "/etc/passwd"}, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]
)
def test_a_path_that_was_not_uploaded_is_refused(served: PainterPage, forged: dict[str, object]) -> None:
    count = len(served.received)
    with httpx.Client(base_url=served.url + "gradio_api", timeout=20) as client:
        event = client.post("/call/_receive", json={"data": [{"image": forged, "mask": None}]}).json()["event_id"]
        assert re.search(r"^event: error", client.get(f"/call/_receive/{event}").text, re.MULTILINE)
    assert len(served.received) == count


# -- access -------------------------------------------------------------------------------------------------------


def test_every_control_has_a_name_and_opening_is_announced(studio: Studio) -> None:
    nameless = studio.painter.locator("button, input, [tabindex='0']").evaluate_all(
        "all => all.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []
    expect(studio.painter.locator("[aria-live=polite]")).to_have_text("Picture opened, 256 x 192")


def test_the_help_names_the_keys_and_escape_closes_it(studio: Studio) -> None:
    studio.button("Keys and gestures").click()
    expect(studio.painter.get_by_text("Ctrl+Z, Ctrl+Shift+Z")).to_be_visible()
    studio.press("Escape")
    expect(studio.painter.get_by_text("Ctrl+Z, Ctrl+Shift+Z")).to_be_hidden()


def test_without_painting_it_is_a_picture_input_without_mask_tools(studio: Studio, photo: Path) -> None:
    studio.page.get_by_role("tab", name="Other").click()
    viewer = studio.page.locator("#img2img_image")
    viewer.locator("input[type=file]").set_input_files(photo)
    viewer.locator('[data-ready="256x192"]').wait_for()
    expect(viewer.get_by_role("button", name="Open a picture")).to_be_visible()
    expect(viewer.get_by_role("button", name="Brush")).to_have_count(0)
    viewer.get_by_role("button", name="Zoom in").click()
    expect(viewer.locator("[data-busy]")).to_have_count(0)

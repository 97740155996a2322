"""Between the user's words and the request: nothing is lost on the way, and errors name the control."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import InvalidRequest, UnreadableImage
from webui.generation.parameters import parameters_of
from webui.generation.request import Inpaint
from webui.pipeline.samplers import SAMPLERS
from webui.pipeline.schedules import SCHEDULES
from webui.ui.controls import (
    LABELS,
    MASK_AREAS,
    MASK_MODES,
    MASKED_CONTENTS,
    RESIZE_MODES,
    build_request,
    form_of,
    size_for,
    upright_size,
    usable_values,
)
from webui.ui.mask_painter import PaintedImage

MAX_PIXELS = 1_000_000


def a_form(**changes: Any) -> dict[str, Any]:
    form: dict[str, Any] = {
        "checkpoint": "paper",
        "prompt": "a boat",
        "negative_prompt": "",
        "sampler": "Euler a",
        "schedule": "Automatic",
        "steps": 20,
        "cfg_scale": 7.0,
        "image_cfg_scale": 1.5,
        "width": 64,
        "height": 64,
        "batch_count": 1,
        "batch_size": 1,
        "seed": -1,
        "clip_skip": 1,
        "vae": "Automatic",
        "strength": 0.75,
        "resize_mode": "stretch",
        "image_format": "png",
        "mask_blur": 4,
        "masked_content": "original",
        "mask_area": "whole",
        "mask_padding": 32,
        "mask_mode": "masked",
    }
    return form | changes


forms = st.fixed_dictionaries(
    {
        "checkpoint": st.just("paper"),
        "prompt": st.text(max_size=40),
        "negative_prompt": st.text(max_size=40),
        "sampler": st.sampled_from(list(SAMPLERS)),
        "schedule": st.sampled_from(list(SCHEDULES)),
        "steps": st.integers(1, 150),
        "cfg_scale": st.integers(2, 60).map(lambda half: half / 2),
        "image_cfg_scale": st.integers(0, 60).map(lambda twentieth: twentieth / 20),
        "width": st.integers(8, 512).map(lambda eighth: eighth * 8),
        "height": st.integers(8, 512).map(lambda eighth: eighth * 8),
        "batch_count": st.integers(1, 1000),
        "batch_size": st.integers(1, 16),
        "seed": st.integers(-1, 2**32 - 1),
        "clip_skip": st.integers(1, 12),
        "vae": st.sampled_from(["Automatic", "None", "kl"]),
        "strength": st.integers(0, 100).map(lambda percent: percent / 100),
        "image_format": st.sampled_from(["png", "jpeg", "webp"]),
        "resize_mode": st.sampled_from([value for _, value in RESIZE_MODES]),
        "mask_blur": st.integers(0, 64),
        "masked_content": st.sampled_from(MASKED_CONTENTS),
        "mask_area": st.sampled_from([value for _, value in MASK_AREAS]),
        "mask_padding": st.integers(0, 256),
        "mask_mode": st.sampled_from([value for _, value in MASK_MODES]),
    }
)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> PaintedImage:
    folder = tmp_path_factory.mktemp("painted")
    Image.new("RGB", (64, 48), "#336699").save(folder / "picture.png")
    mask = Image.new("L", (64, 48))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(folder / "mask.png")
    return PaintedImage(image=folder / "picture.png", mask=folder / "mask.png")


@given(form=forms)
def test_every_form_comes_back_from_its_request(painted: PaintedImage, form: dict[str, Any]) -> None:
    request = build_request("inpaint", {**form, "picture": painted}, max_pixels=MAX_PIXELS)
    assert form_of(parameters_of(request).model_dump()) == form


def test_an_inpaint_request_has_picture_and_mask_as_painted(painted: PaintedImage) -> None:
    request = build_request("inpaint", a_form(picture=painted), max_pixels=MAX_PIXELS)
    assert isinstance(request.init, Inpaint)
    assert request.init.image.getpixel((0, 0)) == (0x33, 0x66, 0x99)
    assert request.init.mask.image.getbbox() == (8, 8, 24, 24)


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("checkpoint", None),
        ("width", 513),
        ("height", None),
        ("width", 100_000),
        ("steps", 0),
        ("steps", 2.5),
        ("cfg_scale", float("nan")),
        ("image_cfg_scale", 11),
        ("batch_count", -1),
        ("batch_size", 99),
        ("seed", -2),
        ("seed", 2**32),
        ("clip_skip", 0),
        ("sampler", "none such"),
        ("strength", 1.5),
        ("mask_blur", 65),
        ("mask_padding", 999),
        ("masked_content", "cheese"),
        ("mask_area", "cheese"),
        ("resize_mode", "cheese"),
        ("image_format", "gif"),
    ],
)
def test_a_wrong_value_names_its_control(painted: PaintedImage, control: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_request("inpaint", {**a_form(picture=painted), control: value}, max_pixels=MAX_PIXELS)
    assert caught.value.field == control
    assert "num_" not in caught.value.message
    assert "_px" not in caught.value.message


def test_without_a_picture_the_user_is_asked_for_one() -> None:
    with pytest.raises(InvalidRequest, match="no picture") as caught:
        build_request("img2img", a_form(picture=None), max_pixels=MAX_PIXELS)
    assert caught.value.field == "picture"


def test_nothing_painted_asks_for_a_mask_unless_it_is_inverted(painted: PaintedImage) -> None:
    bare = PaintedImage(image=painted.image, mask=None)
    with pytest.raises(InvalidRequest, match="mask is empty"):
        build_request("inpaint", a_form(picture=bare), max_pixels=MAX_PIXELS)
    assert build_request("inpaint", a_form(picture=bare, mask_mode="not masked"), max_pixels=MAX_PIXELS).init


def test_a_picture_beyond_the_limit_is_refused_unopened(painted: PaintedImage) -> None:
    with pytest.raises(UnreadableImage):
        build_request("img2img", a_form(picture=painted), max_pixels=100)


@given(
    values=st.dictionaries(st.sampled_from([*LABELS, "unknown"]), st.none() | st.booleans() | st.text() | st.floats())
)
def test_what_a_browser_remembers_is_never_trusted(values: dict[str, Any]) -> None:
    kept = usable_values(values)
    assert "unknown" not in kept
    assert all(value is not None and not isinstance(value, bool) for value in kept.values())


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_size_for_any_picture_can_be_run(width: int, height: int) -> None:
    for side in size_for((width, height), (512, 512)):
        assert side % 8 == 0
        assert 64 <= side <= 4096


def test_a_photo_is_brought_to_about_the_native_area_in_its_own_shape() -> None:
    assert size_for((3000, 2000), (512, 512)) == (624, 416)
    assert size_for((512, 512), (512, 512)) == (512, 512)


def test_a_turned_photo_counts_as_it_is_looked_at(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "text.png").write_text("no picture")
    assert upright_size(tmp_path / "turned.jpg") == (20, 30)
    assert upright_size(tmp_path / "text.png") == (0, 0)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.images.geometry import ResizeMode, resize

MODES: list[ResizeMode] = ["stretch", "crop", "fill"]

SIDES = st.integers(1, 60)


def ramp(width: int, height: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.rint(np.dstack([red, green, np.zeros_like(red)])).astype(np.uint8))


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(MODES), st.sampled_from(["RGB", "L"]))
def test_a_picture_of_one_colour_stays_so_in_any_size(
    width: int, height: int, new_width: int, new_height: int, mode: ResizeMode, pixel: str
) -> None:
    image = Image.new(pixel, (width, height), "#c8c8c8")
    resized = resize(image, new_width, new_height, mode)
    assert (resized.mode, resized.size) == (pixel, (new_width, new_height))
    assert np.all(np.asarray(resized) == 200)


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_that_has_the_size_is_given_back_bit_for_bit(mode: ResizeMode, photo: Image.Image) -> None:
    resized = resize(photo, *photo.size, mode)
    assert resized.tobytes() == photo.tobytes()
    assert resized is not photo


def test_stretch_keeps_all_of_the_picture() -> None:
    resized = np.asarray(resize(ramp(100, 100), 200, 50, "stretch"))
    assert np.abs(resized[25, :, 0] - np.linspace(0, 255, 200)).max() <= 3
    assert np.abs(resized[:, 100, 1] - np.linspace(0, 255, 50)).max() <= 3


def test_crop_keeps_the_middle_of_a_wide_picture() -> None:
    resized = np.asarray(resize(ramp(200, 100), 50, 50, "crop"))
    assert np.abs(resized[25, :, 0] - np.linspace(64, 191, 50)).max() <= 3
    assert np.abs(resized[:, 25, 1] - np.linspace(0, 255, 50)).max() <= 4


def test_crop_keeps_the_middle_of_a_high_picture() -> None:
    resized = np.asarray(resize(ramp(100, 200), 50, 50, "crop"))
    assert np.abs(resized[25, :, 0] - np.linspace(0, 255, 50)).max() <= 4
    assert np.abs(resized[:, 25, 1] - np.linspace(64, 191, 50)).max() <= 3


@pytest.mark.parametrize(("width", "height"), [(60, 41), (41, 60), (33, 64)])
def test_fill_shows_all_of_the_picture_and_repeats_its_edges(width: int, height: int) -> None:
    resized = np.asarray(resize(ramp(100, 100), width, height, "fill")).astype(int)
    if width > height:
        resized = resized.swapaxes(0, 1)[..., [1, 0, 2]]
    short, long = min(width, height), max(width, height)
    top = long // 2 - short // 2
    inner = resized[top : top + short]
    assert np.abs(inner[:, short // 2, 1] - np.linspace(0, 255, short)).max() <= 6
    assert np.array_equal(resized[:top], np.repeat(inner[:1], top, axis=0))
    assert np.array_equal(resized[top + short :], np.repeat(inner[-1:], long - top - short, axis=0))


def test_a_mask_goes_where_its_picture_goes() -> None:
    image = Image.new("RGB", (120, 60))
    image.paste((255, 255, 255), (30, 15, 90, 45))
    for mode in MODES:
        for size in ((64, 64), (40, 90), (90, 30)):
            red = np.asarray(resize(image, *size, mode))[..., 0]
            assert np.array_equal(np.asarray(resize(image.convert("L"), *size, mode)), red)


@given(st.integers(1, 5), st.integers(200, 2000), st.sampled_from(MODES))
def test_extreme_aspects_have_no_empty_side(short: int, long: int, mode: ResizeMode) -> None:
    for size in ((short, long), (long, short)):
        assert resize(Image.new("L", size, 9), 16, 16, mode).getextrema() == (9, 9)

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import convolve1d

from webui.images.masks import (
    blur_mask,
    crop_box,
    latent_cover,
    latent_mask,
    load_mask,
    overlay_mask_whole,
    padded_box,
)

Box = tuple[int, int, int, int]


def boxes(width: int, height: int) -> st.SearchStrategy[Box]:
    """Boxes with at least one pixel inside `width` x `height`."""
    sides = st.tuples(st.integers(0, width - 1), st.integers(0, width - 1))
    return st.tuples(sides, st.tuples(st.integers(0, height - 1), st.integers(0, height - 1))).map(
        lambda ends: (min(ends[0]), min(ends[1]), max(ends[0]) + 1, max(ends[1]) + 1)
    )


def masked(size: tuple[int, int], box: Box, value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


def test_a_mask_drawn_as_transparency_is_cut_at_half() -> None:
    alpha = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :])
    image = Image.new("RGBA", (256, 1), (255, 255, 255, 0))
    image.putalpha(alpha)
    assert np.asarray(load_mask(image))[0].tolist() == [0] * 129 + [255] * 127


def test_the_colours_of_a_transparent_mask_do_not_count() -> None:
    image = Image.new("RGBA", (4, 1), (255, 255, 255, 0))
    assert load_mask(image).getextrema() == (0, 0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_an_opaque_mask_is_its_luminance_and_keeps_its_grays(mode: str) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :])
    assert np.asarray(load_mask(ramp.convert(mode)))[0].tolist() == list(range(256))


def gaussian_oracle(mask: np.ndarray, sigma: int) -> np.ndarray:
    """Straight from the definition: kernel of 2 * int(2.5 sigma + 0.5) + 1 pixels, mirrored at the edges."""
    reach = int(2.5 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2.0 * sigma**2))
    kernel /= kernel.sum()
    across = convolve1d(mask.astype(np.float64), kernel, axis=1, mode="mirror")
    return convolve1d(across, kernel, axis=0, mode="mirror")


@st.composite
def masks_to_blur(draw: st.DrawFn) -> Image.Image:
    size = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    return masked(size, draw(boxes(*size)), draw(st.integers(1, 255)))


@given(masks_to_blur(), st.integers(1, 12))
def test_blur_is_a_gaussian_cut_off_at_two_and_a_half_sigma(mask: Image.Image, blur_px: int) -> None:
    difference = np.asarray(blur_mask(mask, blur_px)) - gaussian_oracle(np.asarray(mask), blur_px)
    # OpenCV rounds the kernel to 8 bits, which adds up to this much on wide ones.
    assert np.abs(difference).max() <= 8


@given(masks_to_blur(), st.integers(1, 64))
def test_blur_is_bit_for_bit_that_of_the_whole_mask_in_two_passes(mask: Image.Image, blur_px: int) -> None:
    kernel_px = 2 * int(2.5 * blur_px + 0.5) + 1
    across = cv2.GaussianBlur(np.asarray(mask), (kernel_px, 1), blur_px)
    expected = cv2.GaussianBlur(across, (1, kernel_px), blur_px)
    assert np.array_equal(np.asarray(blur_mask(mask, blur_px)), expected)


@given(st.integers(1, 16))
def test_blur_reaches_no_farther_than_two_and_a_half_sigma(blur_px: int) -> None:
    reach = int(2.5 * blur_px + 0.5)
    box = (60, 50, 65, 58)
    blurred = blur_mask(masked((130, 120), box), blur_px)
    left, top, right, bottom = blurred.getbbox()
    assert left >= 60 - reach
    assert top >= 50 - reach
    assert right <= 65 + reach
    assert bottom <= 58 + reach


def test_blur_of_nothing_and_blur_by_nothing_change_nothing() -> None:
    mask = masked((9, 9), (2, 2, 5, 5))
    assert blur_mask(mask, 0).tobytes() == mask.tobytes()
    assert blur_mask(Image.new("L", (9, 9)), 30).getbbox() is None
    assert blur_mask(Image.new("L", (1, 1), 200), 64).getpixel((0, 0)) == 200


def test_the_whole_picture_overlay_is_full_from_half_mask_on() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :])
    assert np.asarray(overlay_mask_whole(ramp))[0].tolist() == [min(2 * value, 255) for value in range(256)]


def test_nothing_masked_has_no_crop_box() -> None:
    assert crop_box(Image.new("L", (64, 64)), 32, 512, 512, (64, 64)) is None


@pytest.mark.parametrize(
    ("mask_box", "padding_px", "size", "expected"),
    [
        ((400, 300, 500, 400), 0, (512, 512), (400, 300, 500, 400)),
        ((400, 300, 500, 400), 32, (512, 512), (368, 268, 532, 432)),
        # Grown down and up about the middle, to 200 x 200.
        ((400, 300, 600, 400), 0, (512, 512), (400, 250, 600, 450)),
        # Grown sideways to 2:1, the odd pixel to the right.
        ((400, 300, 500, 401), 0, (1024, 512), (349, 300, 551, 401)),
        # Moved inside at each border.
        ((0, 0, 100, 10), 0, (512, 512), (0, 0, 100, 100)),
        ((900, 590, 1000, 600), 0, (512, 512), (900, 500, 1000, 600)),
        ((0, 0, 10, 100), 20, (512, 512), (0, 0, 120, 120)),
        # The picture, 1000 x 600, is not high enough for a square.
        ((100, 100, 900, 200), 0, (512, 512), (100, 0, 900, 600)),
    ],
)
def test_crop_boxes_of_known_masks(mask_box: Box, padding_px: int, size: tuple[int, int], expected: Box) -> None:
    mask = masked((1000, 600), mask_box)
    assert crop_box(mask, padding_px, *size, mask.size) == expected


@given(st.data())
def test_a_crop_box_lies_inside_holds_the_mask_and_has_the_aspect_that_fits(data: st.DataObject) -> None:
    side = st.integers(1, 90)
    image_width, image_height, width, height = (data.draw(side) for _ in range(4))
    padding_px = data.draw(st.integers(0, 60))
    mask = masked((image_width, image_height), data.draw(boxes(image_width, image_height)))

    left, top, right, bottom = crop_box(mask, padding_px, width, height, mask.size)

    inner = padded_box(mask.getbbox(), padding_px, mask.size)
    assert 0 <= left <= inner[0] < inner[2] <= right <= image_width
    assert 0 <= top <= inner[1] < inner[3] <= bottom <= image_height
    box_width, box_height = right - left, bottom - top
    ideal_width, ideal_height = box_height * width // height, box_width * height // width
    fits = box_width == ideal_width or box_height == ideal_height
    too_wide = box_width > ideal_width and box_height == image_height
    too_high = box_height > ideal_height and box_width == image_width
    assert fits or too_wide or too_high
    # It is not larger than it must be: one side is still that of the padded mask.
    assert box_width == inner[2] - inner[0] or box_height == inner[3] - inner[1]


@given(boxes(40, 30), st.integers(0, 50))
def test_padding_never_leaves_the_picture(box: Box, padding_px: int) -> None:
    left, top, right, bottom = padded_box(box, padding_px, (40, 30))
    assert (left, top) == (max(0, box[0] - padding_px), max(0, box[1] - padding_px))
    assert (right, bottom) == (min(40, box[2] + padding_px), min(30, box[3] + padding_px))


@given(st.integers(1, 16), st.integers(1, 16), st.data())
def test_the_latent_mask_is_the_small_mask_rounded(width: int, height: int, data: st.DataObject) -> None:
    size = (8 * width, 8 * height)
    mask = masked(size, data.draw(boxes(*size)), data.draw(st.integers(1, 255)))
    rgb = np.asarray(mask.convert("RGB").resize((width, height)), dtype=np.float64) / 255
    cells = latent_mask(mask, width, height)
    assert cells.dtype == np.float32
    assert cells.shape == (height, width)
    assert np.array_equal(cells, np.around(rgb[..., 0]))


def test_the_latent_mask_is_one_where_something_new_is_painted() -> None:
    cells = latent_mask(masked((64, 32), (32, 0, 64, 32)), 8, 4)
    assert cells[:, :4].max() == 0.0
    assert cells[:, 4:].min() == 1.0


def test_cover_of_latent_cells_is_their_mean_and_soft_where_the_mask_is() -> None:
    mask = Image.new("L", (32, 16), 0)
    mask.paste(255, (0, 0, 12, 16))
    assert latent_cover(mask, 4, 2).tolist() == [[1.0, np.float32(128) / np.float32(255), 0.0, 0.0]] * 2

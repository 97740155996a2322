import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from webui.images.fill import fill_masked


def hole(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def fill_oracle(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blurs of what is kept laid over each other, at full size and in double precision."""
    keep = 1 - mask / 255.0
    kept = np.dstack([pixels * keep[..., None], keep])
    canvas = np.zeros_like(kept)
    for sigma, repeats in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        layer = gaussian_filter(kept, (sigma, sigma, 0), mode="nearest") if sigma else kept
        for _ in range(repeats):
            canvas = layer + canvas * (1 - layer[..., 3:])
    return canvas[..., :3] / canvas[..., 3:]


@pytest.mark.parametrize("box", [(30, 20, 60, 45), (0, 0, 50, 64), (90, 0, 96, 10)])
@pytest.mark.parametrize("softness", [0, 4])
def test_fill_is_the_blurs_of_the_surroundings_laid_over_each_other(
    box: tuple[int, int, int, int], softness: int, photo: Image.Image
) -> None:
    mask = np.asarray(hole(photo.size, box))
    mask = np.rint(gaussian_filter(mask.astype(float), softness)).astype(np.uint8) if softness else mask
    difference = np.abs(np.asarray(fill_masked(photo, Image.fromarray(mask))) - fill_oracle(np.asarray(photo), mask))
    assert difference.mean() < 0.5
    assert difference.max() < 4


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_pixels_outside_the_mask_are_unchanged(width: int, height: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = random.choice(np.array([0, 0, 1, 128, 254, 255], dtype=np.uint8), (height, width))
    filled = np.asarray(fill_masked(Image.fromarray(pixels), Image.fromarray(mask)))
    assert filled.shape == pixels.shape
    assert np.array_equal(filled[mask == 0], pixels[mask == 0])


def test_what_was_under_the_mask_leaves_no_trace(photo: Image.Image) -> None:
    box = (20, 10, 70, 50)
    mask = hole(photo.size, box)
    painted_over = photo.copy()
    painted_over.paste((255, 0, 0), box)
    assert fill_masked(painted_over, mask).tobytes() == fill_masked(photo, mask).tobytes()


def test_a_hole_in_one_colour_is_filled_with_that_colour_however_large() -> None:
    image = Image.new("RGB", (2400, 40), (200, 30, 90))
    image.paste((0, 255, 0), (10, 0, 2390, 40))
    filled = np.asarray(fill_masked(image, hole(image.size, (10, 0, 2390, 40)))).astype(int)
    assert np.abs(filled - (200, 30, 90)).max() <= 1


def test_each_side_of_a_hole_takes_the_colour_next_to_it() -> None:
    image = Image.new("RGB", (200, 60), (255, 0, 0))
    image.paste((0, 0, 255), (100, 0, 200, 60))
    filled = fill_masked(image, hole(image.size, (50, 0, 150, 60)))
    red_left, _, blue_left = filled.getpixel((52, 30))
    red_right, _, blue_right = filled.getpixel((147, 30))
    assert red_left > 200
    assert blue_left < 50
    assert blue_right > 200
    assert red_right < 50


def test_a_picture_that_is_masked_as_a_whole_becomes_its_average_colour() -> None:
    image = Image.new("RGB", (64, 64), (10, 20, 30))
    image.paste((30, 40, 50), (32, 0, 64, 64))
    filled = np.asarray(fill_masked(image, Image.new("L", image.size, 255)))
    assert np.array_equal(filled, np.full_like(filled, (20, 30, 40)))


def test_without_a_mask_nothing_is_filled(photo: Image.Image) -> None:
    assert fill_masked(photo, Image.new("L", photo.size)).tobytes() == photo.tobytes()

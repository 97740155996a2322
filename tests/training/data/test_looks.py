import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from skimage.measure import blur_effect

from tests.training.data.pictures import picture
from webui.training.data.likeness import NEARLY_SAME, groups_of_nearly_same, likeness
from webui.training.data.looks import edges_lost, looks_of
from webui.training.data.marks import common_mark


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), sigma=st.floats(0.0, 4.0), size=st.tuples(st.integers(20, 120), st.integers(20, 120)))
def test_what_a_blur_takes_away_is_measured_as_by_scikit_image(seed: int, sigma: float, size: tuple[int, int]) -> None:
    gray = np.asarray(picture(seed, size).convert("L").filter(ImageFilter.GaussianBlur(sigma)), dtype=np.float32)
    inner = (slice(2, -1), slice(2, -1))
    left = [
        1.0 - gone[inner].sum() / edges[inner].sum() for edges, gone in (edges_lost(gray, h) for h in (True, False))
    ]
    assert max(left) == pytest.approx(blur_effect(gray), abs=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_more_blur_is_measured_as_more(seed: int) -> None:
    image = picture(seed, (400, 400))
    levels = [looks_of(image.filter(ImageFilter.GaussianBlur(sigma))).blur for sigma in (0, 1, 2, 4, 8)]
    assert levels == sorted(levels)


def test_a_sharp_thing_before_a_soft_background_is_sharp() -> None:
    image = picture(1, (400, 400)).filter(ImageFilter.GaussianBlur(8))
    soft = looks_of(image).blur
    blocks = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    image.paste(blocks.resize((160, 160), Image.Resampling.NEAREST), (120, 120))
    assert looks_of(image).blur < 0.5 < soft


def test_pictures_of_one_colour_and_of_one_pixel_are_measured_too() -> None:
    assert looks_of(Image.new("RGB", (64, 64), "red")).blur == 1.0
    assert looks_of(Image.new("RGB", (1, 1))).inside is None
    assert looks_of(Image.new("RGB", (3000, 2))).inside is None


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("bars", [(0, 20, 0, 20), (16, 0, 16, 0), (10, 12, 14, 16), (0, 30, 0, 0)])
def test_bars_are_found_and_nothing_of_them_stays_inside(bars: tuple[int, ...], factor: int) -> None:
    left, top, right, bottom = (edge * factor for edge in bars)
    photo = picture(3, (256 * factor, 192 * factor))
    image = Image.new("RGB", (photo.width + left + right, photo.height + top + bottom), (8, 8, 8))
    image.paste(photo, (left, top))
    inside = looks_of(image).inside
    assert inside is not None
    exact = (left, top, left + photo.width, top + photo.height)
    reach = 3 * factor
    assert all(abs(edge - found) <= reach for edge, found in zip(exact, inside, strict=True))
    assert inside[0] >= left and inside[1] >= top and inside[2] <= exact[2] and inside[3] <= exact[3]


@pytest.mark.parametrize("seed", range(6))
def test_a_photo_without_bars_has_none(seed: int) -> None:
    assert looks_of(picture(seed, (400, 300))).inside is None


def test_a_plain_backdrop_is_no_bar() -> None:
    image = Image.new("RGB", (300, 300), "white")
    outline = Image.new("L", (160, 260))
    ImageDraw.Draw(outline).ellipse((0, 0, 159, 400), fill=255)
    image.paste(picture(1, (160, 260)), (70, 60), outline)
    assert looks_of(image).inside is None


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_found_again(seed: int) -> None:
    image = picture(seed)
    looks = looks_of(image)
    copies = {
        "smaller": image.resize((100, 75)),
        "mirrored": ImageOps.mirror(image),
        "brighter": ImageEnhance.Brightness(image).enhance(1.2),
        "flatter": ImageEnhance.Contrast(image).enhance(0.6),
        "blurred": image.filter(ImageFilter.GaussianBlur(2)),
        "cut": image.crop((9, 7, 247, 185)),
        "mirrored and cut": ImageOps.mirror(image).crop((9, 7, 247, 185)),
    }
    found = {name: likeness(looks, looks_of(copy)) for name, copy in copies.items()}
    assert all(value >= NEARLY_SAME for value in found.values()), found


def test_other_pictures_are_told_apart() -> None:
    looks = [looks_of(picture(seed)) for seed in range(20)]
    assert groups_of_nearly_same(looks, check=lambda: None) == []
    assert max(likeness(looks[0], other) for other in looks[1:]) < 0.8


def test_pictures_of_one_colour_resemble_nothing() -> None:
    plain = looks_of(Image.new("RGB", (64, 64), "blue"))
    assert groups_of_nearly_same([plain, plain], check=lambda: None) == []


def test_groups_grow_through_what_is_between() -> None:
    image = picture(7)
    looks = [looks_of(each) for each in (image, picture(8), ImageOps.mirror(image), image.resize((99, 70)))]
    assert groups_of_nearly_same(looks, check=lambda: None) == [(0, 2, 3)]


def test_the_search_can_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        groups_of_nearly_same([looks_of(picture(seed)) for seed in range(2)], check=stop)


def marked(seed: int) -> Image.Image:
    image = picture(seed, (320, 240))
    image.paste("white", (230, 205, 312, 232))
    for x in range(236, 306, 10):
        image.paste("black", (x, 210, x + 5, 227))
    return image


def test_a_mark_in_the_same_corner_of_all_photos_is_found() -> None:
    mark = common_mark([looks_of(marked(seed)) for seed in range(8)])
    assert mark is not None
    expected = (230 / 320, 205 / 240, 312 / 320, 232 / 240)
    assert all(abs(a - b) < 0.04 for a, b in zip(mark, expected, strict=True)), mark


def test_photos_without_a_mark_have_none() -> None:
    for start in range(0, 36, 12):
        assert common_mark([looks_of(picture(seed, (320, 240))) for seed in range(start, start + 12)]) is None


def test_a_mark_takes_more_than_a_few_photos_to_tell() -> None:
    assert common_mark([looks_of(marked(seed)) for seed in range(5)]) is None


def test_what_stands_in_the_middle_of_all_photos_is_no_mark() -> None:
    looks = []
    for seed in range(8):
        image = picture(seed, (320, 240))
        image.paste("white", (100, 80, 220, 160))
        looks.append(looks_of(image))
    assert common_mark(looks) is None

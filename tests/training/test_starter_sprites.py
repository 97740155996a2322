import numpy as np
import pytest
from PIL import Image

from webui.training.starter.sprites import BUILD_WIDTHS, TINTS, cut_out, tint_hair, widen
from webui.training.starter.variants import BUILDS, SpriteKey, hair_words, sprite_keys


def _figure() -> Image.Image:
    """A red bar, 20 px wide and 100 px high, in a 40 px wide sprite."""
    pixels = np.zeros((100, 40, 4), np.uint8)
    pixels[:, 10:30] = (200, 30, 30, 255)
    return Image.fromarray(pixels)


def _row_widths(sprite: Image.Image) -> np.ndarray:
    return (np.asarray(sprite)[..., 3] / 255).sum(axis=1)


def test_a_heavy_figure_is_widest_at_the_belly_and_a_slim_one_narrowest() -> None:
    belly, head = slice(40, 55), slice(0, 12)
    heavy, slim = (_row_widths(widen(_figure(), BUILD_WIDTHS[build])) for build in ("heavy", "slim"))
    assert heavy[belly].min() > 36
    assert slim[belly].max() < 15
    assert 20 <= heavy[head].mean() < 24
    assert 17 < slim[head].mean() <= 20


def test_widening_keeps_height_and_colour() -> None:
    wide = np.asarray(widen(_figure(), BUILD_WIDTHS["heavy"]))
    assert wide.shape[0] == 100
    assert np.abs(wide[wide[..., 3] == 255][:, :3].astype(int) - (200, 30, 30)).max() <= 1


def test_a_factor_of_one_everywhere_changes_nothing() -> None:
    same = np.asarray(widen(_figure(), ((0.0, 1.0), (1.0, 1.0))))
    assert np.array_equal(same, np.asarray(_figure()))


@pytest.mark.parametrize("hair", TINTS)
def test_a_tint_colours_black_hair_and_leaves_skin_alone(hair: str) -> None:
    pixels = np.zeros((2, 1, 4), np.uint8)
    pixels[0], pixels[1] = (30, 28, 30, 255), (250, 215, 190, 255)
    tinted = np.asarray(tint_hair(Image.fromarray(pixels), TINTS[hair])).astype(int)
    assert np.abs(tinted[0, 0, :3] - TINTS[hair]).max() < 60
    assert np.array_equal(tinted[1], pixels[1])
    assert (tinted[..., 3] == 255).all()


def test_cutting_out_leaves_the_visible_box() -> None:
    assert cut_out(_figure()).size == (20, 100)


def test_every_build_is_made_from_the_plain_picture() -> None:
    keys = [key for key in sprite_keys() if key.build]
    assert {key.build for key in keys} == set(BUILDS) == set(BUILD_WIDTHS)
    for key in keys:
        plain = SpriteKey(concept=key.concept, style=key.style, tone=key.tone)
        assert key.codepoint == plain.codepoint
        assert plain in sprite_keys()


@pytest.mark.parametrize(
    ("concept", "tone", "hair", "words"),
    [
        ("woman", "light", "", "black hair"),
        ("woman", "medium", "", "brown hair"),
        ("woman", "dark", "red hair", "red hair"),
        ("chef", "light", "", ""),
    ],
)
def test_hair_is_named_where_it_shows(concept: str, tone: str, hair: str, words: str) -> None:
    assert hair_words(SpriteKey(concept=concept, style="3d", tone=tone, hair=hair)) == words

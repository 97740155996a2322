import numpy as np
import pytest

from tests.training.starter_helpers import synthetic_sprites
from webui.training.starter.captions import caption
from webui.training.starter.compose import (
    COLOUR_JITTER,
    Gradient,
    Layout,
    Pixels,
    PlacedSprite,
    Plain,
    all_sprite_keys,
    concept_of,
    render,
    sample_layout,
)
from webui.training.starter.evaluate import Recogniser, border_colour, evaluation_prompts
from webui.training.starter.vocabulary import COLOURS, CONCEPTS, PLACES

KEYS = all_sprite_keys()
CENTRED = PlacedSprite("dog", (0.5, 0.5), 0.7)


def _layout(seed: int) -> Layout:
    return sample_layout(np.random.default_rng(seed), KEYS)


def _caption(layout: Layout, seed: int) -> str:
    return caption(layout, np.random.default_rng(seed))


def _picture(layout: Layout, width: int = 128, height: int = 128) -> Pixels:
    return render(layout, synthetic_sprites(), width, height)


def test_the_same_seed_gives_the_same_picture_and_words() -> None:
    for seed in range(20):
        assert _layout(seed) == _layout(seed)
        assert np.array_equal(_picture(_layout(seed)), _picture(_layout(seed)))
        assert _caption(_layout(seed), seed) == _caption(_layout(seed), seed)


def test_another_seed_gives_another_picture() -> None:
    assert len({_layout(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("colour", COLOURS)
def test_background_pixels_have_the_colour_the_caption_names(colour: str) -> None:
    layout = Layout((CENTRED,), Plain(colour, COLOURS[colour]))
    picture = _picture(layout)
    assert tuple(picture[0, 0]) == COLOURS[colour]
    assert border_colour(picture) == colour
    assert f"{colour} background" in _caption(layout, 3).replace("grey", "gray")


def test_a_sampled_plain_background_stays_within_its_jitter() -> None:
    plain = [layout for layout in map(_layout, range(200)) if isinstance(layout.background, Plain)]
    assert len(plain) > 100
    for layout in plain:
        assert isinstance(layout.background, Plain)
        difference = np.array(layout.background.rgb) - np.array(COLOURS[layout.background.colour])
        assert np.abs(difference).max() <= COLOUR_JITTER


def test_a_gradient_runs_from_the_first_named_colour_to_the_second() -> None:
    gradient = Gradient(Plain("red", COLOURS["red"]), Plain("blue", COLOURS["blue"]))
    layout = Layout((CENTRED,), gradient)
    picture = _picture(layout)
    assert tuple(picture[0, 0]) == COLOURS["red"]
    assert tuple(picture[-1, -1]) == COLOURS["blue"]
    assert "red to blue gradient background" in _caption(layout, 0)


@pytest.mark.parametrize("place", PLACES)
def test_a_placed_object_is_where_the_caption_says(place: str) -> None:
    layout = Layout((PlacedSprite("dog", PLACES[place], 0.5, place),), Plain("white", COLOURS["white"]))
    differs = (_picture(layout) != COLOURS["white"]).any(axis=-1)
    rows, columns = np.nonzero(differs)
    centre = {"on the left": columns.mean() < 56, "on the right": columns.mean() > 72}
    centre |= {"at the top": rows.mean() < 56, "at the bottom": rows.mean() > 72}
    assert centre[place]
    assert place in _caption(layout, 5)


def test_captions_name_every_object_of_the_layout() -> None:
    words = {concept.name: concept.words for concept in CONCEPTS}
    for seed in range(200):
        layout = _layout(seed)
        text = _caption(layout, seed)
        if layout.blur_radius:
            continue
        for placed in layout.objects:
            assert any(word in text for word in words[concept_of(placed.sprite)]), (text, placed)


def test_only_degraded_pictures_are_called_blurry() -> None:
    for seed in range(300):
        layout = _layout(seed)
        assert ("blurry" in _caption(layout, seed)) == bool(layout.blur_radius)


def test_a_picture_has_the_asked_size() -> None:
    for width, height in ((160, 112), (112, 160), (64, 64)):
        assert _picture(_layout(1), width, height).shape == (height, width, 3)


def test_the_recogniser_names_clean_pictures() -> None:
    recogniser = Recogniser(synthetic_sprites())
    for name in ("dog", "cat", "man", "robot"):
        key = next(key for key in KEYS if concept_of(key) == name)
        layout = Layout((PlacedSprite(key, (0.5, 0.5), 0.74),), Plain("white", COLOURS["white"]))
        assert recogniser.recognise(_picture(layout)[None]) == [name]


def test_the_hundred_prompts_are_fixed_and_cover_every_concept_and_colour() -> None:
    rows = evaluation_prompts()
    assert rows == evaluation_prompts()
    assert len(rows) == 100
    assert {name for _, name, _ in rows} == {concept.name for concept in CONCEPTS}
    assert {colour for _, _, colour in rows} == set(COLOURS)

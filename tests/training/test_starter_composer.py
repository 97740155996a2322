from collections import Counter

import numpy as np
import pytest

from tests.training.starter_helpers import synthetic_sprites
from webui.training.starter.backgrounds import Gradient, Painted, Pixels, Plain
from webui.training.starter.captions import caption, with_article
from webui.training.starter.compose import COLOUR_JITTER, Choices, Layout, PlacedSprite, render, sample_layout
from webui.training.starter.concepts import CONCEPT_BY_NAME, CONCEPTS
from webui.training.starter.degrading import DEGRADATIONS, Degraded
from webui.training.starter.evaluate import border_colour, sharpness
from webui.training.starter.variants import STYLES, TONE_CODES, SpriteKey, sprite_keys
from webui.training.starter.vocabulary import (
    BUILD_WORDS,
    COLOURS,
    DEGRADED_WORDS,
    PLACES,
    SCENES,
    SIZE_WORDS,
    STYLE_WORDS,
    Scene,
)

CHOICES = Choices.of(sprite_keys())
SPRITES = synthetic_sprites()
DOG = SpriteKey(concept="dog", style="3d")
CENTRED = PlacedSprite(DOG, (0.5, 0.5), 0.7)
WHITE = Plain("white", COLOURS["white"])


def _layout(seed: int) -> Layout:
    return sample_layout(np.random.default_rng(seed), CHOICES)


def _caption(layout: Layout, seed: int) -> str:
    return caption(layout, np.random.default_rng(seed))


def _captions(layout: Layout) -> list[str]:
    return [_caption(layout, seed) for seed in range(40)]


def _picture(layout: Layout, width: int = 128, height: int = 128) -> Pixels:
    return render(layout, SPRITES, width, height)


def test_there_are_190_concepts_in_two_styles() -> None:
    assert len(CONCEPTS) >= 190
    assert len(CONCEPT_BY_NAME) == len(CONCEPTS)
    assert Counter(key.style for key in sprite_keys()) == dict.fromkeys(STYLES, len(sprite_keys()) // 2)


def test_no_two_concepts_share_a_word_or_a_picture() -> None:
    words = Counter(word for concept in CONCEPTS for word in concept.words)
    pictures = Counter(concept.codepoint for concept in CONCEPTS)
    assert [word for word, count in words.items() if count > 1] == []
    assert [codepoint for codepoint, count in pictures.items() if count > 1] == []


def test_people_come_in_every_tone_and_things_in_none() -> None:
    for concept in CONCEPTS:
        tones = {key.tone for key in sprite_keys() if key.concept == concept.name}
        assert tones == (set(TONE_CODES) if concept.is_person else {""})


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


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_scene_has_its_sky_above_its_ground(scene: Scene) -> None:
    picture = _picture(Layout((), Painted(scene, 1)))
    assert np.abs(picture[0].mean(axis=0) - scene.sky_top).max() < 12
    assert tuple(picture[-1, 0]) == scene.ground


@pytest.mark.parametrize("place", PLACES)
def test_a_placed_object_is_where_the_caption_says(place: str) -> None:
    layout = Layout((PlacedSprite(DOG, PLACES[place], 0.5, place),), WHITE)
    rows, columns = np.nonzero((_picture(layout) != COLOURS["white"]).any(axis=-1))
    centre = {"on the left": columns.mean() < 56, "on the right": columns.mean() > 72}
    centre |= {"at the top": rows.mean() < 56, "at the bottom": rows.mean() > 72}
    assert centre[place]
    assert place in _caption(layout, 5)


@pytest.mark.parametrize("word", SIZE_WORDS)
def test_small_and_large_objects_are_called_so(word: str) -> None:
    sized = [layout for layout in map(_layout, range(400)) if layout.objects[0].size_word == word]
    assert sized
    low, high = SIZE_WORDS[word]
    for layout in sized:
        assert low <= layout.objects[0].size <= high
        assert layout.degraded or f"{word} " in _caption(layout, 1)


def test_captions_name_every_object_of_the_layout() -> None:
    for seed in range(200):
        layout = _layout(seed)
        if layout.degraded:
            continue
        text = _caption(layout, seed)
        for placed in layout.objects:
            assert any(word in text for word in CONCEPT_BY_NAME[placed.sprite.concept].words), (text, placed)


@pytest.mark.parametrize("style", STYLES)
def test_captions_never_name_the_other_style(style: str) -> None:
    layout = Layout((PlacedSprite(SpriteKey(concept="dog", style=style), (0.5, 0.5), 0.7),), WHITE)
    (other,) = set(STYLES) - {style}
    texts = " / ".join(_captions(layout))
    assert any(word in texts for word in STYLE_WORDS[style])
    assert not any(word in texts for word in STYLE_WORDS[other])


def test_captions_tell_hair_skin_and_build() -> None:
    woman = _captions(_portrait(SpriteKey(concept="woman", style="3d", tone="dark", hair="red hair")))
    assert any("red hair" in text for text in woman)
    assert any("dark skin" in text for text in woman)
    heavy = _captions(_portrait(SpriteKey(concept="standing man", style="flat", tone="light", build="heavy")))
    assert any(word in text for text in heavy for word in BUILD_WORDS["heavy"])
    assert not any(word in text for text in heavy for word in BUILD_WORDS["slim"])


def _portrait(sprite: SpriteKey) -> Layout:
    return Layout((PlacedSprite(sprite, (0.5, 0.5), 0.8),), WHITE)


def test_both_objects_of_a_pair_have_one_style() -> None:
    pairs = [layout.objects for layout in map(_layout, range(400)) if len(layout.objects) == 2]
    assert len(pairs) > 30
    assert all(first.sprite.style == second.sprite.style for first, second in pairs)


def test_only_pictures_made_worse_are_called_so() -> None:
    words = {word for phrases in DEGRADED_WORDS.values() for phrase in phrases for word in phrase.split(", ")}
    for seed in range(300):
        layout = _layout(seed)
        assert any(word in _caption(layout, seed).split(", ") for word in words) == bool(layout.degraded)


def test_every_kind_of_degradation_has_words() -> None:
    assert DEGRADATIONS.keys() == DEGRADED_WORDS.keys()


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_degraded_picture_differs_and_keeps_its_size(kind: str) -> None:
    clean = Layout((CENTRED,), WHITE)
    worse = Layout((CENTRED,), WHITE, Degraded(kind, 0.5, seed=3))
    assert _picture(worse, 160, 112).shape == (112, 160, 3)
    assert not np.array_equal(_picture(worse), _picture(clean))
    assert np.array_equal(_picture(worse), _picture(worse))


def test_a_blurred_picture_is_less_sharp() -> None:
    blurred = Layout((CENTRED,), WHITE, Degraded("blur", 0.0, seed=3))
    assert sharpness(_picture(blurred)) < 0.8 * sharpness(_picture(Layout((CENTRED,), WHITE)))


def test_a_picture_has_the_asked_size() -> None:
    for width, height in ((160, 112), (112, 160), (64, 64)):
        assert _picture(_layout(1), width, height).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [("apple", "an apple"), ("unicorn", "a unicorn"), ("grapes", "grapes"), ("slice of pizza", "a slice of pizza")],
)
def test_nouns_get_the_article_they_need(noun: str, phrase: str) -> None:
    assert with_article(noun) == phrase

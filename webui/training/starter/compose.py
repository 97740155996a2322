"""Pictures with known contents: sprites on plain, graded or painted backgrounds, drawn from a seed.

A `Layout` says everything that is in the picture; `render` draws it and `captions.py` words it, so the two agree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from webui.training.starter.backgrounds import Background, Gradient, Painted, Pixels, Plain, paint
from webui.training.starter.degrading import Degraded, degrade
from webui.training.starter.variants import SpriteKey
from webui.training.starter.vocabulary import COLOURS, DEGRADED_WORDS, PAIRS, PLACES, SCENES, SIZE_WORDS

Sprites = Mapping[SpriteKey, Image.Image]

PEOPLE_SHARE = 0.32
PAIR_SHARE = 0.12
PLACE_SHARE = 0.1
SIZE_SHARE = 0.06
SCENE_SHARE = 0.16
GRADIENT_SHARE = 0.06
COLOUR_JITTER = 10  # largest change of one 8-bit channel of a named colour
DEGRADED_SHARE = 0.06


@dataclass(frozen=True, slots=True)
class PlacedSprite:
    """`centre` and `size` are shares of the canvas and of its shorter side; `place` and `size_word` name them."""

    sprite: SpriteKey
    centre: tuple[float, float]
    size: float
    place: str = ""
    size_word: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a picture shows. `relation` is the phrase for two objects."""

    objects: tuple[PlacedSprite, ...]
    background: Background
    degraded: Degraded | None = None
    relation: str = ""


@dataclass(frozen=True, slots=True)
class Choices:
    """The sprites by concept, people apart. People with many variants come as often as any other thing."""

    people: tuple[tuple[SpriteKey, ...], ...]
    things: tuple[tuple[SpriteKey, ...], ...]

    @classmethod
    def of(cls, keys: Iterable[SpriteKey]) -> Self:
        """Group `keys`, in their order."""
        by_concept: dict[str, list[SpriteKey]] = {}
        for key in keys:
            by_concept.setdefault(key.concept, []).append(key)
        groups = [tuple(group) for group in by_concept.values()]
        return cls(
            tuple(group for group in groups if group[0].tone), tuple(group for group in groups if not group[0].tone)
        )

    def draw(self, rng: np.random.Generator) -> SpriteKey:
        """One sprite; a person with many variants is drawn more often than one with few, by the square root."""
        if self.people and (not self.things or rng.random() < PEOPLE_SHARE):
            weights = np.sqrt([len(group) for group in self.people])
            group = self.people[int(rng.choice(len(self.people), p=weights / weights.sum()))]
        else:
            group = self.things[int(rng.integers(len(self.things)))]
        return group[int(rng.integers(len(group)))]


def sample_layout(rng: np.random.Generator, choices: Choices) -> Layout:
    """A random layout; the same generator state and choices give the same layout."""
    kind = rng.random()
    relation = ""
    if kind < PAIR_SHARE:
        objects, relation = _pair(rng, choices)
    elif kind < PAIR_SHARE + PLACE_SHARE:
        objects = (_placed(rng, choices.draw(rng)),)
    elif kind < PAIR_SHARE + PLACE_SHARE + SIZE_SHARE:
        objects = (_sized(rng, choices.draw(rng)),)
    else:
        objects = (_centred(rng, choices.draw(rng), (0.66, 0.88)),)
    background = _sample_background(rng)
    degraded = _sample_degraded(rng) if rng.random() < DEGRADED_SHARE else None
    return Layout(objects, background, degraded, relation)


def render(layout: Layout, sprites: Sprites, width: int, height: int) -> Pixels:
    """The picture of `layout`, uint8 (height, width, 3) sRGB."""
    canvas = Image.fromarray(paint(layout.background, width, height))
    for placed in layout.objects:
        _paste(canvas, sprites[placed.sprite], placed)
    return np.asarray(degrade(canvas, layout.degraded) if layout.degraded else canvas)


def _centred(
    rng: np.random.Generator, sprite: SpriteKey, sizes: tuple[float, float], size_word: str = ""
) -> PlacedSprite:
    centre = (float(0.5 + rng.uniform(-0.05, 0.05)), float(0.5 + rng.uniform(-0.05, 0.05)))
    return PlacedSprite(sprite, centre, float(rng.uniform(*sizes)), size_word=size_word)


def _sized(rng: np.random.Generator, sprite: SpriteKey) -> PlacedSprite:
    word = list(SIZE_WORDS)[int(rng.integers(len(SIZE_WORDS)))]
    return _centred(rng, sprite, SIZE_WORDS[word], word)


def _placed(rng: np.random.Generator, sprite: SpriteKey) -> PlacedSprite:
    place = list(PLACES)[int(rng.integers(len(PLACES)))]
    return PlacedSprite(sprite, PLACES[place], float(rng.uniform(0.45, 0.54)), place)


def _pair(rng: np.random.Generator, choices: Choices) -> tuple[tuple[PlacedSprite, ...], str]:
    *places, relation = PAIRS[int(rng.integers(len(PAIRS)))]
    size = float(rng.uniform(0.44, 0.5))
    first = choices.draw(rng)
    second = choices.draw(rng)
    while second.style != first.style:  # one picture, one style
        second = choices.draw(rng)
    pair = zip((first, second), places, strict=True)
    return tuple(PlacedSprite(sprite, PLACES[place], size, place) for sprite, place in pair), relation


def _sample_background(rng: np.random.Generator) -> Background:
    kind = rng.random()
    if kind < SCENE_SHARE:
        return Painted(SCENES[int(rng.integers(len(SCENES)))], int(rng.integers(2**31)))
    if kind < SCENE_SHARE + GRADIENT_SHARE:
        top, bottom = rng.permutation(len(COLOURS))[:2]
        return Gradient(_plain(rng, int(top)), _plain(rng, int(bottom)))
    return _plain(rng, int(rng.integers(len(COLOURS))))


def _sample_degraded(rng: np.random.Generator) -> Degraded:
    kind = list(DEGRADED_WORDS)[int(rng.integers(len(DEGRADED_WORDS)))]
    return Degraded(kind, float(rng.random()), int(rng.integers(2**31)))


def _plain(rng: np.random.Generator, index: int) -> Plain:
    name = list(COLOURS)[index]
    jittered = np.clip(np.array(COLOURS[name]) + rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, 3), 0, 255)
    return Plain(name, (int(jittered[0]), int(jittered[1]), int(jittered[2])))


def _paste(canvas: Image.Image, sprite: Image.Image, placed: PlacedSprite) -> None:
    scale = placed.size * min(canvas.size) / max(sprite.size)
    size = (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale)))
    small = sprite.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    left = round(placed.centre[0] * canvas.width - size[0] / 2)
    top = round(placed.centre[1] * canvas.height - size[1] / 2)
    canvas.paste(small, (left, top), small)

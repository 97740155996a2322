"""Pictures with known contents: sprites on plain, graded or painted backgrounds, drawn from a seed.

A `Layout` says everything that is in the picture; `render` draws it and `captions.py` words it, so the two agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from webui.training.starter.vocabulary import COLOURS, CONCEPTS, PLACES, RGB, SCENES, Scene

Pixels = npt.NDArray[np.uint8]
Sprites = Mapping[str, Image.Image]

PEOPLE_SHARE = 0.4  # people are 30 of the 60 sprites and the hardest to tell apart
COLOUR_JITTER = 10  # largest change of one 8-bit channel of a named colour
DEGRADED_SHARE = 0.04


@dataclass(frozen=True, slots=True)
class PlacedSprite:
    """`sprite` is a key of the sprite set; `centre` and `size` are shares of the canvas and of its shorter side."""

    sprite: str
    centre: tuple[float, float]
    size: float
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """One named colour; `rgb` is that colour with its jitter."""

    colour: str
    rgb: RGB


@dataclass(frozen=True, slots=True)
class Gradient:
    """Top to bottom between two named colours."""

    top: Plain
    bottom: Plain


@dataclass(frozen=True, slots=True)
class Painted:
    """A scene; `seed` places its stars."""

    scene: Scene
    seed: int


Background = Plain | Gradient | Painted


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a picture shows. `blur_radius` is a share of the shorter side, 0 for a clean picture."""

    objects: tuple[PlacedSprite, ...]
    background: Background
    blur_radius: float = 0.0


def sample_layout(rng: np.random.Generator, sprite_keys: tuple[str, ...]) -> Layout:
    """A random layout; the same generator state and keys give the same layout."""
    kind = rng.random()
    if kind < 0.05:
        objects = _pair(rng, sprite_keys)
    elif kind < 0.17:
        objects = (_placed(rng, _choose_sprite(rng, sprite_keys)),)
    else:
        objects = (_centred(rng, _choose_sprite(rng, sprite_keys)),)
    blur_radius = float(rng.uniform(0.02, 0.05)) if rng.random() < DEGRADED_SHARE else 0.0
    return Layout(objects, _sample_background(rng), blur_radius)


def render(layout: Layout, sprites: Sprites, width: int, height: int) -> Pixels:
    """The picture of `layout`, uint8 (height, width, 3) sRGB."""
    canvas = Image.fromarray(_paint_background(layout.background, width, height))
    for placed in layout.objects:
        _paste(canvas, sprites[placed.sprite], placed)
    if layout.blur_radius:
        canvas = canvas.filter(ImageFilter.GaussianBlur(layout.blur_radius * min(width, height)))
    return np.asarray(canvas)


def concept_of(sprite: str) -> str:
    """Concept name of a sprite key (`man/dark` -> `man`)."""
    return sprite.partition("/")[0]


def _choose_sprite(rng: np.random.Generator, sprite_keys: tuple[str, ...]) -> str:
    people = [key for key in sprite_keys if "/" in key]
    things = [key for key in sprite_keys if "/" not in key]
    pool = people if people and (not things or rng.random() < PEOPLE_SHARE) else things
    return pool[int(rng.integers(len(pool)))]


def _centred(rng: np.random.Generator, sprite: str) -> PlacedSprite:
    centre = (float(0.5 + rng.uniform(-0.05, 0.05)), float(0.5 + rng.uniform(-0.05, 0.05)))
    return PlacedSprite(sprite, centre, float(rng.uniform(0.66, 0.86)))


def _placed(rng: np.random.Generator, sprite: str) -> PlacedSprite:
    place = list(PLACES)[int(rng.integers(len(PLACES)))]
    return PlacedSprite(sprite, PLACES[place], float(rng.uniform(0.45, 0.54)), place)


def _pair(rng: np.random.Generator, sprite_keys: tuple[str, ...]) -> tuple[PlacedSprite, ...]:
    size = float(rng.uniform(0.44, 0.5))
    places = ("on the left", "on the right")
    return tuple(PlacedSprite(_choose_sprite(rng, sprite_keys), PLACES[place], size, place) for place in places)


def _sample_background(rng: np.random.Generator) -> Background:
    kind = rng.random()
    if kind < 0.12:
        return Painted(SCENES[int(rng.integers(len(SCENES)))], int(rng.integers(2**31)))
    if kind < 0.18:
        top, bottom = rng.permutation(len(COLOURS))[:2]
        return Gradient(_plain(rng, int(top)), _plain(rng, int(bottom)))
    return _plain(rng, int(rng.integers(len(COLOURS))))


def _plain(rng: np.random.Generator, index: int) -> Plain:
    name = list(COLOURS)[index]
    jittered = np.clip(np.array(COLOURS[name]) + rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, 3), 0, 255)
    return Plain(name, (int(jittered[0]), int(jittered[1]), int(jittered[2])))


def _paint_background(background: Background, width: int, height: int) -> Pixels:
    match background:
        case Plain(rgb=rgb):
            return np.full((height, width, 3), rgb, np.uint8)
        case Gradient(top=top, bottom=bottom):
            return _vertical_blend(top.rgb, bottom.rgb, width, height)
        case Painted(scene=scene, seed=seed):
            return _paint_scene(scene, np.random.default_rng(seed), width, height)


def _vertical_blend(top: RGB, bottom: RGB, width: int, height: int) -> Pixels:
    share = np.linspace(0.0, 1.0, height)[:, None]
    column = (1 - share) * np.array(top) + share * np.array(bottom)
    return np.broadcast_to(column[:, None, :], (height, width, 3)).round().astype(np.uint8)


def _paint_scene(scene: Scene, rng: np.random.Generator, width: int, height: int) -> Pixels:
    pixels = _vertical_blend(scene.sky_top, scene.sky_bottom, width, height)
    wave = np.sin(np.linspace(0, rng.uniform(2, 5), width) + rng.uniform(0, 6)) * height * 0.02
    horizon = scene.horizon * height + wave
    pixels[np.arange(height)[:, None] > horizon[None, :]] = scene.ground
    for _ in range(scene.num_stars):
        y, x = int(rng.integers(int(height * scene.horizon * 0.95))), int(rng.integers(width))
        pixels[y : y + 2, x : x + 2] = 235
    return pixels


def _paste(canvas: Image.Image, sprite: Image.Image, placed: PlacedSprite) -> None:
    scale = placed.size * min(canvas.size) / max(sprite.size)
    size = (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale)))
    small = sprite.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    left = round(placed.centre[0] * canvas.width - size[0] / 2)
    top = round(placed.centre[1] * canvas.height - size[1] / 2)
    canvas.paste(small, (left, top), small)


def all_sprite_keys() -> tuple[str, ...]:
    """Every sprite of the vocabulary, in table order."""
    return tuple(key for concept in CONCEPTS for key in concept.file_stems())

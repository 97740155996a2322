"""What is behind the objects: one named colour, two of them, or a painted scene."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from webui.training.starter.vocabulary import RGB, Scene

Pixels = npt.NDArray[np.uint8]


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
    """A scene; `seed` places its details."""

    scene: Scene
    seed: int


Background = Plain | Gradient | Painted


def paint(background: Background, width: int, height: int) -> Pixels:
    """uint8 (height, width, 3) sRGB."""
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
    wave = np.sin(np.linspace(0, rng.uniform(2, 5), width) + rng.uniform(0, 6)) * height * 0.02
    horizon = scene.horizon * height + wave
    pixels = _vertical_blend(scene.sky_top, scene.sky_bottom, width, height)
    for _ in range(scene.stars):
        y, x = int(rng.integers(int(height * scene.horizon * 0.95))), int(rng.integers(width))
        pixels[y : y + 2, x : x + 2] = 235
    if scene.buildings:
        pixels = _buildings(pixels, scene, rng)
    pixels[np.arange(height)[:, None] > horizon[None, :]] = scene.ground
    return _bubbles(pixels, scene.bubbles, rng) if scene.bubbles else pixels


def _buildings(pixels: Pixels, scene: Scene, rng: np.random.Generator) -> Pixels:
    """Gray-blue blocks with rows of windows, side by side and down to the horizon."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    block = width / scene.buildings
    window = max(2, round(block / 7))
    for index in range(scene.buildings):
        shade = int(rng.integers(-18, 19))
        top = round(height * rng.uniform(0.2, 0.55))
        left, right = round(index * block), round((index + 1) * block) - 2
        draw.rectangle((left, top, right, height), fill=(110 + shade, 125 + shade, 150 + shade))
        for y in range(top + window, round(height * scene.horizon), 3 * window):
            for x in range(left + window, right - window, 2 * window):
                draw.rectangle((x, y, x + window - 1, y + window - 1), fill=(245, 230, 170))
    return np.array(image)


def _bubbles(pixels: Pixels, count: int, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        radius = rng.uniform(0.01, 0.03) * min(width, height)
        x, y = rng.uniform(0, width), rng.uniform(0, height * 0.85)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(200, 235, 250))
    return np.array(image)

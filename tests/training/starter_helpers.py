"""Synthetic stand-ins for the icons, so that these tests need no download."""

import numpy as np
from PIL import Image, ImageDraw

from webui.training.starter.variants import SpriteKey, sprite_keys


def synthetic_sprites() -> dict[SpriteKey, Image.Image]:
    """A disc or a square per sprite key, each in its own colour, with a transparent edge."""
    sprites = {}
    for index, key in enumerate(sprite_keys()):
        sprite = Image.new("RGBA", (48, 40 + index % 17))
        colour = tuple(int(value) for value in np.random.default_rng(index).integers(0, 256, 3))
        shape = ImageDraw.Draw(sprite)
        (shape.ellipse if index % 2 else shape.rectangle)((2, 2, sprite.width - 3, sprite.height - 3), fill=colour)
        sprites[key] = sprite
    return sprites

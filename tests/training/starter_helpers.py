"""Synthetic stand-ins for the icons, so that these tests need no download."""

import numpy as np
from PIL import Image, ImageDraw
from transformers import CLIPTokenizer

from webui.training.starter.diffusion import Denoiser
from webui.training.starter.networks import Sizes, build_text_encoder, build_unet
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


def tiny_denoiser(sizes: Sizes, tokenizer: CLIPTokenizer) -> Denoiser:
    """Random networks of `sizes` for a vocabulary."""
    assert isinstance(tokenizer.bos_token_id, int)
    assert isinstance(tokenizer.eos_token_id, int)
    text_encoder = build_text_encoder(
        sizes, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    return Denoiser(build_unet(sizes), text_encoder)

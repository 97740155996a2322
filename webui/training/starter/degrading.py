"""Pictures made worse on purpose, so that words such as "blurry" mean something, in negative prompts above all."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True, slots=True)
class Degraded:
    """`kind` is a row of `DEGRADATIONS`; `strength` in [0, 1], 0 being just visible; `seed` is for noise."""

    kind: str
    strength: float
    seed: int


def degrade(image: Image.Image, degraded: Degraded) -> Image.Image:
    """`image` made worse, same size."""
    return DEGRADATIONS[degraded.kind](image, degraded)


def _blur(image: Image.Image, degraded: Degraded) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur((0.018 + 0.03 * degraded.strength) * min(image.size)))


def _low_resolution(image: Image.Image, degraded: Degraded) -> Image.Image:
    factor = 4 + 4 * degraded.strength
    small = image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _jpeg(image: Image.Image, degraded: Degraded) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(10 - 7 * degraded.strength))
    return Image.open(buffer).convert("RGB")


def _noise(image: Image.Image, degraded: Degraded) -> Image.Image:
    noise = np.random.default_rng(degraded.seed).standard_normal((image.height, image.width, 1))
    noisy = np.asarray(image) + (20 + 30 * degraded.strength) * noise
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


DEGRADATIONS: dict[str, Callable[[Image.Image, Degraded], Image.Image]] = {
    "blur": _blur,
    "low resolution": _low_resolution,
    "jpeg": _jpeg,
    "noise": _noise,
}

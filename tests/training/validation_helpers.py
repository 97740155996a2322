"""Photos to measure with: random latents and small pictures that can be told apart."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from webui.pipeline.model import Model
from webui.training.caching import TensorCache
from webui.training.config import Loss
from webui.training.feed import Batch
from webui.training.stepping import Denoising, denoising_of
from webui.training.texts import Captions
from webui.training.validation.photos import MeasuredPhoto


def photo(number: int, *, size: tuple[int, int] = (64, 64), caption: str = "a red thing") -> MeasuredPhoto:
    """Photo `number`: the same each time, and like no other."""
    width, height = size
    pixels = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    generator = torch.Generator().manual_seed(number)
    return MeasuredPhoto(
        name=f"photo {number}.png",
        sha256=hashlib.sha256(image.tobytes()).hexdigest(),
        image=image,
        latent=torch.randn(4, height // 8, width // 8, generator=generator),
        caption=caption,
    )


def photos(numbers: Sequence[int]) -> list[MeasuredPhoto]:
    return [photo(number) for number in numbers]


def denoising_for(model: Model, rule: Loss | None = None, *, live: bool = False) -> Denoising:
    captions = Captions(model.text_encoder, TensorCache("memory", Path()), clip_skip=0, live=live)
    return denoising_of(model, captions, rule or Loss(), as_base=torch.no_grad)


class Known:
    """Stands for a network whose error is `error`, whatever it is shown; what it was shown is in `batches`."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.batches: list[Batch] = []

    def errors(self, batch: Batch) -> Tensor:
        self.batches.append(batch)
        return torch.full((len(batch.names),), self.error)

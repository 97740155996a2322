"""Seeded noise. Every picture has a generator of its own, so a picture does not depend on its batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


class NoiseSource:
    """Unit noise for a batch, drawn on the CPU picture by picture: portable between devices.

    `shape` is (C, h, w) of one latent. Each call draws (B, C, h, w) float32 on `device`.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> None:
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._shape = shape
        self._device = device

    def __call__(self) -> Tensor:
        drawn = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self._device)

"""The randomness of a run: what sample number n of seed s is noised with, whoever computes it and in whichever batch.

Nothing here remembers anything: a resumed run, another process and another batch size draw the same numbers.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from webui.training.seeds import mixed

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
COARSER_BY = (2.0, 4.0)
"""Each coarser grid of multi-resolution noise is smaller by a factor between these to the power of its number."""


def generator_of(*numbers: int) -> torch.Generator:
    """A source of random numbers on the processor, the same for the same `numbers`."""
    return torch.Generator("cpu").manual_seed(mixed(*numbers))


def timestep_of(seed: int, index: int, num_timesteps: int) -> int:
    """Timestep of sample `index`: uniform, and any run of samples in a row covers all levels evenly.

    The golden ratio's multiples, turned by an amount that depends on the seed (a Kronecker sequence): the gradient of a
    few steps depends less on luck than with independent draws, and its mean is the same.
    """
    turn = mixed(seed, 0x7E) / 2**64
    return int(((turn + index * GOLDEN_RATIO) % 1.0) * num_timesteps)


def noise_of(
    seed: int,
    index: int,
    shape: tuple[int, int, int],
    *,
    offset: float = 0.0,
    iterations: int = 0,
    discount: float = 0.3,
) -> Tensor:
    """(C, h, w) float32 noise of sample `index`, of unit variance, coarser where asked for."""
    generator = generator_of(seed, index)
    noise = torch.randn(shape, generator=generator)
    if iterations:
        noise = multires(noise, iterations, discount, generator)
    return with_offset(noise, offset, generator) if offset else noise


def with_offset(noise: Tensor, offset: float, generator: torch.Generator) -> Tensor:
    """`noise` (C, h, w) with each channel shifted by a random amount, so that very dark and bright pictures are learnt.

    Source: Guttenberg 2023, "Diffusion with offset noise".
    """
    return noise + offset * torch.randn(len(noise), 1, 1, generator=generator)


def multires(noise: Tensor, iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """`noise` (C, h, w) with `iterations` coarser grids added, the i-th weighed by discount^i; of unit variance again.

    Source: Whitaker 2023, "Multi-resolution noise for diffusion model training".
    """
    height, width = noise.shape[1:]
    low, high = COARSER_BY
    for i in range(1, iterations + 1):
        factor = (low + (high - low) * float(torch.rand((), generator=generator))) ** i
        size = max(1, int(height / factor)), max(1, int(width / factor))
        coarse = torch.randn(len(noise), *size, generator=generator)
        larger = interpolate(coarse[None], (height, width), mode="bilinear", align_corners=False)[0]
        noise = noise + larger * discount**i
        if size == (1, 1):
            break
    return noise / noise.std()

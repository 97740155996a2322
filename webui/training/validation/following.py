"""Whether a picture shows what it was asked for, by the base model itself, so that no other model is needed.

The base denoises a noised copy of the picture under the picture's own prompt and under the others that were drawn; the
one that helps it most is the one it sees in the picture (a diffusion classifier: Li et al. 2023, arXiv:2303.16203).
In place of the trigger the prompts have the class, which is what the base knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from webui.training.stepping import Denoising
from webui.training.validation.measure import measure
from webui.training.validation.photos import MeasuredPhoto

LEVELS = (0.3, 0.5, 0.7)
"""Shares of the noise levels at which prompts make the most difference."""


def followings(
    denoising: Denoising,
    pictures: Sequence[MeasuredPhoto],
    prompts: Sequence[str],
    *,
    num_timesteps: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[float | None]:
    """For each picture, whose caption is its own prompt: see `won`. None where there is only one prompt.

    `denoising` has to be the base: enter `scaled(0)` before.
    """
    different = list(dict.fromkeys(prompts))
    if len(different) < 2:
        return [None] * len(pictures)
    timesteps = [int(share * num_timesteps) for share in LEVELS]
    found: list[float | None] = []
    for picture in pictures:
        errors = {
            prompt: measure(denoising, [under(picture, prompt)], timesteps, seed=seed, check=check).values[0]
            for prompt in different
        }
        own = errors.pop(picture.caption)
        found.append(won(own, list(errors.values())))
    return found


def under(picture: MeasuredPhoto, prompt: str) -> MeasuredPhoto:
    """The same picture with another caption."""
    return replace(picture, caption=prompt)


def won(own: NDArray[np.float64], others: Sequence[NDArray[np.float64]]) -> float:
    """By how much more of the comparisons, level by level, the own prompt wins than the others do: 1 for all of them,
    0 for half, as a picture does on average that has nothing of its prompt; below 0 for less."""
    wins = [float(np.mean((own < other) + 0.5 * (own == other))) for other in others]
    return 2 * float(np.mean(wins)) - 1

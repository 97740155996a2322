"""Errors on a fixed set of photos, noise levels and noises: what differs between two measurements is the network alone.

All photos, trained on or kept back, are noised at the same levels with the same noise. Each measurement is a table of
its own and its mean is taken over that table: nothing of an earlier one is left in it. The loss that training reports
is another number; its levels are drawn, and weighted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from webui.training.feed import Batch
from webui.training.noise import generator_of
from webui.training.stepping import Denoising
from webui.training.validation.photos import MeasuredPhoto

NUM_BANDS = 3
ROWS_AT_ONCE = 4
"""Noise levels of a photo that go through the network together."""
MEASURING = 0x56414C
"""Tells this noise from the noise that is trained with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Errors:
    """`values` (photos, levels) float64: mean distance, as the run's rule measures it, without weights of levels.

    `sha256s` are the photos', `timesteps` the levels'.
    """

    sha256s: tuple[str, ...]
    timesteps: tuple[int, ...]
    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.values).all())

    def bands(self, num_timesteps: int) -> dict[str, float]:
        """Means per range of levels, by its first and last timestep; only ranges in which there is one."""
        edges = np.linspace(0, num_timesteps, NUM_BANDS + 1).round().astype(int)
        found: dict[str, float] = {}
        for first, end in pairwise(edges.tolist()):
            chosen = [i for i, timestep in enumerate(self.timesteps) if first <= timestep < end]
            if chosen:
                found[f"{first}-{end - 1}"] = float(self.values[:, chosen].mean())
        return found

    def less(self, other: "Errors") -> tuple[float, float]:
        """How much smaller these errors are than `other`'s on the same photos and noises, and that mean's standard
        error over the photos: 0 for a single one."""
        if (self.sha256s, self.timesteps) != (other.sha256s, other.timesteps):
            raise ValueError("Errors of different photos or noise levels cannot be compared.")
        by_photo = (other.values - self.values).mean(axis=1)
        spread = by_photo.std(ddof=1) / np.sqrt(len(by_photo)) if len(by_photo) > 1 else 0.0
        return float(by_photo.mean()), float(spread)

    def as_json(self) -> dict[str, object]:
        return {"sha256s": list(self.sha256s), "timesteps": list(self.timesteps), "values": self.values.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, list[object]]) -> "Errors":
        """Raises ValueError, KeyError or TypeError for what `as_json` did not write."""
        values = np.array(content["values"], dtype=np.float64)
        sha256s, timesteps = content["sha256s"], content["timesteps"]
        if values.shape != (len(sha256s), len(timesteps)):
            raise ValueError(f"{values.shape} errors for {len(sha256s)} photos at {len(timesteps)} levels")
        return cls(
            sha256s=tuple(str(one) for one in sha256s),
            timesteps=tuple(int(str(one)) for one in timesteps),
            values=values,
        )


def levels_to_measure(num_levels: int, num_timesteps: int) -> tuple[int, ...]:
    """The middles of `num_levels` equal ranges of timesteps."""
    return tuple(int((i + 0.5) * num_timesteps / num_levels) for i in range(num_levels))


def measure(
    denoising: Denoising,
    photos: Sequence[MeasuredPhoto],
    timesteps: Sequence[int],
    *,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Errors:
    """The errors of the network as it is now. `check` may raise, between passes.

    The noise of a level follows from `seed`, the level and the latent's size, so neither the order of the photos nor
    what was drawn before matters; the global generators are left alone.
    """
    rows = [_of_photo(denoising, photo, timesteps, seed, check) for photo in photos]
    return Errors(
        sha256s=tuple(photo.sha256 for photo in photos),
        timesteps=tuple(timesteps),
        values=np.array(rows, dtype=np.float64).reshape(len(photos), len(timesteps)),
    )


def _of_photo(
    denoising: Denoising, photo: MeasuredPhoto, timesteps: Sequence[int], seed: int, check: Callable[[], None]
) -> list[float]:
    found: list[float] = []
    for start in range(0, len(timesteps), ROWS_AT_ONCE):
        check()
        found += denoising.errors(fixed_batch(photo, timesteps[start : start + ROWS_AT_ONCE], seed)).tolist()
    return found


def fixed_batch(photo: MeasuredPhoto, timesteps: Sequence[int], seed: int) -> Batch:
    """`photo` at each of `timesteps`, with each level's own noise."""
    rows, shape = len(timesteps), photo.latent.shape
    noise = [torch.randn(shape, generator=generator_of(seed, MEASURING, timestep)) for timestep in timesteps]
    mask, time_ids, channels = (
        None if tensor is None else tensor.expand(rows, *tensor.shape)
        for tensor in (photo.mask, photo.time_ids, photo.channels)
    )
    return Batch(
        names=(photo.name,) * rows,
        samples=tuple(range(rows)),
        latents=photo.latent.expand(rows, *shape),
        noise=torch.stack(noise),
        timesteps=torch.tensor(list(timesteps)),
        captions=(photo.caption,) * rows,
        prior_captions=(),
        weights=torch.ones(rows),
        masks=mask,
        time_ids=time_ids,
        channels=channels,
    )

"""Sigma schedules: at which noise levels the denoise loop stops.

Pure float64 arithmetic without torch, so that the interface can read the table too. A new schedule is one function
and one row. Each takes (n, NoiseLevels) and returns n + 1 falling sigmas, the last of them 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from webui.errors import InvalidRequest

Sigmas = tuple[float, ...]

STRENGTH_OF_ALL_STEPS = 0.999
"""Denoising strengths above count as this, so that the share of steps stays below one."""


LAST_ALPHA_CUMPROD = 4.8973451890853435e-08
"""Share of the signal that is left at the last step of zero-terminal-SNR models; a sigma of about 4519."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseLevels:
    """The noise levels a model was trained on: `sigmas` (num_train_timesteps,) float64, rising with the timestep.

    sigma = sqrt((1 - alpha_cumprod) / alpha_cumprod), the variance-exploding scale of Karras et al. 2022.
    """

    sigmas: NDArray[np.float64]

    @classmethod
    def from_betas(cls, betas: Sequence[float] | NDArray[np.float64]) -> "NoiseLevels":
        """`betas` (num_train_timesteps,) in (0, 1), the forward process of Ho et al. 2020."""
        alphas_cumprod = np.cumprod(1.0 - np.asarray(betas, dtype=np.float64))
        return cls(np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod))

    def with_zero_terminal_snr(self) -> "NoiseLevels":
        """The same levels, stretched so that the last one is noise alone.

        Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1. The last level would be infinite; it is put where the
        field puts it, at `LAST_ALPHA_CUMPROD`, so that pictures come out the same.
        """
        signal = 1.0 / np.sqrt(1.0 + self.sigmas**2)
        first, last = signal[0], signal[-1]
        alphas_cumprod = ((signal - last) * (first / (first - last))) ** 2
        alphas_cumprod[-1] = LAST_ALPHA_CUMPROD
        return NoiseLevels(np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod))

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    @property
    def last_timestep(self) -> int:
        return len(self.sigmas) - 1

    def sigma_at(self, timestep: float) -> float:
        """Sigma at a fractional timestep, interpolated in log sigma as k-diffusion does."""
        return float(np.exp(np.interp(timestep, np.arange(len(self.sigmas)), np.log(self.sigmas))))

    def timestep_at(self, sigma: float) -> float:
        """The fractional timestep whose noise level is `sigma`; clamped to the trained range."""
        return float(np.interp(math.log(max(sigma, 1e-10)), np.log(self.sigmas), np.arange(len(self.sigmas))))


def uniform(n: int, levels: NoiseLevels) -> Sigmas:
    """Timesteps evenly spaced from the last to the first, both included."""
    return _at_timesteps(np.linspace(levels.last_timestep, 0, n), levels)


def sgm_uniform(n: int, levels: NoiseLevels) -> Sigmas:
    """Timesteps evenly spaced from the last; the first timestep is left out, as in Stability's sgm."""
    return _at_timesteps(np.linspace(levels.last_timestep, 0, n + 1)[:-1], levels)


def karras(n: int, levels: NoiseLevels, *, rho: float = 7.0) -> Sigmas:
    """Steps shrink towards low noise. Source: Karras et al. 2022, arXiv:2206.00364, eq. 5."""
    ramp = np.linspace(0.0, 1.0, n)
    low, high = levels.sigma_min ** (1 / rho), levels.sigma_max ** (1 / rho)
    return (*((high + ramp * (low - high)) ** rho).tolist(), 0.0)


def exponential(n: int, levels: NoiseLevels) -> Sigmas:
    """Evenly spaced in log sigma."""
    return (*np.exp(np.linspace(math.log(levels.sigma_max), math.log(levels.sigma_min), n)).tolist(), 0.0)


def leading(n: int, levels: NoiseLevels) -> Sigmas:
    """Every (T // n)-th timestep plus one, the spacing DDIM was published with (Song et al. 2020, arXiv:2010.02502)."""
    stride = max(len(levels.sigmas) // n, 1)
    return _at_timesteps((np.arange(n) * stride)[::-1] + 1, levels)


def _at_timesteps(timesteps: NDArray[np.float64] | NDArray[np.int_], levels: NoiseLevels) -> Sigmas:
    return (*(levels.sigma_at(float(t)) for t in timesteps), 0.0)


def img2img_sigmas(sigmas: Sigmas, strength: float) -> Sigmas:
    """The end of a schedule that img2img runs: int(strength * n) + 1 of its n steps; none at strength 0."""
    num_steps = len(sigmas) - 1
    if strength == 0:
        return sigmas[-1:]
    steps_back = int(min(strength, STRENGTH_OF_ALL_STEPS) * num_steps)
    return sigmas[num_steps - steps_back - 1 :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of the table. `sigmas` None stands for "Automatic": each sampler's own default."""

    label: str
    aliases: tuple[str, ...]
    sigmas: Callable[[int, NoiseLevels], Sigmas] | None


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        row.label: row
        for row in (
            Schedule(label="Automatic", aliases=("automatic",), sigmas=None),
            Schedule(label="Uniform", aliases=("uniform",), sigmas=uniform),
            Schedule(label="Karras", aliases=("karras",), sigmas=karras),
            Schedule(label="Exponential", aliases=("exponential",), sigmas=exponential),
            Schedule(label="SGM Uniform", aliases=("sgm_uniform", "SGMUniform"), sigmas=sgm_uniform),
            Schedule(label="DDIM", aliases=("ddim", "ddim_uniform"), sigmas=leading),
        )
    }
)


def find_schedule(name: str) -> Schedule:
    """The row with this label or alias, whatever the case. Raises InvalidRequest with close matches."""
    wanted = name.strip().lower()
    for row in SCHEDULES.values():
        if wanted in (row.label.lower(), *(alias.lower() for alias in row.aliases)):
            return row
    close = get_close_matches(name, SCHEDULES, cutoff=0.4) or list(SCHEDULES)
    raise InvalidRequest("schedule", f"There is no schedule '{name}'.", hint=f"Use one of: {', '.join(close)}.")

"""Samplers: how a noisy latent becomes a clean one, in the shape k-diffusion gave them.

Every sampler is one pure function `sample_x(denoise, x, sigmas, *, noise, eta)`:

- `x` (B, C, h, w) starts at noise level `sigmas[0]`, variance exploding: x = clean + sigma * unit noise.
- `sigmas` are n + 1 falling floats, the last of them 0.
- `denoise(x, sigma)` is the model's guess of the clean latent at that level; it also reports progress.
- `noise()` draws fresh unit noise of x's shape, each picture from its own generator.
- `eta` scales the fresh noise; each row of the table has its default.

Returned is the clean latent. The arithmetic on sigmas is float64, and torch is needed for types only, so that the
interface can read the table. A new sampler is one function and one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from webui.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", float], "Tensor"]
Noise = Callable[[], "Tensor"]


class SampleFunction(Protocol):
    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor: ...


def sample_euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """First-order ODE steps. Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn."""
    for sigma, sigma_next in _pairs(sigmas):
        denoised = denoise(x, sigma)
        x = denoised + (x - denoised) * (sigma_next / sigma)
    return x


def sample_euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """Euler steps that go down further than asked and put fresh noise back."""
    for sigma, sigma_next in _pairs(sigmas):
        denoised = denoise(x, sigma)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta=eta)
        x = denoised + (x - denoised) * (sigma_down / sigma)
        if sigma_up > 0:
            x = x + noise() * sigma_up
    return x


def sample_heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """Second-order ODE steps, two model calls each but the last. Source: arXiv:2206.00364, algorithm 1."""
    for sigma, sigma_next in _pairs(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x_euler = x + slope * (sigma_next - sigma)
        if sigma_next == 0:
            return x_euler
        slope_next = (x_euler - denoise(x_euler, sigma_next)) / sigma_next
        x = x + (slope + slope_next) * ((sigma_next - sigma) / 2)
    return x


def sample_dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """DPM-Solver++(2M). Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2; lambda = -log sigma."""
    previous: Tensor | None = None
    h_previous = 0.0
    for sigma, sigma_next in _pairs(sigmas):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            return denoised
        h = math.log(sigma / sigma_next)
        extrapolated = denoised
        if previous is not None:
            r = h_previous / h
            extrapolated = denoised * (1 + 1 / (2 * r)) - previous * (1 / (2 * r))
        x = x * (sigma_next / sigma) - extrapolated * math.expm1(-h)
        previous, h_previous = denoised, h
    return x


def sample_dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """SDE-DPM-Solver++(2M), midpoint form. Source: arXiv:2211.01095, section 4 and appendix; eta 1 is the full SDE."""
    previous: Tensor | None = None
    h_previous = 0.0
    for sigma, sigma_next in _pairs(sigmas):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            return denoised
        h = math.log(sigma / sigma_next)
        eta_h = eta * h
        gain = -math.expm1(-h - eta_h)
        x = x * (sigma_next / sigma * math.exp(-eta_h)) + denoised * gain
        if previous is not None:
            x = x + (denoised - previous) * (0.5 * gain * h / h_previous)
        if eta > 0:
            x = x + noise() * (sigma_next * math.sqrt(-math.expm1(-2 * eta_h)))
        previous, h_previous = denoised, h
    return x


def sample_ddim(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """DDIM; eta 0 is deterministic, eta 1 is DDPM. Source: Song et al. 2020, arXiv:2010.02502, eq. 12 and 16.

    Restated for variance-exploding x, where alpha_cumprod = 1 / (1 + sigma^2).
    """
    for sigma, sigma_next in _pairs(sigmas):
        denoised = denoise(x, sigma)
        alpha, alpha_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        variance = eta**2 * (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next) / alpha_next
        x = denoised + (x - denoised) * (math.sqrt(max(sigma_next**2 - variance, 0.0)) / sigma)
        if variance > 0:
            x = x + noise() * math.sqrt(variance)
    return x


def sample_lcm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """Multistep consistency sampling: jump to the clean latent, noise it again. Source: arXiv:2310.04378."""
    for sigma, sigma_next in _pairs(sigmas):
        x = denoise(x, sigma)
        if sigma_next > 0:
            x = x + noise() * sigma_next
    return x


def sample_unipc(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, eta: float) -> Tensor:
    """UniPC-3 with B(h) = h and data prediction. Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 6.

    Each model call serves twice: as corrector of the step that led to it and as newest point of the next predictor.
    The order falls towards the end of the schedule, where extrapolation is least reliable.
    """
    history: list[tuple[float, Tensor]] = []
    x_corrected = x
    order = 1
    num_steps = len(sigmas) - 1
    for i, (sigma, sigma_next) in enumerate(_pairs(sigmas)):
        denoised = denoise(x, sigma)
        if history:
            x = _unipc_step(x_corrected, history[-order:], sigma, newest=denoised)
        if sigma_next == 0:
            return denoised
        history = [*history[-2:], (sigma, denoised)]
        x_corrected = x
        order = min(len(history), 3, num_steps - i)
        x = _unipc_step(x, history[-order:], sigma_next, newest=None)
    return x


def _unipc_step(
    x: Tensor, history: Sequence[tuple[float, Tensor]], sigma_next: float, *, newest: Tensor | None
) -> Tensor:
    """From the last of `history` to `sigma_next`: UniP where `newest` is None, UniC where it is the model there."""
    sigma, denoised = history[-1]
    h = math.log(sigma / sigma_next)
    x = x * (sigma_next / sigma) - denoised * math.expm1(-h)
    points = [(math.log(sigma / past_sigma) / h, past - denoised) for past_sigma, past in reversed(history[:-1])]
    if newest is not None:
        points.append((1.0, newest - denoised))
    if not points:
        return x
    weights = _unipc_weights([ratio for ratio, _ in points], h)
    for weight, (ratio, difference) in zip(weights, points, strict=True):
        x = x + difference * (h * weight / ratio)
    return x


def _unipc_weights(ratios: Sequence[float], h: float) -> list[float]:
    """Solves R a = b of arXiv:2302.04867, eq. 11, for data prediction (h is negated), with B(h) = -h.

    One point has the closed form 1/2, as in the reference implementation.
    """
    if len(ratios) == 1:
        return [0.5]
    h_phi = math.expm1(-h) / -h - 1
    factorial = 1.0
    rows, right = [], []
    for k in range(1, len(ratios) + 1):
        rows.append([ratio ** (k - 1) for ratio in ratios])
        right.append(h_phi * factorial / -h)
        factorial *= k + 1
        h_phi = h_phi / -h - 1 / factorial
    return [float(weight) for weight in np.linalg.solve(np.array(rows), np.array(right))]


def ancestral_step(sigma: float, sigma_next: float, *, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): go down to the first, add noise of the second, and the level is `sigma_next`."""
    if eta == 0 or sigma_next == 0:
        return sigma_next, 0.0
    sigma_up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


def _pairs(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(sigmas))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A row of the table. `automatic_schedule` is the label that "Automatic" stands for.

    `calls_per_step` counts model calls, to tell progress; the last step of a second-order sampler makes one.
    """

    label: str
    sample: SampleFunction
    aliases: tuple[str, ...] = ()
    automatic_schedule: str = "Uniform"
    default_eta: float = 0.0
    calls_per_step: int = 1


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        row.label: row
        for row in (
            Sampler(label="Euler a", sample=sample_euler_ancestral, aliases=("k_euler_a",), default_eta=1.0),
            Sampler(label="Euler", sample=sample_euler, aliases=("k_euler",)),
            Sampler(label="DPM++ 2M", sample=sample_dpmpp_2m, aliases=("k_dpmpp_2m",), automatic_schedule="Karras"),
            Sampler(
                label="DPM++ 2M SDE",
                sample=sample_dpmpp_2m_sde,
                aliases=("k_dpmpp_2m_sde",),
                automatic_schedule="Exponential",
                default_eta=1.0,
            ),
            Sampler(label="Heun", sample=sample_heun, aliases=("k_heun",), calls_per_step=2),
            Sampler(label="DDIM", sample=sample_ddim, aliases=("ddim",), automatic_schedule="DDIM"),
            Sampler(label="UniPC", sample=sample_unipc, aliases=("unipc",)),
            Sampler(label="LCM", sample=sample_lcm, aliases=("k_lcm",), automatic_schedule="SGM Uniform"),
        )
    }
)


def find_sampler(name: str) -> Sampler:
    """The row with this label or alias, whatever the case. Raises InvalidRequest with close matches."""
    wanted = name.strip().lower()
    for row in SAMPLERS.values():
        if wanted in (row.label.lower(), *(alias.lower() for alias in row.aliases)):
            return row
    close = get_close_matches(name, SAMPLERS, cutoff=0.4) or list(SAMPLERS)
    raise InvalidRequest("sampler", f"There is no sampler '{name}'.", hint=f"Use one of: {', '.join(close)}.")


def num_model_calls(sampler: Sampler, num_steps: int) -> int:
    """How often `denoise` is called over `num_steps` steps that end at sigma 0."""
    return num_steps if sampler.calls_per_step == 1 else sampler.calls_per_step * num_steps - 1

"""How the learning rate goes over a run: factors of the rate that was asked for. Imports no torch: the page draws it.

A new schedule is one function and one row; each takes the progress after the warm-up, 0 to 1, and the restarts.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from webui.training.config import Optimizer, RateSchedule


def _constant(progress: float, num_restarts: int) -> float:
    return 1.0


def _linear(progress: float, num_restarts: int) -> float:
    return 1.0 - progress


def _cosine(progress: float, num_restarts: int) -> float:
    """Source: Loshchilov & Hutter 2017, arXiv:1608.03983."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _cosine_with_restarts(progress: float, num_restarts: int) -> float:
    """`num_restarts` + 1 falls of equal length, each from the top."""
    if progress >= 1.0:
        return 0.0
    return _cosine(progress * (num_restarts + 1) % 1.0, 0)


SCHEDULES: Mapping[RateSchedule, Callable[[float, int], float]] = MappingProxyType(
    {"constant": _constant, "cosine": _cosine, "linear": _linear, "cosine with restarts": _cosine_with_restarts}
)


def warmup_steps(settings: Optimizer, num_steps: int) -> int:
    return round(settings.warmup * num_steps)


def rate_factor(settings: Optimizer, step: int, num_steps: int) -> float:
    """Factor for update `step`, 0 to num_steps - 1: rises linearly to 1 in the warm-up, then as the schedule says."""
    rising = warmup_steps(settings, num_steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, num_steps - rising)
    return SCHEDULES[settings.schedule](min(1.0, progress), settings.num_restarts)

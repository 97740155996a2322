"""The model as samplers see it: a guess of the clean latent at a noise level, guided by the prompts."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.errors import OutOfDeviceMemory
from webui.library.families import PredictionType
from webui.pipeline.conditioning import Condition, Guidance, stack
from webui.pipeline.device import Device, is_out_of_memory
from webui.pipeline.schedules import NoiseLevels

Network = Callable[[Tensor, float, Condition], Tensor]
"""(rows, C, h, w) input, timestep, as many rows of conditions -> prediction of the input's shape."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentBlend:
    """Inpainting: outside the mask every guess is replaced by `original` (1 or B, C, h, w).

    `mask` (h, w) is 1 where something new is made. Blending the guess rather than x keeps both sides at one noise
    level, so that no seam appears.
    """

    original: Tensor
    mask: Tensor

    def __call__(self, denoised: Tensor) -> Tensor:
        return self.original + (denoised - self.original) * self.mask


class Denoiser:
    """`denoise(x, sigma)` for the samplers. `before_call` may raise to stop the run."""

    def __init__(
        self,
        network: Network,
        device: Device,
        levels: NoiseLevels,
        prediction_type: PredictionType,
        guidance: Guidance,
        *,
        blend: LatentBlend | None = None,
        before_call: Callable[[], None] = lambda: None,
    ) -> None:
        self._network = network
        self._device = device
        self._levels = levels
        self._prediction_type = prediction_type
        self._guidance = guidance
        self._blend = blend
        self._before_call = before_call
        self._rows_at_once: int | None = None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """`x` (B, C, h, w) float32 at noise level `sigma` -> the guided clean latent, float32."""
        self._before_call()
        scaled = x / math.sqrt(sigma**2 + 1)
        predicted = self._guided(scaled, self._levels.timestep_at(sigma))
        denoised = to_denoised(predicted, x, sigma, self._prediction_type)
        return self._blend(denoised) if self._blend else denoised

    def _guided(self, x: Tensor, timestep: float) -> Tensor:
        """Source of the sum: `Guidance`. The condition that is told most goes first through the network."""
        conditions = [condition.rows(len(x)) for condition in reversed(self._guidance.conditions)]
        if all(condition.fits(conditions[0]) for condition in conditions):
            together = self._run(torch.cat([x] * len(conditions)), timestep, stack(conditions))
            predictions = list(together.chunk(len(conditions)))
        else:
            predictions = [self._run(x, timestep, condition) for condition in conditions]
        guided = predictions.pop()
        less = guided
        for scale in self._guidance.scales:
            more = predictions.pop()
            guided = guided + (more - less) * scale
            less = more
        return guided

    def _run(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """All rows at once where memory allows; after an out-of-memory error, half as many, down to one."""
        while True:
            rows = self._rows_at_once or len(x)
            try:
                starts = range(0, len(x), rows)
                parts = [
                    self._network(x[start : start + rows], timestep, condition.part(start, start + rows))
                    for start in starts
                ]
                return torch.cat(parts)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._device.free_memory()
                if rows == 1:
                    raise OutOfDeviceMemory(
                        f"A picture of {x.shape[-1] * 8} x {x.shape[-2] * 8} does not fit into the device's memory.",
                        hint="Use a smaller size, or for inpainting 'Only masked'.",
                    ) from error
                self._rows_at_once = rows // 2


def to_denoised(predicted: Tensor, x: Tensor, sigma: float, prediction_type: PredictionType) -> Tensor:
    """The clean latent that a prediction stands for, x being clean + sigma * noise.

    epsilon: the noise. v: Salimans & Ho 2022, arXiv:2202.00512, in variance-exploding terms. sample: itself.
    """
    if prediction_type == "epsilon":
        return x - predicted * sigma
    if prediction_type == "v_prediction":
        return x / (sigma**2 + 1) - predicted * (sigma / math.sqrt(sigma**2 + 1))
    return predicted

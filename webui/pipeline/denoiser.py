"""The model as samplers see it: a guess of the clean latent at a noise level, guided by the prompts."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.errors import OutOfDeviceMemory
from webui.pipeline.device import Device, is_out_of_memory
from webui.pipeline.model import PredictionType
from webui.pipeline.schedules import NoiseLevels

Network = Callable[[Tensor, float, Tensor], Tensor]
"""(rows, C, h, w) input, timestep, (rows, tokens, width) context -> prediction of the input's shape."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guidance:
    """Classifier-free guidance: uncond + scale * (cond - uncond). Source: Ho & Salimans 2022, arXiv:2207.12598.

    `cond` and `uncond` are (1, tokens, width); their lengths may differ. Scale 1 needs no `uncond`.
    """

    cond: Tensor
    uncond: Tensor
    scale: float


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
        guidance = self._guidance
        if guidance.scale == 1.0:
            return self._run(x, timestep, guidance.cond.expand(len(x), -1, -1))
        contexts = [context.expand(len(x), -1, -1) for context in (guidance.cond, guidance.uncond)]
        if contexts[0].shape == contexts[1].shape:
            cond, uncond = self._run(torch.cat([x, x]), timestep, torch.cat(contexts)).chunk(2)
        else:
            cond, uncond = (self._run(x, timestep, context) for context in contexts)
        return uncond + (cond - uncond) * guidance.scale

    def _run(self, x: Tensor, timestep: float, context: Tensor) -> Tensor:
        """All rows at once where memory allows; after an out-of-memory error, half as many, down to one."""
        while True:
            rows = self._rows_at_once or len(x)
            try:
                parts = zip(torch.split(x, rows), torch.split(context, rows), strict=True)
                return torch.cat([self._network(part, timestep, its_context) for part, its_context in parts])
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

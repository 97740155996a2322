"""Repainting part of a finished picture with the request's own checkpoint, adapters and prompt. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from PIL import Image

from webui.generation.request import GenerationRequest, Inpaint, MaskSpec, Sampling

T = TypeVar("T")

Paint = Callable[[GenerationRequest, Callable[[str], None]], Image.Image]
"""Makes the one picture of a request and saves nothing; the function is told how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrawing:
    """`postprocess.Redraw` for one picture of `request`, made with `seed`."""

    request: GenerationRequest
    seed: int
    paint: Paint
    say: Callable[[str], None]

    def __call__(
        self,
        image: Image.Image,
        mask: Image.Image,
        *,
        strength: float,
        width: int | None = None,
        height: int | None = None,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        padding_px: int = 32,
        blur_px: int = 4,
        seed: int | None = None,
    ) -> Image.Image:
        request, sampling = self.request, self.request.sampling
        spec = MaskSpec(image=mask, blur_px=blur_px, area="masked", padding_px=padding_px)
        asked = replace(
            request,
            prompt=_given(prompt, request.prompt),
            negative_prompt=_given(negative_prompt, request.negative_prompt),
            width=_given(width, request.width),
            height=_given(height, request.height),
            num_batches=1,
            batch_size=1,
            seed=_given(seed, self.seed),
            sampling=_sampling(sampling, num_inference_steps, guidance_scale),
            init=Inpaint(image=image, mask=spec, strength=strength),
            postprocess=(),
        )
        return self.paint(asked, self.say)


def _sampling(sampling: Sampling, num_inference_steps: int | None, guidance_scale: float | None) -> Sampling:
    return replace(
        sampling,
        num_inference_steps=_given(num_inference_steps, sampling.num_inference_steps),
        guidance_scale=_given(guidance_scale, sampling.guidance_scale),
    )


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value

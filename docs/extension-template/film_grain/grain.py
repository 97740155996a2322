"""The grain itself, and the step that puts it on finished pictures."""

from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from webui.hooks import Badge, GenerationRequest, InvalidRequest, PostprocessContext, Processed

LARGEST_GRAIN_PX = 8.0


class Params(BaseModel):
    """Drawn on the page, sent by clients of the API, written into the picture and read back from it."""

    model_config = ConfigDict(frozen=True)

    amount: float = Field(default=0.15, ge=0.0, le=1.0, title="Amount", description="0 changes nothing.")
    size_px: float = Field(default=1.5, ge=1.0, le=20.0, title="Size", description="Of a grain, in pixels.")
    colored: bool = Field(default=False, title="Coloured")


class FilmGrain:
    """A postprocessor: an object with an id, a title, a model of its parameters, `check` and a call."""

    id = "film_grain"
    title = "Film grain"
    params_model = Params

    def check(self, params: Params, request: GenerationRequest) -> None:
        """Before the job is queued, so that nobody waits for what cannot run."""
        if params.size_px > LARGEST_GRAIN_PX:
            raise InvalidRequest(
                "size_px",
                f"Grains of {params.size_px:g} pixels look like stains.",
                hint=f"Use {LARGEST_GRAIN_PX:g} or less.",
            )

    def __call__(self, image: Image.Image, params: Params, context: PostprocessContext) -> Processed:
        context.report("adding grain")
        context.check()
        grainy = add_grain(image, params, seed=context.seed)
        change = float(np.abs(np.asarray(grainy, dtype=np.int16) - np.asarray(image)).mean())
        return Processed(
            image=grainy,
            fields={"Film grain mean change": f"{change:.2f}"},
            badge=Badge(text="grain", title=f"Changed by {change:.2f} of 255 levels in the mean."),
            details={"mean_change": change},
        )


def add_grain(image: Image.Image, params: Params, *, seed: int) -> Image.Image:
    """`image` (RGB) with noise that is strongest in the middle tones. The same seed gives the same grain."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    noise = _noise(image.size, params, np.random.default_rng(seed))
    strongest_in_the_middle = 4 * pixels * (1 - pixels)
    grainy = pixels + params.amount * noise * strongest_in_the_middle
    return Image.fromarray((grainy.clip(0, 1) * 255).round().astype(np.uint8))


def _noise(size: tuple[int, int], params: Params, rng: np.random.Generator) -> Any:
    """(height, width, 1 or 3) float32, about -1 to 1."""
    width, height = size
    shape = max(round(height / params.size_px), 1), max(round(width / params.size_px), 1)
    planes = []
    for _ in range(3 if params.colored else 1):
        small = Image.fromarray(rng.normal(0, 0.5, shape).astype(np.float32))
        planes.append(np.asarray(small.resize(size, Image.Resampling.BICUBIC)))
    return np.stack(planes, axis=-1)

"""Postprocessors and stage hooks made of functions, for tests that need no extension on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from webui.generation.postprocess import Moment, Picture, PostprocessContext, Postprocessor, Processed
from webui.generation.request import GenerationRequest

Run = Callable[[Image.Image, Any, PostprocessContext], Processed]


class Nothing(BaseModel):
    """Parameters of a step that has none."""

    model_config = ConfigDict(frozen=True)


class Amount(BaseModel):
    model_config = ConfigDict(frozen=True)

    amount: int = Field(default=50, ge=0, le=255)
    words: str = Field(default="", title="Words (any)")
    face: Picture = ""
    faces: tuple[Picture, ...] = ()


def brighten(image: Image.Image, params: Amount, context: PostprocessContext) -> Processed:
    """Adds `amount` to every level."""
    return Processed(image=image.point(lambda level: min(level + params.amount, 255)))


def invert(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
    return Processed(image=ImageOps.invert(image))


@dataclass(kw_only=True)
class Step:
    """A postprocessor that does what `run` does."""

    id: str = "brighten"
    title: str = "Brighten"
    params_model: type[BaseModel] = Amount
    run: Run = brighten
    checked: Callable[[Any, GenerationRequest], None] = lambda params, request: None

    def check(self, params: Any, request: GenerationRequest) -> None:
        self.checked(params, request)

    def __call__(self, image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        return self.run(image, params, context)


@dataclass
class Added:
    """What a program with these steps and hooks has."""

    steps: Sequence[Postprocessor] = ()
    before: Callable[[Moment], list[str]] = lambda moment: []
    after: Callable[[Moment, Any], Any] = lambda moment, result: result
    notes: list[str] = field(default_factory=list)

    def postprocessors(self) -> Sequence[Postprocessor]:
        return self.steps

    def postprocessor(self, id: str) -> Postprocessor | None:
        return next((step for step in self.steps if step.id == id), None)

    def before_stage(self, moment: Moment) -> list[str]:
        return self.before(moment)

    def after_stage(self, moment: Moment, result: Any) -> tuple[Any, list[str]]:
        return self.after(moment, result), self.notes

"""Film grain: a small extension that uses every hook. Copy the folder, give it your name, keep the hooks you need.

Only light modules are imported here, as the program waits for it at every start. What takes time to import is imported
where it is used.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from webui.hooks import (
    Command,
    ExtensionContext,
    FaceReader,
    Moment,
    Postprocessor,
    Stage,
    SubjectMasker,
    Tab,
    hookimpl,
)

from .command import GRAIN
from .diary import Diary
from .grain import FilmGrain

if TYPE_CHECKING:
    from fastapi import APIRouter

SAVED: Stage = "save"


class Preferences(BaseModel):
    """What is set once, on the Extensions page; what is set per picture are the parameters in `grain.py`."""

    model_config = ConfigDict(frozen=True)

    keep_diary: bool = Field(default=False, title="Keep a diary", description="Writes down which pictures were saved.")


@cache
def diary_of(context: ExtensionContext) -> Diary:
    """One per program: `context` is the same in every call, so nothing has to be global."""
    return Diary(context.data_dir / "diary.txt")


@hookimpl
def settings_model() -> type[BaseModel]:
    return Preferences


@hookimpl
def load(context: ExtensionContext) -> None:
    diary_of(context).say("started")


@hookimpl
def postprocessors() -> Sequence[Postprocessor]:
    return [FilmGrain()]


@hookimpl
def tabs(context: ExtensionContext) -> Sequence[Tab]:
    def build() -> None:
        import gradio as gr

        shown = gr.Textbox(label="Diary", lines=12, interactive=False)
        gr.Button("Look again").click(diary_of(context).text, outputs=shown)

    return [Tab(id="diary", label="Film grain", build=build)]


@hookimpl
def routes(context: ExtensionContext) -> "APIRouter":
    from fastapi import APIRouter

    router = APIRouter()

    @router.get("/diary")
    def diary() -> dict[str, list[str]]:
        return {"lines": diary_of(context).text().splitlines()}

    return router


@hookimpl
def commands() -> Sequence[Command]:
    return [GRAIN]


@hookimpl
def face_reader() -> FaceReader | None:
    """Who knows faces returns an object with `same_person` and `read`."""
    return None


@hookimpl
def subject_maskers() -> Sequence[SubjectMasker]:
    """Who tells subjects from backgrounds returns values with `id`, `label` and `mask`."""
    return []


@hookimpl
def before_stage(moment: Moment) -> str | None:
    """Tells the user, once per job, what may surprise."""
    if moment.stage == "encode" and moment.request.image_format == "jpeg" and _has_grain(moment):
        return "JPEG files of grainy pictures are large."
    return None


@hookimpl
def after_stage(moment: Moment, result: Any, context: ExtensionContext) -> Any:
    """Returns nothing, so `result` stays as it is."""
    if moment.stage == SAVED and context.settings().keep_diary and moment.path is not None:
        grain = " with grain" if _has_grain(moment) else ""
        diary_of(context).say(f"saved {moment.path.name}{grain}")


@hookimpl
def unload(context: ExtensionContext) -> None:
    diary_of(context).say("ended")


def _has_grain(moment: Moment) -> bool:
    return any(step.id == FilmGrain.id for step in moment.request.postprocess)

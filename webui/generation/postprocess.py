"""What happens to a finished picture before it is saved: the steps that a request names, and what they may use.

A postprocessor is a callable with parameters; extensions bring them (see `webui.hooks`). Imports no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from PIL import Image
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from webui.generation.request import GenerationRequest

Stage = Literal["encode", "denoise", "decode", "postprocess", "save"]
"""What a generation goes through: "denoise" and "decode" once per batch, "postprocess" and "save" once per picture."""
STAGES: tuple[Stage, ...] = ("encode", "denoise", "decode", "postprocess", "save")

Tone = Literal["good", "plain", "warn"]

PICTURE_MARK = "atelier_picture"

Picture = Annotated[str, Field(json_schema_extra={PICTURE_MARK: True})]
"""Type of a parameter that is a picture of the user: the name that the program keeps it by, "" for none.

`Picture` and `tuple[Picture, ...]` are drawn as upload fields; `PostprocessContext.picture` gives the pixels.
"""


PERSONAL_MARK = "personal"
"""`json_schema_extra={"personal": True}`: a person's answer, such as a consent, and no setting of a picture.

It goes into the job, but neither into the picture nor out of one: nobody gives it by dropping a picture on the page.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessStep:
    """Runs the postprocessor `id` with `params`, JSON values of its `Params` model; those left out have defaults."""

    id: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A short `text` that lies on the picture in the gallery; `title` says more when pointed at."""

    text: str
    tone: Tone = "plain"
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """What a postprocessor gives back.

    `image` may be the very picture it got. `fields` go into the infotext (key: letters, digits, space, "-", "/"),
    `notes` are told to the user, `is_composite` marks the file as a composite with generated parts (IPTC
    DigitalSourceType compositeWithTrainedAlgorithmicMedia). `details` is JSON for programs.
    """

    image: Image.Image
    fields: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    badge: Badge | None = None
    is_composite: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


class Redraw(Protocol):
    """Repaints what is white in `mask` with the request's checkpoint and returns the whole picture.

    `image` RGB, `mask` "L" of its size. Only the mask's surroundings (`padding_px`) go through the model, at
    `width` x `height` (multiples of 8); None takes the request's value. Outside the blurred mask no pixel changes.
    Runs on the worker; raises JobInterrupted, ImageSkipped, OutOfDeviceMemory.
    """

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
    ) -> Image.Image: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessContext:
    """What a postprocessor may use for picture `index` (0-based) of `request`, made with `seed`.

    `source` is the picture the request started from, in full resolution (RGB); None for txt2img.
    """

    request: "GenerationRequest"
    index: int
    seed: int
    source: Image.Image | None
    picture: Callable[[str], Image.Image]
    """The RGB pixels of a `Picture` parameter. Raises StorageError if they are gone."""
    redraw: Redraw
    report: Callable[[str], None]
    """Says in a few words what is being done."""
    check: Callable[[], None]
    """Raises if the user has interrupted the job; call it every second or so."""


class Postprocessor(Protocol):
    """One per extension and id; called on the worker's thread only, `check` from any thread."""

    @property
    def id(self) -> str:
        """Unique, lower case, such as "face_consistency"; stored in jobs and pictures."""

    @property
    def title(self) -> str:
        """For people, and the key by which `alwayson_scripts` and infotexts name it."""

    @property
    def params_model(self) -> type[BaseModel]:
        """Frozen model with a default for every field; drawn on the page, accepted by the command line."""

    def check(self, params: Any, request: "GenerationRequest") -> None:
        """Before the job is queued: raises InvalidRequest (field: one of `params_model`) for what cannot run."""

    def __call__(self, image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        """`image` RGB. An error gives the user the unprocessed picture with a note, so nothing is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a generation is: pictures `indices` of `request`; `path` of a saved picture after "save"."""

    stage: Stage
    request: "GenerationRequest"
    indices: tuple[int, ...]
    path: Path | None = None


class Additions(Protocol):
    """What extensions add to a generation. Never raises but JobInterrupted, ImageSkipped and OutOfDeviceMemory."""

    def postprocessors(self) -> Sequence[Postprocessor]:
        """All of running extensions, in the order in which they are shown."""

    def postprocessor(self, id: str) -> Postprocessor | None:
        """None if no running extension has it."""

    def before_stage(self, moment: Moment) -> list[str]:
        """Returns notes for the user."""

    def after_stage(self, moment: Moment, result: Any) -> tuple[Any, list[str]]:
        """`result` or what an extension puts in its place, and notes.

        `webui.hooks` says what is the result of which stage; what is put in its place is checked to be alike.
        """


class NoAdditions:
    """A program without extensions."""

    def postprocessors(self) -> Sequence[Postprocessor]:
        return ()

    def postprocessor(self, id: str) -> Postprocessor | None:
        return None

    def before_stage(self, moment: Moment) -> list[str]:
        return []

    def after_stage(self, moment: Moment, result: Any) -> tuple[Any, list[str]]:
        return result, []


NO_ADDITIONS: Additions = NoAdditions()

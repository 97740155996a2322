"""What a generation reports beyond the common job events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from webui.generation.postprocess import Badge
from webui.jobs.events import JobEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPreview(JobEvent):
    """A small JPEG of what the model expects the picture to become (x0). At most 4 a second."""

    durable: ClassVar[bool] = False
    jpeg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady(JobEvent):
    """Picture `index` (0-based) of the job is saved at `path`; `infotext` is its full `parameters` text.

    `details` are what postprocessors say to programs, by their id.
    """

    index: int
    path: str
    seed: int
    infotext: str
    badges: tuple[Badge, ...] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(JobEvent):
    """Something the user should know about the result, such as an adapter that was not found."""

    message: str


GENERATION_EVENTS: tuple[type[JobEvent], ...] = (StepPreview, ImageReady, Note)

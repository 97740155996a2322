"""What a download reports."""

from dataclasses import dataclass
from typing import ClassVar

from webui.jobs.events import JobEvent
from webui.library.events import ModelSaved


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFound(JobEvent):
    """The site has the model. `size` in bytes, if known."""

    title: str
    size: int | None
    num_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress(JobEvent):
    """Bytes of the whole model. At most 4 a second."""

    durable: ClassVar[bool] = False
    done: int
    total: int | None
    bytes_per_s: float
    seconds_left: float | None


DOWNLOAD_EVENTS: tuple[type[JobEvent], ...] = (DownloadFound, DownloadProgress, ModelSaved)

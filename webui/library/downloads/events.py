"""What a download reports."""

from dataclasses import dataclass
from typing import ClassVar

from webui.jobs.events import JobEvent


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSaved(JobEvent):
    """The model is at `path`. `already_there`: and was, before this download. `sha256` is "" for a folder."""

    path: str
    kind: str
    family: str
    size: int
    sha256: str
    already_there: bool


DOWNLOAD_EVENTS: tuple[type[JobEvent], ...] = (DownloadFound, DownloadProgress, ModelSaved)

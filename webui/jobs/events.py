"""What a job reports. Rooms above add their own events as further `JobEvent` classes."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Base of all events. `durable` events survive a restart; of the others only the latest of each kind is kept."""

    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(JobEvent):
    """`position` 0 is the next to run."""

    durable: ClassVar[bool] = False
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(JobEvent):
    """The worker has taken the job; also after a restart, when the job starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(JobEvent):
    """`step` of `num_steps` over the whole job; `label` says what is going on, such as "loading model"."""

    durable: ClassVar[bool] = False
    step: int
    num_steps: int
    label: str = ""
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(JobEvent):
    """The job has done all it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(JobEvent):
    """`message` and `hint` as in WebUIError."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(JobEvent):
    """Stopped by its owner: before it started, or interrupted while it ran (what was finished is kept)."""

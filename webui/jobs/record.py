"""What a job is to those who look at it from outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job at one moment. `payload` is a copy; `created_at` is seconds since 1970."""

    id: str
    kind: str
    owner: str
    state: JobState
    payload: Mapping[str, Any]
    created_at: float
    position: int | None = None
    """Jobs that wait before it: 0 is the next to run. None if the job does not wait."""

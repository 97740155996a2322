"""What a training run tells: events of a job, and lines of a file that another process reads. Imports no torch."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO

from webui.errors import StorageError
from webui.jobs.codec import EventCodec
from webui.jobs.events import Failed, JobEvent, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated(JobEvent):
    """From one real step before the run: memory at its peak and time. `changes` is what was done to make it fit.

    Told again with `seconds_per_candidate` once the base was measured, from what that took; None where it is not known.
    """

    peak_bytes: int
    free_bytes: int
    seconds_per_step: float
    num_steps: int
    changes: tuple[str, ...] = ()
    num_candidates: int = 0
    seconds_per_candidate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReported(JobEvent):
    """Mean over the updates since the last one; `rates` are the learning rates by part of the network.

    `seconds_left` counts the candidates and states that are to come; None where nothing is known of those.
    """

    durable: ClassVar[bool] = False
    """The run's folder has them all."""
    step: int
    num_steps: int
    loss: float
    gradient_norm: float
    rates: Mapping[str, float]
    seconds_per_step: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReported(JobEvent):
    """Errors on the fixed set of photos, levels and noises. `bands` are means per range of noise levels."""

    step: int
    train: float
    held_out: float | None
    base_train: float
    base_held_out: float | None
    bands: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReady(JobEvent):
    """A picture at `path`; `likeness` and `prompt_following` where they were measured."""

    step: int
    weight: float
    prompt: str
    seed: int
    path: str
    likeness: float | None = None
    prompt_following: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSaved(JobEvent):
    """The network as it was after `step` updates."""

    step: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingNote(JobEvent):
    """Something that the user should know; `kind` "warning" where something may be wrong."""

    text: str
    kind: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(JobEvent):
    """The run stands still after `step` updates and can go on from there."""

    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFinished(JobEvent):
    """`adapter` is the file that came out; `best_weight` the weight it is recommended with."""

    adapter: str
    best_step: int
    best_weight: float
    run_dir: str
    validation: Mapping[str, Any] = field(default_factory=dict)


TRAINING_EVENTS: tuple[type[JobEvent], ...] = (
    Estimated,
    LossReported,
    ValidationReported,
    SampleReady,
    CandidateSaved,
    TrainingNote,
    Paused,
    TrainingFinished,
)


class EventLines:
    """Events as lines of JSON: `{"event": NAME, ...}`, in a file that is added to and, if given, a stream."""

    shown: ClassVar[tuple[type[JobEvent], ...]] = (Progress,)
    """Told to the stream alone: the file would grow with every step."""

    def __init__(self, path: Path | None, stream: TextIO | None = None) -> None:
        self._path = path
        self._stream = stream
        self._codec = EventCodec(TRAINING_EVENTS)

    def __call__(self, event: JobEvent) -> None:
        """Raises StorageError if the file cannot be written; the stream has it then."""
        name, body = self._codec.encode(event)
        line = json.dumps({"event": name, **json.loads(body)}, ensure_ascii=False)
        if self._stream is not None:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except OSError:  # who listened was killed; the run still has to write its state
                self._stream = None
        if self._path is not None and not isinstance(event, self.shown):
            try:
                _append(self._path, f"{line}\n")
            except OSError as error:
                if isinstance(event, Failed):  # the same may be why it failed
                    return
                raise StorageError(
                    f"What happens could not be written to the run's folder ({error.strerror}).",
                    hint="Look whether the folder is there and the disk has room, then resume the run.",
                ) from error


def _append(path: Path, line: str) -> None:
    """A line of its own, also after one that was cut off."""
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(line.encode())


def parse_line(line: str, codec: EventCodec) -> JobEvent | None:
    """The event of a line; None for what is none, such as a line that was cut off when the process was ended."""
    try:
        values = json.loads(line)
        name = values.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return codec.decode(str(name), json.dumps(values))


def read_events(path: Path) -> Iterator[JobEvent]:
    """The events of a run so far, in order; none where the file is not there yet."""
    if not path.is_file():
        return
    codec = EventCodec(TRAINING_EVENTS)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            event = parse_line(line, codec)
            if event is not None:
                yield event

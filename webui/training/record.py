"""What a run's folder tells, read as it grows: each line of its events once, however many. Imports no torch."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webui.jobs.codec import EventCodec
from webui.jobs.events import Failed, JobEvent
from webui.training.events import (
    TRAINING_EVENTS,
    CandidateSaved,
    Estimated,
    Paused,
    SampleReady,
    TrainingFinished,
    TrainingNote,
    ValidationReported,
    parse_line,
)

MAX_KEPT = 200
"""Runs whose record is remembered."""
LOSS = '{"event": "LossReported"'
"""How most lines begin; they are read without a detour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A note, and how far the run was."""

    step: int
    text: str
    kind: str


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """A run so far. Where it went on from an earlier step, what is told again replaces what was told before."""

    step: int = 0
    num_steps: int = 0
    seconds_left: float | None = None
    losses: list[tuple[int, float, float, float]] = field(default_factory=list)
    """(step, loss, norm of the gradient, seconds per step)."""
    rates: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """(step, learning rates by part of the network)."""
    estimate: Estimated | None = None
    validations: dict[int, ValidationReported] = field(default_factory=dict)
    samples: dict[str, SampleReady] = field(default_factory=dict)
    candidates: dict[int, str] = field(default_factory=dict)
    notes: list[Noted] = field(default_factory=list)
    ending: Paused | Failed | TrainingFinished | None = None
    """How it ended the last time; None if it has gone on since."""
    finished: TrainingFinished | None = None
    """What came out last."""

    def add_loss(self, values: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what is none."""
        step = int(values["step"])
        point = (step, float(values["loss"]), float(values["gradient_norm"]), float(values["seconds_per_step"]))
        rates = {str(part): float(rate) for part, rate in values["rates"].items()}
        num_steps, left = int(values["num_steps"]), values["seconds_left"]
        seconds_left = None if left is None else float(left)
        while self.losses and self.losses[-1][0] >= step:
            self.losses.pop()
            self.rates.pop()
        self.losses.append(point)
        self.rates.append((step, rates))
        self.step, self.num_steps, self.seconds_left, self.ending = step, num_steps, seconds_left, None

    def add(self, event: JobEvent) -> None:
        match event:
            case Estimated():
                self.estimate, self.num_steps, self.ending = event, event.num_steps, None
            case ValidationReported(step=step):
                self.validations[step] = event
            case SampleReady(path=path):
                self.samples[path] = event
            case CandidateSaved(step=step, path=path):
                self.candidates[step] = path
            case TrainingNote(text=text, kind=kind):
                if not any(note.text == text for note in self.notes):
                    self.notes.append(Noted(step=self.step, text=text, kind=kind))
            case Paused(step=step, num_steps=num_steps):
                self.step, self.num_steps, self.ending = step, num_steps, event
            case TrainingFinished():
                self.ending = self.finished = event
            case Failed():
                self.ending = event


@dataclass(slots=True, kw_only=True)
class _Kept:
    record: RunRecord = field(default_factory=RunRecord)
    offset: int = 0
    inode: int = 0
    version: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class RunReader:
    """Records of runs by their file of events. Thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[Path, _Kept] = {}
        self._lock = threading.Lock()
        self._codec = EventCodec(TRAINING_EVENTS)

    @contextmanager
    def reading(self, events: Path) -> Iterator[tuple[RunRecord, str]]:
        """The record as it is now, which nobody changes meanwhile, and its version; an empty one without a file."""
        with self._lock:
            kept = self._kept.pop(events, None) or _Kept()
            self._kept[events] = kept
            while len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]
        with kept.lock:
            self._catch_up(kept, events)
            yield kept.record, f"{kept.version}.{kept.offset}"

    def _catch_up(self, kept: _Kept, events: Path) -> None:
        try:
            with events.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != kept.inode or status.st_size < kept.offset:
                    kept.record, kept.offset, kept.inode = RunRecord(), 0, status.st_ino
                    kept.version += 1
                file.seek(kept.offset)
                new = file.read(status.st_size - kept.offset)
        except OSError:
            if kept.offset:
                kept.record, kept.offset, kept.inode = RunRecord(), 0, 0
                kept.version += 1
            return
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be in the making
        for line in whole.decode("utf-8", errors="replace").splitlines():
            self._fold(kept.record, line)
        kept.offset += len(whole)

    def _fold(self, record: RunRecord, line: str) -> None:
        if line.startswith(LOSS):
            try:
                record.add_loss(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                return
        elif (event := parse_line(line, self._codec)) is not None:
            record.add(event)


def decimated(points: list[tuple[int, float, float, float]], most: int) -> list[tuple[int, float, float, float]]:
    """At most `most` points: means over equal stretches, at the step where each ends."""
    if len(points) <= most:
        return points
    found = []
    for i in range(most):
        part = points[i * len(points) // most : (i + 1) * len(points) // most]
        means = [sum(each[k] for each in part) / len(part) for k in (1, 2, 3)]
        found.append((part[-1][0], means[0], means[1], means[2]))
    return found

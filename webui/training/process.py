"""A training in a process of its own: started, listened to, paused, and ended with the program. Imports no torch.

The process has the device to itself while it runs, and takes nothing down with it. It watches its standard input, so
that it ends by itself when the program is killed.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO

from webui.errors import StorageError, WebUIError
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.codec import EventCodec
from webui.jobs.events import Failed, JobEvent, Progress
from webui.settings import CHECKOUT
from webui.training.alone import is_in_use
from webui.training.events import TRAINING_EVENTS, EventLines, TrainingFinished, TrainingNote, parse_line
from webui.training.folders import RunFolder

PAUSED = 3
"""Exit code of a run that stands still."""
WATCHED = "--watched"
"""Option of a process that ends when its standard input is closed."""
GRACE_S = 30.0
"""What a process has to write its state when the program is gone."""
PATIENCE_S = 600.0
"""What a process has to pause: a step, a picture and a state may take long."""
LOOK_EVERY_S = 0.2
TELL_EVERY_S = 0.5
"""Progress is told that often at most."""
KEPT_LINES = 5
MAX_LOG_BYTES = 1_000_000
NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""What `start_new_session` is on Windows."""

SIGNALS: Mapping[str, str] = MappingProxyType(
    {
        "SIGKILL": "Most likely the machine had no memory left.",
        "SIGSEGV": "A library or a driver crashed.",
        "SIGBUS": "A library crashed, or the disk is full.",
        "SIGABRT": "A library gave up.",
        "SIGILL": "A library does not fit this processor.",
    }
)

Report = Callable[[JobEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run for `folder`: a program and its arguments. `can_pause` with a file in the folder."""

    folder: RunFolder
    arguments: Sequence[str]
    can_pause: bool = True


def program(*arguments: str) -> tuple[str, ...]:
    """This program with a command of its own, as a process that ends with its parent."""
    return (sys.executable, "-m", "webui", *arguments, WATCHED)


def run_in_process(
    command: Command, *, report: Report, cancel: CancelToken, patience_s: float = PATIENCE_S
) -> TrainingFinished:
    """Tells `report` what the process tells. Raises JobInterrupted when it was paused, WebUIError when it failed.

    A second interrupt ends the process at once, as does one that has no effect for `patience_s`.
    """
    _wait_for_folder(command.folder, cancel)
    if command.can_pause:
        command.folder.pause.unlink(missing_ok=True)
    heard = _Heard(report)
    report(Progress(step=0, num_steps=0, label="starting"))
    with _started(command) as child:
        ended_by_us = _follow(child, command, heard, cancel, patience_s)
    if ended_by_us:
        raise JobInterrupted
    code = child.process.returncode
    if heard.failed is not None:
        raise WebUIError(heard.failed.message, hint=heard.failed.hint)
    if code == PAUSED:
        raise JobInterrupted
    if code == 0 and heard.finished is not None:
        return heard.finished
    problem = Failed(message=_how_it_ended(code), hint=_last_words(child.last_lines))
    with suppress(StorageError):  # its folder may be gone, or the disk full
        EventLines(command.folder.events)(problem)
    raise WebUIError(problem.message, hint=problem.hint)


@dataclass(frozen=True, slots=True, eq=False)
class _Child:
    process: subprocess.Popen[str]
    lines: "queue.Queue[str | None]"
    """Of its standard output; None is the end."""
    last_lines: "deque[str]"
    """Of its standard error."""


@dataclass(slots=True)
class _Heard:
    """What the process said so far."""

    report: Report
    failed: Failed | None = None
    finished: TrainingFinished | None = None
    _codec: EventCodec = field(default_factory=lambda: EventCodec(TRAINING_EVENTS))
    _label: str = ""
    _told_at: float = float("-inf")

    def __call__(self, line: str) -> None:
        event = parse_line(line, self._codec)
        match event:
            case None:
                return
            case Failed():
                self.failed = event
            case Progress():
                now = time.monotonic()
                if event.label != self._label or now - self._told_at >= TELL_EVERY_S:
                    self._label, self._told_at = event.label, now
                    self.report(event)
            case TrainingFinished():
                self.finished = event
                self.report(event)
            case _:
                self.report(event)


@contextmanager
def _started(command: Command) -> Iterator[_Child]:
    """The process, which is over when this is left."""
    try:
        process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a Ctrl+C in the terminal is for the program, which tells the process itself
            creationflags=NEW_GROUP,
        )
    except OSError as error:
        raise WebUIError(
            f"The training's process could not be started ({error.strerror}).", hint="The machine may be out of memory."
        ) from error
    child = _Child(process, queue.Queue(), deque(maxlen=KEPT_LINES))
    assert process.stdout is not None
    assert process.stderr is not None
    listeners = (
        threading.Thread(target=_listen, args=(process.stdout, child.lines), name="training events", daemon=True),
        threading.Thread(
            target=_keep, args=(process.stderr, child.last_lines, command.folder.log), name="training log", daemon=True
        ),
    )
    for listener in listeners:
        listener.start()
    try:
        yield child
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for listener in listeners:
            listener.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _listen(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _keep(stream: IO[str], last_lines: "deque[str]", log: Path) -> None:
    """The last lines in memory, and all of them in a file, unless that cannot be written."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.unlink()
    for line in stream:
        if line.strip():
            last_lines.append(line.strip())
        with suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(line)


def _follow(child: _Child, command: Command, heard: _Heard, cancel: CancelToken, patience_s: float) -> bool:
    """To the end of what the process says; whether it had to be ended."""
    deadline: float | None = None
    while True:
        if cancel.interrupted and deadline is None:
            deadline = time.monotonic() + patience_s
            if not command.can_pause:
                return True
            with suppress(OSError):
                command.folder.pause.touch()
        if deadline is not None and (cancel.insisted or time.monotonic() > deadline):
            if not cancel.insisted:
                heard.report(TrainingNote(text=_not_paused(patience_s), kind="warning"))
            return True
        try:
            line = child.lines.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            continue
        if line is None:
            child.process.wait()
            return False
        heard(line)


def _not_paused(patience_s: float) -> str:
    return f"The run did not pause within {patience_s:.0f} s and was ended; it goes on from the state before."


def _wait_for_folder(folder: RunFolder, cancel: CancelToken) -> None:
    """The process of a program that was killed may still be writing its state."""
    until = time.monotonic() + GRACE_S + LOOK_EVERY_S
    while is_in_use(folder.path) and time.monotonic() < until:
        cancel.check()
        time.sleep(LOOK_EVERY_S)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"The training's process ended without a word (exit code {code})."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"The training's process was ended by {name}. {SIGNALS.get(name, '')}".rstrip()


def _last_words(lines: Sequence[str]) -> str:
    if not lines:
        return "Resume it: it goes on from its last state."
    return f"It said last: {' / '.join(lines)}"


def end_with_parent(folder: RunFolder, *, descriptor: int = 0, grace_s: float = GRACE_S) -> None:
    """In the process: when the other end of its standard input is closed it pauses, and ends after `grace_s` anyway."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(descriptor, 1):  # not through sys.stdin, whose lock would be held at the end
                pass
        with suppress(OSError):
            folder.pause.touch()
        time.sleep(grace_s)
        os._exit(PAUSED)

    threading.Thread(target=watch, name="parent", daemon=True).start()

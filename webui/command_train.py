"""`launch.py train`: a run in this process, new or resumed, its config, or another candidate of it; and `training-run`
and `training-pick`, which the page starts.

Imports no torch: what trains is handed in.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Protocol, TextIO, get_args

from webui.errors import InvalidRequest, WebUIError
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import Failed, JobEvent, Progress
from webui.library.catalog import STARTER, Library
from webui.library.families import FAMILIES
from webui.training.alone import RunInUse
from webui.training.config import Method, TrainingConfig
from webui.training.config_file import config_text, read_config
from webui.training.events import (
    CandidateSaved,
    Estimated,
    EventLines,
    LossReported,
    Paused,
    TrainingFinished,
    TrainingNote,
    ValidationReported,
)
from webui.training.folders import RunFolder, new_run, run_to_pick_from, run_to_resume
from webui.training.presets import PRESETS, preset_config
from webui.training.process import PAUSED, WATCHED, end_with_parent
from webui.training.tensorboard import TensorBoardLog

EVENTS_PER_LINE = 20
"""Losses are written that seldom where no terminal shows a running line."""

log = logging.getLogger(__name__)


class Train(Protocol):
    """Runs what a folder describes; `webui.training.run.run_training` with the machine's parts given."""

    def __call__(
        self, run_dir: Path, *, report: Callable[[JobEvent], None], check: Callable[[], None]
    ) -> TrainingFinished: ...


class Pick(Protocol):
    """Makes another candidate the result; `webui.training.picking.pick` with the machine's parts given."""

    def __call__(
        self, run_dir: Path, step: int, weight: float | None, *, report: Callable[[JobEvent], None]
    ) -> TrainingFinished: ...


def add_train_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, metavar="CONFIG.toml", help="the run's settings")
    command.add_argument("--resume", action="store_true", help="go on with the latest run of these settings' name")
    command.add_argument(
        "--pick",
        type=_step_and_weight,
        metavar="STEP[:WEIGHT]",
        help="instead of training, take another candidate of the latest run as what comes out",
    )
    new = command.add_argument_group("writing a config instead of training")
    new.add_argument("--new", action="store_true", help="write CONFIG.toml, complete and with comments")
    new.add_argument("--photos", type=Path, help="folder or zip of photos")
    new.add_argument("--trigger", default="", help="word that calls the subject up")
    new.add_argument("--class-word", default="", help='what the subject is: "woman", "dog", "style"')
    new.add_argument("--method", choices=get_args(Method), default="lora", help="what is trained (lora)")
    new.add_argument("--base", default=STARTER, metavar="CHECKPOINT", help=f"checkpoint to train on ({STARTER})")
    new.add_argument("--preset", choices=PRESETS, default="person-small", help="where to start from (person-small)")
    new.add_argument("--name", help="of what comes out (the config's file name)")


def add_watched_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(WATCHED, action="store_true", help="end when the standard input is closed")


def add_pick_options(command: argparse.ArgumentParser) -> None:
    add_watched_option(command)
    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run")
    command.add_argument("step", type=int, metavar="STEP", help="candidate to take")
    command.add_argument("weight", type=float, nargs="?", metavar="WEIGHT", help="to recommend it at (its best one)")


def _step_and_weight(text: str) -> tuple[int, float | None]:
    step, colon, weight = text.partition(":")
    try:
        return int(step), float(weight) if colon else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not STEP or STEP:WEIGHT, such as 800:0.8") from error


def write_new_config(options: argparse.Namespace, library: Library) -> Path:
    """The file of `train --new`. Raises InvalidRequest rather than replace one that is there."""
    path: Path = options.config
    if options.photos is None:
        raise InvalidRequest("photos", "There are no photos to train on.", hint="Add --photos FOLDER.")
    if path.exists():
        raise InvalidRequest("config", f"{path} is there already.", hint="Choose another name, or remove it.")
    info = library.find_checkpoint(options.base)
    config = preset_config(
        options.preset,
        name=options.name or path.stem,
        photos=options.photos.expanduser().resolve(),
        base=options.base,
        adapter_base=FAMILIES[info.family].adapter_base,
        native_size=info.native_size,
        method=options.method,
        trigger=options.trigger,
        class_word=options.class_word,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config_text(config), encoding="utf-8")
    return path


def train_from_file(path: Path, runs_dir: Path, train: Train, *, resume: bool, stream: TextIO) -> int:
    """Runs or resumes; the last line on the standard output is JSON. Returns the exit code."""
    config = read_config(path)
    folder = _folder_for(config, runs_dir, resume=resume)
    lines, curves, shown = EventLines(folder.events), TensorBoardLog(folder.tensorboard), Shown(stream)

    def report(event: JobEvent) -> None:
        lines(event)
        curves(event)
        shown(event)

    stream.write(f"Run folder: {folder.path}\n")
    with interruptible(folder) as check:
        try:
            finished = train(folder.path, report=report, check=check)
        except JobInterrupted:
            shown.close()
            stream.write(f"Paused. Go on with: python launch.py train {path} --resume\n")
            return PAUSED
        except WebUIError as error:
            if not isinstance(error, RunInUse):
                lines(Failed(message=error.message, hint=error.hint))
            raise
        finally:
            shown.close()
    sys.stdout.write(f"{json.dumps(_summary(finished), ensure_ascii=False)}\n")
    return 0


def pick_from_file(path: Path, runs_dir: Path, pick: Pick, wanted: tuple[int, float | None], stream: TextIO) -> int:
    """Takes another candidate of the latest run; the last line on the standard output is JSON."""
    folder, shown = run_to_pick_from(runs_dir, read_config(path).name), Shown(stream)
    lines = EventLines(folder.events)

    def report(event: JobEvent) -> None:
        lines(event)
        shown(event)

    try:
        finished = pick(folder.path, *wanted, report=report)
    finally:
        shown.close()
    sys.stdout.write(f"{json.dumps(_summary(finished), ensure_ascii=False)}\n")
    return 0


def _folder_for(config: TrainingConfig, runs_dir: Path, *, resume: bool) -> RunFolder:
    """A new folder, or the one to resume, with the settings as the file has them now."""
    if not resume:
        return new_run(runs_dir, config)
    folder = run_to_resume(runs_dir, config.name)
    folder.write_config(config)
    return folder


def _summary(finished: TrainingFinished) -> Mapping[str, object]:
    names = ("adapter", "best_step", "best_weight", "validation", "run_dir")
    values = asdict(finished)
    return {name: values[name] for name in names}


def train_folder(folder: RunFolder, train: Train, *, stream: TextIO, watched: bool = False) -> int:
    """What the page starts: the run of `folder`, telling every event as a line of JSON. Returns the exit code.

    `watched`: it ends with who started it, who may also have asked it to pause already.
    """
    lines, curves = EventLines(folder.events, stream), TensorBoardLog(folder.tensorboard)

    def report(event: JobEvent) -> None:
        lines(event)
        curves(event)

    if watched:
        end_with_parent(folder)
    with interruptible(folder, asked_before=watched) as check:
        try:
            return _told_as_lines(
                lambda: train(folder.path, report=report, check=check), lines, EventLines(None, stream)
            )
        except JobInterrupted:
            return PAUSED


def pick_in_folder(folder: RunFolder, pick: Pick, step: int, weight: float | None, *, stream: TextIO) -> int:
    """As `train_folder`, where the user prefers the candidate of `step`. A refusal is told to `stream` alone: the run
    is as it was."""
    report, refused = EventLines(folder.events, stream), EventLines(None, stream)
    return _told_as_lines(lambda: pick(folder.path, step, weight, report=report), refused, refused)


def _told_as_lines(
    work: Callable[[], object], failed: Callable[[JobEvent], None], in_use: Callable[[JobEvent], None]
) -> int:
    """Exit code of `work`, whose errors go to `failed`; that another process is at it, which is none, to `in_use`."""
    try:
        work()
    except RunInUse as error:
        in_use(Failed(message=error.message, hint=error.hint))
        return 2
    except WebUIError as error:
        failed(Failed(message=error.message, hint=error.hint))
        return 2
    except JobInterrupted:
        raise
    except Exception as error:
        log.exception("The training failed.")
        hint = "This is a fault of the program: its log has the details."
        failed(Failed(message=f"The training failed ({type(error).__name__}: {error}).", hint=hint))
        return 1
    return 0


@contextmanager
def interruptible(folder: RunFolder, *, asked_before: bool = False) -> Iterator[Callable[[], None]]:
    """Gives a `check` that raises JobInterrupted after Ctrl+C, SIGTERM, or once the folder's file `pause` is there.

    One from an earlier time does not count, unless `asked_before`. A second Ctrl+C ends the process at once.
    """
    if not asked_before:
        folder.pause.unlink(missing_ok=True)
    token = CancelToken()

    def stop(signum: int, frame: FrameType | None) -> None:
        if token.interrupted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        token.interrupt()

    def check() -> None:
        token.check()
        if folder.pause.exists():
            raise JobInterrupted

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield check
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Shown:
    """Events for people: over one line of a terminal, or a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._losses = 0

    def __call__(self, event: JobEvent) -> None:
        match event:
            case Progress() if self._live:
                self._stream.write(f"\r{event.label} {event.step}/{event.num_steps}{_left(event.seconds_left)}\x1b[K")
            case LossReported():
                self._losses += 1
                if not self._live and (self._losses % EVENTS_PER_LINE == 1 or event.step == event.num_steps):
                    self._line(_loss(event))
            case _:
                if text := told(event):
                    self._line(text)
        self._stream.flush()

    def _line(self, text: str) -> None:
        self._stream.write(f"\r{text}\x1b[K\n" if self._live else f"{text}\n")

    def close(self) -> None:
        """Leaves the line clean."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def told(event: JobEvent) -> str:
    """One line about an event; empty for what is not told in words."""
    match event:
        case TrainingNote():
            return f"Warning: {event.text}" if event.kind == "warning" else event.text
        case Estimated():
            return f"{_pace(event)}; {event.peak_bytes / 2**30:.1f} of {event.free_bytes / 2**30:.1f} GiB"
        case ValidationReported():
            trained = f"{event.train:.4f} (base {event.base_train:.4f}) on trained photos"
            if event.held_out is None or event.base_held_out is None:
                return f"Step {event.step}: error {trained}"
            held_out = f"{event.held_out:.4f} (base {event.base_held_out:.4f}) on those kept back"
            return f"Step {event.step}: error {trained}, {held_out}"
        case CandidateSaved():
            return f"Step {event.step}: saved {Path(event.path).name}"
        case Paused():
            return f"Paused after step {event.step} of {event.num_steps}"
        case TrainingFinished():
            return f"Best: step {event.best_step} at weight {event.best_weight:g}: {event.adapter}"
    return ""


def _pace(event: Estimated) -> str:
    pace = f"{event.num_steps} steps of {event.seconds_per_step:.2f} s"
    seconds = event.seconds_per_step * event.num_steps
    if event.seconds_per_candidate is None:
        uncounted = f" without measuring {event.num_candidates} candidates" if event.num_candidates else ""
        return f"{pace}, {seconds / 60:.0f} minutes{uncounted}"
    seconds += event.seconds_per_candidate * event.num_candidates
    pace += f", {event.num_candidates} candidates of {event.seconds_per_candidate:.1f} s to measure"
    return f"{pace}, {seconds / 60:.0f} minutes"


def _loss(event: LossReported) -> str:
    rates = ", ".join(f"{part} {rate:.2e}" for part, rate in event.rates.items())
    pace = f"{event.seconds_per_step:.2f} s per step{_left(event.seconds_left)}"
    return f"Step {event.step}/{event.num_steps}: loss {event.loss:.4f}, rate {rates}, {pace}"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"

"""`launch.py caption FOLDER` and `launch.py mask FOLDER`: what the Training tab's assistants do, without a page."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from webui.assisting import run_assistant
from webui.command_generate import CommandReport
from webui.errors import InvalidRequest
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import JobEvent
from webui.training.assistants.assist import AssistRequest
from webui.training.assistants.catalog import HOW_TO_GET, Assistants, Kind
from webui.training.assistants.events import Assisted
from webui.training.data.photo_set import PhotoSet, SetInfo

STOPPED = 130
"""Exit code after Ctrl+C: what is done stays."""
SOME_FAILED = 1


def add_caption_options(command: argparse.ArgumentParser) -> None:
    _common(command, "captioner")
    command.add_argument("--threshold", type=float, help="how likely a tag has to be, 0 to 1 (0.35)")
    command.add_argument("--character-threshold", type=float, help="the same for names of characters (0.85)")
    command.add_argument("--without", default="", metavar="TAGS", help="tags that are never written, with commas")
    command.add_argument("--prefix", default="", metavar="TEXT", help="what stands in front, such as the trigger word")


def add_mask_options(command: argparse.ArgumentParser) -> None:
    _common(command, "masker")
    command.add_argument("--threshold", type=float, help="from where on a pixel belongs to the subject, 0 to 1 (0.5)")
    command.add_argument("--grow", type=float, help="percent of the longer side, negative to shrink (1)")
    command.add_argument("--feather", type=float, help="percent of the longer side (1)")


def _common(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="folder or list of photos")
    command.add_argument("--with", dest="assistant", metavar="NAME", help=f"the {what}, as --list names it")
    command.add_argument(
        "--list", action="store_true", help=f"say which {what}s there are, and what is wrong with them"
    )
    command.add_argument("--overwrite", action="store_true", help="also where there is one already")
    command.add_argument("--json", action="store_true", help="print the outcome as one JSON line")


def request_of(options: argparse.Namespace, kind: Kind) -> AssistRequest:
    """Raises InvalidRequest that names the option."""
    if options.folder is None or not options.assistant:
        field = "folder" if options.folder is None else "with"
        raise InvalidRequest(field, f"--{field} is missing." if options.folder else "The folder is missing.")
    given = {name: getattr(options, name, None) for name in ("threshold", "character_threshold", "grow", "feather")}
    values = {name: value for name, value in given.items() if value is not None}
    without = [tag.strip() for tag in getattr(options, "without", "").split(",") if tag.strip()]
    try:
        return AssistRequest(
            assistant=options.assistant,
            kind=kind,
            overwrite=options.overwrite,
            without=tuple(without),
            prefix=getattr(options, "prefix", ""),
            **values,
        )
    except ValueError as error:
        name = next((name for name in values if name in str(error)), "options")
        raise InvalidRequest(name, f"--{name.replace('_', '-')} cannot be {values.get(name)}.") from error


def list_assistants(assistants: Assistants, kind: Kind, stream: TextIO) -> None:
    found = assistants.all(kind)
    for one in found:
        stream.write(f"{one.id}: {one.problem or one.about or one.name}\n")
    if not any(not one.problem for one in found):
        stream.write(f"{HOW_TO_GET}\n")


def assist_folder(folder: Path, request: AssistRequest, assistants: Assistants, *, as_json: bool) -> int:
    """Says what came out; the exit code. Raises WebUIError."""
    path = folder.expanduser().resolve()
    photos = PhotoSet(SetInfo(id="", name=path.name, source=path, own=False))
    shown = CommandReport(sys.stderr)
    ended: list[Assisted] = []

    def report(event: JobEvent) -> None:
        ended.extend([event] if isinstance(event, Assisted) else [])
        shown(event)

    code = 0
    with _interruptible() as check:
        try:
            run_assistant(request, photos, assistants, report=report, check=check)
        except JobInterrupted:
            code = STOPPED
        finally:
            shown.close()
    _say(ended[-1] if ended else Assisted(kind=request.kind, changed=0, kept=0), as_json=as_json)
    return code or (SOME_FAILED if ended and ended[-1].problems else 0)


def _say(done: Assisted, *, as_json: bool) -> None:
    if as_json:
        problems = [{"name": name, "sentence": sentence} for name, sentence in done.problems]
        told: Mapping[str, object] = {"changed": done.changed, "kept": done.kept, "problems": problems}
        sys.stdout.write(f"{json.dumps(told, ensure_ascii=False)}\n")
        return
    for name, sentence in done.problems:
        sys.stderr.write(f"{name}: {sentence}\n")
    what = "captions" if done.kind == "captions" else "masks"
    kept = f", {done.kept} kept" if done.kept else ""
    failed = f", {len(done.problems)} not made" if done.problems else ""
    sys.stdout.write(f"{done.changed} {what} written{kept}{failed}\n")


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Gives a `check` that raises JobInterrupted after Ctrl+C, so that the present photo is finished."""
    token = CancelToken()

    def stop(signum: int, frame: FrameType | None) -> None:
        if token.interrupted:
            raise KeyboardInterrupt
        token.interrupt()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield token.check
    finally:
        signal.signal(signal.SIGINT, before)

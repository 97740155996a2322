"""`models ACTION`: get, list, and the tools. A row of `ACTIONS` is a sub-command; what it needs is imported late."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from webui.command_generate import CommandReport
from webui.command_tools import TOOLS, request_of
from webui.jobs.events import JobEvent
from webui.library.downloads.amounts import amount, status_text
from webui.library.downloads.download import DownloadRequest
from webui.library.downloads.events import DownloadFound, DownloadProgress
from webui.library.downloads.placing import TARGETS
from webui.library.scan import ROOMS
from webui.library.tool_models import ToolModels
from webui.library.tool_progress import ToolReport
from webui.services import build_library, downloads_of
from webui.settings import Settings, load_settings

LINE_S = 5.0
"""Where no terminal shows a running line, progress is told so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """`run` gives the exit code, None for 0. `add_options` need not add --data-dir."""

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def add_actions(command: argparse.ArgumentParser) -> None:
    """The sub-commands of `models`."""
    actions = command.add_subparsers(title="what to do", metavar="ACTION", required=True)
    for name, action in ACTIONS.items():
        parser = actions.add_parser(name, help=action.summary, description=action.summary)
        # Also here, so that it may stand anywhere; without a default, which would hide what stood before.
        parser.add_argument("--data-dir", type=Path, default=argparse.SUPPRESS, help="as before the action")
        action.add_options(parser)
        parser.set_defaults(run=action.run, tool=name)


def _settings(options: argparse.Namespace) -> Settings:
    return load_settings(data_dir=options.data_dir)


def _get_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="owner/name of Hugging Face, a page of Civitai, or an address")
    parser.add_argument(
        "--to", default="", metavar="KIND|FOLDER", help=f"{', '.join(TARGETS)}, or a folder (default: by what it is)"
    )
    parser.add_argument("--name", default="", help="file name to give it (default: its own)")
    parser.add_argument("--fp16", action="store_true", help="half precision where both are offered")
    parser.add_argument(
        "--allow-pickle", action="store_true", help="also old formats (.ckpt, .pt, .pth, .bin), which can carry code"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def _get(options: argparse.Namespace) -> None:
    request = DownloadRequest(
        source=options.source,
        target=options.to,
        name=options.name,
        fp16=options.fp16,
        allow_pickle=options.allow_pickle,
    )
    report = DownloadReport(sys.stderr)
    saved = downloads_of(_settings(options), anywhere=True).get(request, report=report, check=lambda: None)
    report.close()
    _say(json.dumps(asdict(saved)) if options.json else saved.path)


class DownloadReport:
    """Writes progress over one line of a terminal; elsewhere a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._next_line = time.monotonic() + LINE_S

    def __call__(self, event: JobEvent) -> None:
        match event:
            case DownloadFound():
                size = "" if event.size is None else f", {amount(event.size, None)}"
                files = f", {event.num_files} files" if event.num_files > 1 else ""
                self._stream.write(f"{event.title}{files}{size}\n")
            case DownloadProgress() if self._live:
                self._stream.write(f"\r{status_text(event)}\x1b[K")
            case DownloadProgress() if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + LINE_S
                self._stream.write(f"{status_text(event)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leaves the line clean."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=list(ROOMS), help="only these")
    parser.add_argument("--json", action="store_true", help="print one JSON line per model")


def _list(options: argparse.Namespace) -> None:
    library = build_library(_settings(options))
    try:
        for kind in [options.kind] if options.kind else ROOMS:
            for file in library.files(kind):
                row = {
                    "kind": file.kind,
                    "name": file.name,
                    "family": file.facts.family,
                    "base": file.facts.adapter_base,
                    "size": file.stamp.size_bytes,
                    "path": str(file.path),
                    "problem": file.problem,
                }
                _say(json.dumps(row, ensure_ascii=False) if options.json else _line(row))
    finally:
        library.close()


def _line(row: Mapping[str, Any]) -> str:
    about = row["problem"] or row["family"] or row["base"]
    return f"{row['kind']:<12}  {amount(row['size'], None):>8}  {row['name']}{f'  ({about})' if about else ''}"


def _tool(options: argparse.Namespace) -> None:
    from webui.pipeline.tools.run import run_tool

    request = request_of(options)
    show = CommandReport(sys.stderr)
    library = build_library(_settings(options))
    try:
        path = run_tool(request, ToolModels(library=library, anywhere=True), report=ToolReport(request, show))
    finally:
        show.close()
        library.close()
    _say(str(path))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "get": Action(summary="fetch a model from the network", add_options=_get_options, run=_get),
        "list": Action(summary="list the models that are here", add_options=_list_options, run=_list),
        **{
            name: Action(summary=summary, add_options=add_options, run=_tool)
            for name, (summary, add_options) in TOOLS.items()
        },
    }
)

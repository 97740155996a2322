"""`launch.py face`: one picture or a folder of them, without the page. Loads a checkpoint only to refine."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from PIL import Image
from pydantic import ValidationError

from webui.hooks import (
    Command,
    CommandContext,
    ExtensionContext,
    Extras,
    GenerationRequest,
    InvalidRequest,
    PostprocessStep,
    Processed,
    UnreadableImage,
    WebUIError,
    flatten,
    open_image,
)

from .checking import check_faces
from .consent import NOT_GIVEN, TERMS
from .engine import Engine, engine_of
from .folder import Task, plan
from .params import FaceParams
from .process import improve_faces
from .report import processed_of
from .saving import encoded
from .sources import Given

OWN = frozenset({"consent", "photos", "reference", "other_person_consent"})
"""Parameters that have an option of their own, or another meaning here."""
DEFAULT_CHECKPOINT = "starter"
DEFAULT_SIDE_PX = 512


def face_command(context: ExtensionContext) -> Command:
    def run(options: argparse.Namespace, command: CommandContext) -> int:
        return run_face(options, command, context)

    return Command(name="face", add_options=add_options, run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", type=Path, action="append", metavar="PHOTO", help="shows the person; may be repeated"
    )
    parser.add_argument("--target", type=Path, required=True, metavar="PICTURE|FOLDER", help="what to change")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE|FOLDER", help="where the result goes")
    parser.add_argument("--consent", action="store_true", help="agree to the terms without being asked")
    parser.add_argument("--reference", type=Path, metavar="PHOTO", help="for --faces alike: whose face to change")
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help=f"for --refine ({DEFAULT_CHECKPOINT})")
    parser.add_argument("--prompt", default="", help="for --refine: what the picture shows")
    parser.add_argument("--seed", type=int, help="for --refine; random if not given")
    defaults = FaceParams()
    for name, info in FaceParams.model_fields.items():
        if name not in OWN:
            _add_option(parser, name, info.annotation, getattr(defaults, name), info.title or name)


def run_face(options: argparse.Namespace, command: CommandContext, context: ExtensionContext) -> int:
    """0 if every picture was written, changed or not; 1 if some of a folder could not be read."""
    engine = engine_of(context)
    sources: list[Path] = options.source or []
    tasks = plan(options.target, options.output, [*sources, *filter(None, [options.reference])])
    params = _params(options)
    names = tuple(str(path) for path in sources)
    asked = params.model_copy(update={"photos": names, "reference": str(options.reference or "")})
    check_faces(asked, engine, has_init=False, can_refine=True)
    _agree(options, engine)
    job = _Job(
        options=options,
        params=params,
        command=command,
        engine=engine,
        given=Given(
            photos=tuple(_opened(path, context) for path in sources),
            saved=engine.saved.read(params.saved_face) if params.saved_face else None,
            reference=_opened(options.reference, context) if options.reference else None,
        ),
        context=context,
    )
    if not options.target.is_dir():
        _write(json.dumps(job.made(tasks[0])))
        return 0
    failures = 0
    for task in tasks:
        try:
            line = job.made(task)
        except UnreadableImage as error:
            line, failures = {"error": str(error)}, failures + 1
        _write(json.dumps({"picture": task.target.name, **line}))
    return 1 if failures else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    options: argparse.Namespace
    params: FaceParams
    command: CommandContext
    engine: Engine
    given: Given
    context: ExtensionContext

    def made(self, task: Task) -> Mapping[str, Any]:
        """Writes the result of one picture; what there is to print of it."""
        image = _opened(task.target, self.context)
        processed = self._refined(image) if self.params.refine else self._processed(image, task.target.name)
        try:
            task.output.parent.mkdir(parents=True, exist_ok=True)
            if processed.is_composite or task.target.suffix.lower() != task.output.suffix.lower():
                is_changed = processed.is_composite
                data = encoded(processed.image, processed.fields, task.fmt, is_changed=is_changed, original=task.target)
                task.output.write_bytes(data)
            else:
                shutil.copyfile(task.target, task.output)
        except OSError as error:
            raise WebUIError(f"{task.output} could not be written: {error.strerror or error}.") from error
        return processed.details or {"faces": [], "reason": " ".join(processed.notes)}

    def _processed(self, image: Image.Image, name: str) -> Processed:
        outcome = improve_faces(image, self.params, given=self.given, engine=self.engine)
        processed = processed_of(outcome.image, outcome.faces, outcome.reason, outcome.notes)
        for note in processed.notes:
            _say(f"{name}: {note}\n")
        return processed

    def _refined(self, image: Image.Image) -> Processed:
        """The program itself tells the notes of what it runs."""
        keep, options = self.command.keep, self.options
        values = self.params.model_dump(mode="json")
        values |= {
            "consent": True,
            "photos": [keep(photo) for photo in self.given.photos],
            "reference": keep(self.given.reference) if self.given.reference else "",
        }
        request = GenerationRequest(
            checkpoint=options.checkpoint,
            prompt=options.prompt,
            seed=options.seed,
            width=DEFAULT_SIDE_PX,
            height=DEFAULT_SIDE_PX,
            init=Extras(image=image),
            postprocess=(PostprocessStep(id="face_consistency", params=values),),
        )
        return self.command.process(request)[0]


def _agree(options: argparse.Namespace, engine: Engine) -> None:
    """Once per machine: asked in a terminal; elsewhere, running the command is the answer, and the terms are shown."""
    if engine.consent.given():
        return
    if not options.consent:
        _say(f"{NOT_GIVEN} {TERMS}\n")
        if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
            _say("Do you agree? [y/N] ")
            if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
                raise WebUIError("Nothing was changed, as you did not agree.")
        else:
            _say("By running this command you agree. This is said once on this machine.\n")
    engine.consent.give()


def _params(options: argparse.Namespace) -> FaceParams:
    given = {
        name: getattr(options, name) for name in FaceParams.model_fields if name not in OWN and hasattr(options, name)
    }
    try:
        return FaceParams.model_validate({**given, "consent": True})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "?"
        raise InvalidRequest(name, f"--{name} {first['input']!r}: {first['msg']}.") from error


def _opened(path: Path, context: ExtensionContext) -> Image.Image:
    if not path.is_file():
        raise UnreadableImage(f"There is no file {path}.", hint="Check the path.")
    return flatten(open_image(path, max_pixels=context.max_image_pixels))


def _add_option(parser: argparse.ArgumentParser, name: str, annotation: Any, default: Any, title: str) -> None:
    option = f"--{name.replace('_', '-')}"
    shown = {None: "the picture's own", "": "none"}.get(default, default) if not isinstance(default, tuple) else default
    common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    if annotation is bool:
        state = "on" if default else "off"
        parser.add_argument(option, action=argparse.BooleanOptionalAction, help=f"{title.lower()} ({state})", **common)
    elif get_origin(annotation) is Literal:
        parser.add_argument(option, choices=get_args(annotation), help=f"{title.lower()} ({default})", **common)
    elif get_origin(annotation) is tuple:
        shown = " ".join(str(one) for one in default)
        parser.add_argument(option, type=int, nargs="+", metavar="N", help=f"{title.lower()} ({shown})", **common)
    else:
        kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
        metavar = {int: "N", float: "X", str: "TEXT"}[kinds[0]]
        parser.add_argument(option, type=kinds[0], metavar=metavar, help=f"{title.lower()} ({shown})", **common)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    """To people, not to programs."""
    sys.stderr.write(text)
    sys.stderr.flush()

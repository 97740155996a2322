"""Which pictures a command works on, and where each goes. Never lets a file be written over one that is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from webui.hooks import InvalidRequest

ImageFormat = Literal["png", "jpeg", "webp"]

FORMATS: Mapping[str, ImageFormat] = MappingProxyType({".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"})
READ = frozenset({*FORMATS, ".avif", ".gif", ".bmp", ".tif", ".tiff"})
"""Endings of pictures in a folder; what cannot be written as it is becomes a PNG."""


@dataclass(frozen=True, slots=True)
class Task:
    target: Path
    output: Path
    fmt: ImageFormat


def plan(target: Path, output: Path, sources: Sequence[Path]) -> list[Task]:
    """One task per picture, by name. Raises InvalidRequest for what cannot be."""
    if not target.exists():
        raise InvalidRequest("target", f"There is no file or folder {target}.", hint="Check the path.")
    tasks = _of_folder(target, output) if target.is_dir() else [_of_file(target, output)]
    read = {path.resolve() for path in (*sources, *(task.target for task in tasks))}
    written: set[Path] = set()
    for task in tasks:
        place = task.output.resolve()
        if place in read:
            message = f"{task.output} would be written over a picture that is read."
            raise InvalidRequest("output", message, hint="Choose another file or folder for the results.")
        if place in written:
            raise InvalidRequest("output", f"Two pictures of {target} would both become {task.output}.")
        written.add(place)
    return tasks


def _of_file(target: Path, output: Path) -> Task:
    if output.is_dir():
        return _into(output, target)
    fmt = FORMATS.get(output.suffix.lower())
    if fmt is None:
        endings = ", ".join(FORMATS)
        raise InvalidRequest("output", f"{output} does not end with a kind of picture.", hint=f"Use one of {endings}.")
    return Task(target, output, fmt)


def _of_folder(target: Path, output: Path) -> list[Task]:
    if output.is_file() or output.suffix.lower() in FORMATS:
        raise InvalidRequest("output", f"{target} is a folder, but {output} is a file.", hint="Name a folder for both.")
    pictures = sorted(path for path in target.iterdir() if path.suffix.lower() in READ and path.is_file())
    if not pictures:
        raise InvalidRequest(
            "target", f"There is no picture in {target}.", hint=f"Known are {', '.join(sorted(READ))}."
        )
    return [_into(output, picture) for picture in pictures]


def _into(folder: Path, picture: Path) -> Task:
    suffix = picture.suffix.lower()
    if suffix in FORMATS:
        return Task(picture, folder / picture.name, FORMATS[suffix])
    return Task(picture, folder / f"{picture.stem}.png", "png")

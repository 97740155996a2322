"""Where photos come from: every layout that trainers know, each as a list of files with what is said of them.

Nothing is opened here but captions and lists. A folder is what it looks like; only two layouts are read out of names:
kohya's `10_word class` folders, and NAME-masklabel.png.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from webui.errors import InvalidRequest
from webui.training.data.captions import CAPTION_SUFFIXES, joined_lines, read_caption
from webui.training.data.edits import FILE_NAME as EDITS_NAME

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".ppm"}
    | {".pgm", ".pbm", ".pnm", ".heic", ".heif"}
)
"""HEIC too, so that it is told about instead of overlooked."""
LIST_NAMES = ("metadata.jsonl", "metadata.json", "meta_cap.json", "meta_clean.json", "meta_lat.json")
"""Lists of captions that are looked for in a folder, the first there is."""
SILENT_SUFFIXES = frozenset(
    (".npz", ".safetensors", ".pt", ".json", ".jsonl", ".toml", ".ini", ".db", ".csv", ".parquet", ".lock", ".part")
)
"""Files that other trainers leave among photos."""
SILENT_NAMES = frozenset({"thumbs.db", "desktop.ini", EDITS_NAME})
MASK_END = "-masklabel"
KOHYA_FOLDER = re.compile(r"(\d{1,3})_(.+)")
KOHYA_PRIORS = frozenset({"reg", "regularization", "class"})
CAPTION_KEYS = ("caption", "text", "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A picture's file with what is said of it."""

    name: str
    path: Path
    caption: str | None = None
    mask: Path | None = None
    repeats: int = 1
    is_prior: bool = False
    held_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that is not used: `kind` "unreadable", "not a picture", "caption without picture", "mask without
    picture", "missing" or "excluded", and why in a sentence.
    """

    name: str
    path: Path
    kind: str
    sentence: str


@dataclass(slots=True)
class Listing:
    """`notes` say what was understood of the layout."""

    files: list[Listed] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Listing") -> None:
        self.files += other.files
        self.left_out += other.left_out
        self.notes += other.notes


def list_folder(folder: Path, *, subfolders: bool = True) -> Listing:
    """Pictures in `folder` and below, with their captions and masks; kohya's folders, and a list of captions in it."""
    listing = _pictures(folder, _walk(folder, subfolders))
    listing.files = _kohya(listing)
    for name in LIST_NAMES:
        if (folder / name).is_file():
            _add_captions(listing, folder, folder / name)
            break
    return listing


def list_file(path: Path) -> Listing:
    """What a list of photos names: OneTrainer's concepts, kohya's metadata, or records with a `file_name`.

    Raises InvalidRequest.
    """
    content = _parsed(path)
    if isinstance(content, list) and content and all(isinstance(e, dict) and "path" in e for e in content):
        return _concepts(path, content)
    return _named(path, _records(path, content))


def _walk(folder: Path, subfolders: bool) -> list[Path]:
    try:
        paths = sorted(folder.rglob("*") if subfolders else folder.iterdir(), key=lambda path: path.as_posix())
        return [path for path in paths if not _hidden(path.relative_to(folder)) and path.is_file()]
    except OSError as error:
        raise InvalidRequest(
            "data.photos", f"The folder {folder} cannot be read: {error.strerror or error}.", hint="Choose another one."
        ) from error


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _pictures(folder: Path, paths: Sequence[Path]) -> Listing:
    listing = Listing()
    pictures = {path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES}
    stems: dict[Path, Path] = {path.with_suffix(""): path for path in pictures}
    masks = {path.with_suffix(""): path for path in pictures if path.stem.endswith(MASK_END)}
    captions: dict[Path, Path] = {}
    for suffix in reversed(CAPTION_SUFFIXES):
        captions |= {path.with_suffix(""): path for path in paths if path.suffix.lower() == suffix}
    for path in paths:
        name, stem = path.relative_to(folder).as_posix(), path.with_suffix("")
        if stem in masks:
            if stem.with_name(stem.name.removesuffix(MASK_END)) not in stems:
                listing.left_out.append(_stray(name, path, "mask without picture"))
        elif path in pictures:
            listing.files.append(
                Listed(
                    name=name,
                    path=path,
                    caption=_read(captions[stem]) if stem in captions else None,
                    mask=masks.get(stem.with_name(stem.name + MASK_END)),
                )
            )
        elif path.suffix.lower() in CAPTION_SUFFIXES:
            if stem not in stems:
                listing.left_out.append(_stray(name, path, "caption without picture"))
        elif path.suffix.lower() not in SILENT_SUFFIXES and path.name.lower() not in SILENT_NAMES:
            listing.left_out.append(
                LeftOut(name=name, path=path, kind="not a picture", sentence=f"'{name}' is not a picture.")
            )
    return listing


def _read(path: Path) -> str:
    try:
        return read_caption(path)
    except OSError as error:
        raise InvalidRequest(
            "data.photos", f"The caption {path} cannot be read: {error.strerror or error}.", hint="Mend or delete it."
        ) from error


def _stray(name: str, path: Path, kind: str) -> LeftOut:
    return LeftOut(name=name, path=path, kind=kind, sentence=f"'{name}' is a {kind}; it is not used.")


def _kohya(listing: Listing) -> list[Listed]:
    """The files with the repeats and words that kohya's folder names give. Years are no repeats: up to three digits."""
    found: dict[Path, int] = defaultdict(int)
    files = []
    for listed in listing.files:
        match = KOHYA_FOLDER.fullmatch(listed.path.parent.name) if "/" in listed.name else None
        if match and int(match[1]) > 0:
            prior = bool(KOHYA_PRIORS & {part.lower() for part in Path(listed.name).parts[:-2]})
            said = listed.caption if listed.caption is not None else match[2].replace("_", " ").strip()
            found[listed.path.parent] += 1
            files.append(replace(listed, caption=said or None, repeats=int(match[1]), is_prior=prior))
        else:
            files.append(listed)
    for folder, count in found.items():
        listing.notes.append(
            f"Folder '{folder.name}' is in kohya's layout: {_photos(count)}, {_times(int(folder.name.split('_')[0]))}."
        )
    return files


def _add_captions(listing: Listing, folder: Path, path: Path) -> None:
    """Captions of a list for pictures that have none of their own. A list of something else is left alone."""
    try:
        records = _records(path, _parsed(path))
    except InvalidRequest as error:
        listing.notes.append(f"{error.message} Its captions are not used.")
        return
    said = {_resolved(folder, name): record for name, record in records}
    used = 0
    for i, listed in enumerate(listing.files):
        record = said.get(listed.path, said.get(listed.path.with_suffix("")))
        caption = _caption(record) if record else None
        if caption and listed.caption is None:
            listing.files[i] = replace(listed, caption=caption)
            used += 1
    if used:
        listing.notes.append(f"Captions of {_photos(used)} were taken from {path.name}.")


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except OSError as error:
        raise InvalidRequest(
            "data.photos", f"{path} cannot be read: {error.strerror or error}.", hint="Choose another file."
        ) from error
    except ValueError as error:  # not UTF-8, not JSON
        raise InvalidRequest(
            "data.photos", f"'{path.name}' is not a list of photos: {error}.", hint="Choose a JSON or JSONL file."
        ) from error


def _records(path: Path, content: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """(file, what is said of it) of kohya's mapping, or of records with a `file_name`."""
    if isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values()):
        return list(content.items())
    if isinstance(content, list) and content and all(isinstance(e, dict) and "file_name" in e for e in content):
        return [(str(record["file_name"]), record) for record in content]
    raise InvalidRequest(
        "data.photos",
        f"'{path.name}' is no list of photos that is known.",
        hint="OneTrainer's concepts, kohya's metadata, and records with a file_name are read.",
    )


def _named(path: Path, records: Sequence[tuple[str, Mapping[str, Any]]]) -> Listing:
    listing = Listing(notes=[f"{_photos(len(records))} named in {path.name}."])
    for name, record in records:
        picture = _picture(_resolved(path.parent, name))
        if picture is None:
            sentence = f"'{name}' is named in {path.name}, but is not there."
            listing.left_out.append(
                LeftOut(name=name, path=_resolved(path.parent, name), kind="missing", sentence=sentence)
            )
            continue
        beside = next((p for s in CAPTION_SUFFIXES if (p := picture.with_suffix(s)).is_file()), None)
        mask = picture.with_name(f"{picture.stem}{MASK_END}.png")
        repeats = record.get("num_repeats", record.get("repeats", 1))
        listing.files.append(
            Listed(
                name=_name_in(path.parent, picture),
                path=picture,
                caption=_caption(record) or (_read(beside) if beside else None),
                mask=mask if mask.is_file() else None,
                repeats=_repeats(repeats),
            )
        )
    return listing


def _caption(record: Mapping[str, Any]) -> str | None:
    """kohya has a caption, tags, or both."""
    parts = [next((str(record[key]) for key in CAPTION_KEYS if record.get(key)), ""), record.get("tags") or ""]
    if isinstance(parts[1], list):
        parts[1] = ", ".join(map(str, parts[1]))
    return joined_lines(", ".join(str(part) for part in parts if part).splitlines()) or None


def _resolved(folder: Path, name: str) -> Path:
    return folder / Path(name.replace("\\", "/"))


def _picture(path: Path) -> Path | None:
    """kohya's lists leave the suffix out."""
    if path.is_file():
        return path
    if not path.parent.is_dir():
        return None
    same = (p for p in sorted(path.parent.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES)
    return next((p for p in same if p.stem == path.name), None)


def _name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()


def _repeats(value: Any) -> int:
    return max(1, round(value)) if isinstance(value, int | float) and isfinite(value) else 1


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"


def _times(repeats: int) -> str:
    return "each once" if repeats == 1 else f"each {repeats} times"


def _concepts(path: Path, content: Sequence[Mapping[str, Any]]) -> Listing:
    """OneTrainer's list: one folder per concept."""
    listing = Listing()
    for i, concept in enumerate(content):
        name = str(concept.get("name") or Path(str(concept["path"])).name or f"concept {i + 1}")
        if not concept.get("enabled", True):
            listing.notes.append(f"Concept '{name}' is switched off.")
            continue
        listing.add(_concept(path, concept, name))
    return listing


def _concept(path: Path, concept: Mapping[str, Any], name: str) -> Listing:
    folder = _resolved(path.parent, str(concept["path"]))
    if not folder.is_dir():
        sentence = f"The folder {folder} of concept '{name}' is not there."
        return Listing(left_out=[LeftOut(name=name, path=folder, kind="missing", sentence=sentence)])
    found = _pictures(folder, _walk(folder, bool(concept.get("include_subdirectories", False))))
    kind = str(concept.get("type", "VALIDATION" if concept.get("validation_concept") else "STANDARD"))
    repeats = _balance(concept, len(found.files))
    said = _said(concept, path.parent)
    files = [
        replace(
            listed,
            name=f"{name}/{listed.name}",
            caption=said(listed, i),
            repeats=repeats,
            is_prior=kind == "PRIOR_PREDICTION",
            held_out=kind == "VALIDATION",
        )
        for i, listed in enumerate(found.files)
    ]
    role = {"PRIOR_PREDICTION": ", as pictures of the class", "VALIDATION": ", only to measure with"}.get(kind, "")
    note = f"Concept '{name}': {_photos(len(files))}, {_times(repeats)}{role}."
    return Listing(files=files, left_out=found.left_out, notes=[note])


def _balance(concept: Mapping[str, Any], count: int) -> int:
    amount = concept.get("balancing", 1.0)
    if concept.get("balancing_strategy") == "SAMPLES" and isinstance(amount, int | float) and count:
        return _repeats(amount / count)
    return _repeats(amount)


def _said(concept: Mapping[str, Any], folder: Path) -> Any:
    """(picture, its number) -> caption, as the concept says: beside the picture, its name, or lines of one file."""
    text = concept.get("text")
    text = text if isinstance(text, Mapping) else {}
    match text.get("prompt_source", "sample"):
        case "filename":
            return lambda listed, i: joined_lines([listed.path.stem.replace("_", " ")]) or None
        case "concept":
            lines = list(_lines(_resolved(folder, str(text.get("prompt_path", "")))))
            return lambda listed, i: lines[i % len(lines)] if lines else None
        case _:
            return lambda listed, i: listed.caption


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())

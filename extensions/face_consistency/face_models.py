"""Saved faces: what identity networks say about a person, as `.safetensors`. No pixels, and written only when asked to.

A face is personal data that can be matched with any photo: nothing here is saved by the way, and `delete` deletes.
ReActor's files can be read.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from webui.hooks import InvalidRequest, WebUIError

Embedding = NDArray[np.float32]
Method = Literal["mean", "median"]

FORMAT = "atelier-face"
FORMAT_VERSION = "1"
SUFFIX = ".safetensors"
MAX_FILE_BYTES = 4_000_000
"""ReActor's files have some 10 KB."""
SFACE, ARCFACE = "sface", "embedding"
"""Names of the tensors; the second one is ReActor's."""
SIZES: Mapping[str, int] = MappingProxyType({SFACE: 128, ARCFACE: 512})
SFACE_NAME = "SFace 2021dec"
UNKNOWN_ARCFACE = "InsightFace buffalo_l (as ReActor uses it)"
NAME = re.compile(r"[^\W_][\w .()+,-]{0,79}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself."""
GENDERS: Mapping[int, Literal["female", "male"]] = MappingProxyType({0: "female", 1: "male"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFace:
    """`sface` (128,) and `arcface` (512,) have unit length. `problem`, part of a sentence, is empty if it is usable."""

    name: str
    path: Path
    sface: Embedding | None = None
    """For measuring likeness."""
    arcface: Embedding | None = None
    """For swapping."""
    arcface_file: str = ""
    """Which network `arcface` is of; those of others don't fit."""
    num_photos: int = 1
    created: str = ""
    """Day and time in ISO 8601, UTC."""
    method: str = ""
    gender: Literal["female", "male", ""] = ""
    age: int | None = None
    is_reactor: bool = False
    problem: str = ""

    @property
    def needs_pixels_message(self) -> str:
        """Why a stage that moves pixels cannot use it."""
        return (
            f"The saved face '{self.name}' holds numbers that describe a face, not its pixels: it can be measured "
            "against and swapped in, but warping needs a photo."
        )

    @property
    def cannot_swap_message(self) -> str:
        """Empty if a swapper can use it."""
        if self.problem:
            return f"The saved face '{self.name}' cannot be used: {self.problem}."
        if self.arcface is None:
            return (
                f"The saved face '{self.name}' has no ArcFace numbers, which a swapper needs: it was saved while "
                "no ArcFace network lay under models/face. Save it anew from its photos."
            )
        return ""

    @property
    def cannot_compare_message(self) -> str:
        """Empty if likeness can be measured with it."""
        if self.problem:
            return f"The saved face '{self.name}' cannot be used: {self.problem}."
        if self.sface is None:
            return (
                f"The saved face '{self.name}' is ReActor's and has no SFace numbers, so likeness to it cannot be "
                "measured by a network that didn't make it. Save it anew from its photos."
            )
        return ""


class FaceModelStore:
    """The saved faces in `folder`, and those in `also` (ReActor's), which are only read. Made on the first save."""

    def __init__(self, folder: Path, *, also: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.also = tuple(also)

    def list(self) -> list[SavedFace]:
        """By name, the unusable ones with their problem; the first of equal names."""
        found: dict[str, SavedFace] = {}
        for folder in (self.folder, *self.also):
            for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
                found.setdefault(path.stem, read_face(path))
        return sorted(found.values(), key=lambda face: face.name.lower())

    def read(self, name: str) -> SavedFace:
        """Raises InvalidRequest if there is none or it cannot be used."""
        saved = self.list()
        for face in saved:
            if face.name == name:
                if face.problem:
                    raise InvalidRequest("face_model", f"The saved face '{name}' cannot be used: {face.problem}.")
                return face
        names = ", ".join(face.name for face in saved[:10])
        hint = f"There is: {names}." if names else "None has been saved yet."
        raise InvalidRequest("face_model", f"There is no saved face named '{name}'.", hint=hint)

    def save(
        self,
        name: str,
        *,
        sface: Sequence[Embedding],
        arcface: Sequence[Embedding] = (),
        arcface_file: str = "",
        method: Method = "mean",
        replace: bool = False,
    ) -> SavedFace:
        """One face from the embeddings of one or more photos. Raises InvalidRequest, WebUIError if the disk won't."""
        path = self.folder / f"{_checked(name)}{SUFFIX}"
        if path.exists() and not replace:
            raise InvalidRequest("face_model", f"There already is a saved face named '{name}'.", hint="Choose another.")
        if not sface:
            raise InvalidRequest("face_model", "No photo with a face was given.", hint="Add one that shows the person.")
        tensors = {SFACE: combined(SFACE, sface, method)}
        backends = {SFACE: SFACE_NAME}
        if arcface:
            tensors[ARCFACE] = combined(ARCFACE, arcface, method)
            backends[ARCFACE] = arcface_file
        notes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "backends": json.dumps(backends),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "num_photos": str(len(sface)),
            "method": method,
        }
        _write(path, save(tensors, notes))
        return read_face(path)

    def delete(self, name: str) -> None:
        """Raises InvalidRequest if there is none here, WebUIError if it stays."""
        path = self.folder / f"{_checked(name)}{SUFFIX}"
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise InvalidRequest("face_model", f"There is no saved face named '{name}' to delete.") from error
        except OSError as error:
            raise WebUIError(f"'{path.name}' could not be deleted: {error.strerror or error}.") from error


def combined(kind: str, embeddings: Sequence[Embedding], method: Method) -> Embedding:
    """Mean or median of unit vectors, of unit length. Raises InvalidRequest for ones that aren't of `kind`."""
    rows = [_unit(embedding, SIZES[kind]) for embedding in embeddings]
    if any(row is None for row in rows):
        message = f"An embedding without a direction, or not of {SIZES[kind]} numbers, cannot be saved."
        raise InvalidRequest("face_model", message)
    average = np.mean if method == "mean" else np.median
    middle = _unit(average(np.stack([row for row in rows if row is not None]), axis=0), SIZES[kind])
    if middle is None:
        raise InvalidRequest("face_model", "The photos' faces are each other's opposites.", hint="Check the photos.")
    return middle


def read_face(path: Path) -> SavedFace:
    """Ours or ReActor's; never raises."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            return SavedFace(name=path.stem, path=path, problem=f"it has {size:,} bytes, which is no saved face")
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            notes = dict(file.metadata() or {})
            wanted = names & {SFACE, ARCFACE, "gender", "age"}
            tensors = {name: np.asarray(file.get_tensor(name)) for name in wanted}
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return SavedFace(name=path.stem, path=path, problem=f"it cannot be read ({reason})")
    return _described(path, tensors, notes)


def _described(path: Path, tensors: Mapping[str, NDArray[Any]], notes: Mapping[str, str]) -> SavedFace:
    ours = notes.get("format") == FORMAT
    version = notes.get("format_version", FORMAT_VERSION)
    if ours and version != FORMAT_VERSION:
        problem = f"it has the format version {version[:20]}, and only {FORMAT_VERSION} is known"
        return SavedFace(name=path.stem, path=path, problem=problem)
    units = {name: _unit(tensors[name], size) for name, size in SIZES.items() if name in tensors}
    vectors = {name: row for name, row in units.items() if row is not None}
    if not vectors or len(vectors) < len(units):
        wanted = " or ".join(f"'{name}' of {size} numbers" for name, size in SIZES.items())
        return SavedFace(name=path.stem, path=path, problem=f"it has no {wanted}")
    gender, age = _number(tensors.get("gender")), _number(tensors.get("age"))
    return SavedFace(
        name=path.stem,
        path=path,
        sface=vectors.get(SFACE),
        arcface=vectors.get(ARCFACE),
        arcface_file=_backends(notes).get(ARCFACE, "") if ours else UNKNOWN_ARCFACE,
        num_photos=_count(notes.get("num_photos", "")),
        created=notes.get("created", "")[:40],
        method=notes.get("method", "")[:20],
        gender="" if gender is None else GENDERS.get(gender, ""),
        age=age if age is not None and 0 < age < 150 else None,
        is_reactor=not ours,
    )


def _backends(notes: Mapping[str, str]) -> dict[str, str]:
    try:
        found = json.loads(notes.get("backends", "{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value)[:200] for key, value in found.items()} if isinstance(found, dict) else {}


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 1


def _number(tensor: NDArray[Any] | None) -> int | None:
    if tensor is None or tensor.size != 1 or not np.isfinite(tensor).all():
        return None
    return int(tensor.reshape(()))


def _unit(values: NDArray[Any], size: int) -> Embedding | None:
    row = np.asarray(values, np.float64).reshape(-1)
    length = float(np.linalg.norm(row))
    if len(row) != size or not np.isfinite(length) or length == 0:
        return None
    return (row / length).astype(np.float32)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name) or name != name.strip(" .") or RESERVED.fullmatch(name):
        raise InvalidRequest(
            "face_model",
            f"A saved face cannot be named {name[:80]!r}.",
            hint="Take up to 80 letters, digits, spaces and . - _ + ( ), beginning with a letter or digit.",
        )
    return name


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; readable by the owner alone."""
    draft = path.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(0o600, exist_ok=False)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise WebUIError(f"The face could not be saved as '{path.name}': {error.strerror or error}.") from error

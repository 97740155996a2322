"""What people keep beside a model: notes, trigger words, the weight they like, and a preview.

In the form that other programs know: `name.json` with A1111's keys, `name.civitai.info`, `name.png`. Keys that are not
ours stay as they are, and a file that cannot be understood is never written over.
"""

import codecs
import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from PIL import Image
from pydantic_core import from_json

from webui.errors import InvalidRequest, StorageError
from webui.library.families import PredictionType
from webui.library.whole_files import write_whole

MAX_SIDECAR_BYTES = 4_000_000
MAX_TEXT_CHARS = 20_000
MAX_WEIGHT = 10.0
PREVIEW_SIDE_PX = 768

KEYS: Mapping[str, str] = MappingProxyType(
    {
        "description": "description",
        "base": "sd version",
        "activation_text": "activation text",
        "preferred_weight": "preferred weight",
        "negative_text": "negative text",
        "recommended_settings": "recommended settings",
        "notes": "notes",
        "prediction_type": "prediction type",
    }
)
"""What each field is called in `name.json`."""
EDITABLE = (
    "activation_text",
    "preferred_weight",
    "negative_text",
    "recommended_settings",
    "notes",
    "prediction_type",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What the files beside a model say; what they don't say is empty.

    `preferred_weight` is None where none is set. `recommended_settings` are in the infotext's words, and not checked
    here: what they mean is known where pictures are made. `prediction_type` overrides what the checkpoint says of
    itself. `trained_words` come from the site that the file was loaded from.
    """

    description: str = ""
    base: str = ""
    activation_text: str = ""
    preferred_weight: float | None = None
    negative_text: str = ""
    recommended_settings: str = ""
    notes: str = ""
    prediction_type: PredictionType | None = None
    trained_words: tuple[str, ...] = ()


def read_sidecars(paths: Iterable[Path]) -> Sidecar:
    """Never raises: a file that cannot be read, or says something else, adds nothing."""
    values: dict[str, Any] = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            content = _read(path)
            values |= _from_civitai(content) if path.name.endswith(".civitai.info") else _from_json(content)
    return Sidecar(**values)


def write_notes(model: Path, changes: Mapping[str, Any]) -> Path:
    """Writes some of `EDITABLE` into the model's `name.json`; an empty value takes its key away.

    But for what no field here could show, such as a list that another program keeps under the same key.

    Raises InvalidRequest with the field's name, or StorageError if the file holds something else or can't be written.
    """
    values = {name: _checked(name, value) for name, value in changes.items()}
    path = sidecar_path(model)
    try:
        content = _read(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise StorageError(
            f"'{path.name}' cannot be understood ({error}), so it is not written over.",
            hint="Rename or remove it, then save again.",
        ) from error
    for name, value in values.items():
        if value in ("", None):
            if not isinstance(content.get(KEYS[name]), list | dict):
                content.pop(KEYS[name], None)
        else:
            content[KEYS[name]] = value
    data = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
    _write(path, data.encode())
    return path


def write_preview(model: Path, picture: Image.Image) -> Path:
    """A small copy without any text in it, as the preview that is found first. Raises StorageError."""
    small = picture.convert("RGB")
    small.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX), Image.Resampling.LANCZOS)
    small.info.clear()
    path = _beside(model, ".png")
    if path == model:  # an embedding that lies in a picture
        path = _beside(model, ".preview.png")
    data = io.BytesIO()
    small.save(data, "PNG")
    _write(path, data.getvalue())
    return path


def sidecar_path(model: Path) -> Path:
    return _beside(model, ".json")


def _beside(model: Path, suffix: str) -> Path:
    return model.with_name((model.name if model.is_dir() else model.stem) + suffix)


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_SIDECAR_BYTES:
        raise ValueError("it is too large")
    content = from_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def _from_json(content: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(Sidecar):
        value = content.get(KEYS.get(field.name, ""))
        if field.name == "preferred_weight":
            weight = _weight(value)
            values |= {field.name: weight} if weight else {}  # 0 is how others write "none"
        elif isinstance(value, str) and value.strip():
            values[field.name] = value.strip()
    if values.get("prediction_type") not in get_args(PredictionType):
        values.pop("prediction_type", None)
    return values


def _from_civitai(content: Mapping[str, Any]) -> dict[str, Any]:
    words = content.get("trainedWords")
    found = {"trained_words": tuple(word.strip(" ,") for word in words if isinstance(word, str) and word.strip(" ,"))
             if isinstance(words, list) else ()}  # fmt: skip
    base = content.get("baseModel")
    return {**found, **({"base": base} if isinstance(base, str) else {})}


def _checked(name: str, value: Any) -> Any:
    if name not in EDITABLE:
        raise InvalidRequest(name, f"'{name}' cannot be changed.")
    if name == "preferred_weight":
        if value in ("", None):
            return None
        weight = _weight(value)
        if weight is None or abs(weight) > MAX_WEIGHT:
            raise InvalidRequest(
                name, f"A preferred weight of {value} cannot be used.", hint="Type a number, such as 0.8."
            )
        return weight
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
        raise InvalidRequest(name, f"The {KEYS[name]} is longer than {MAX_TEXT_CHARS} characters.")
    if name == "prediction_type" and value and value not in get_args(PredictionType):
        raise InvalidRequest(name, f"'{value}' is no prediction type.", hint="Use epsilon, v_prediction or sample.")
    return value.strip()


def _weight(value: Any) -> float | None:
    """Numbers, and numbers written as text."""
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):  # the last for an integer of 400 digits
        return None
    return weight if math.isfinite(weight) and not isinstance(value, bool) else None


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise StorageError(
            f"'{path.name}' cannot be written ({error.strerror or error}).", hint="Check the folder's permissions."
        ) from error

"""What a page shows of models: a short card each, and all that is known of one. For JSON; no path of the machine."""

import base64
import binascii
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import from_json

from webui.errors import UnsupportedModel
from webui.library.catalog import CheckpointInfo, ModelFile
from webui.library.families import FAMILIES
from webui.library.header import read_header
from webui.library.index import Hashes
from webui.library.scan import ROOMS

MAX_TAGS = 300
MAX_METADATA_CHARS = 400_000
NAMED_BY_TAG = ("adapter", "hypernetwork")
TAG_MARKS = "<>:"
THUMBNAIL = "modelspec.thumbnail"

BASE_LABELS: Mapping[str, str] = MappingProxyType(
    {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL", "sdxl-refiner": "SDXL refiner", "sd-custom": "own size"}
)
"""What people call the models that an adapter is made for."""


def card(file: ModelFile) -> dict[str, Any]:
    """`base` is what has to be equal for two models to go together; "" if it is not known."""
    notes = file.notes
    return {
        "id": file.id,
        "kind": file.kind,
        "name": file.name,
        "folder": file.location.rpartition("/")[0],
        "names": sorted({file.name, file.location, file.location.rpartition("/")[2], *filter(None, [file.alias])}),
        "label": label(file),
        "base": base(file),
        "rank": file.facts.rank or 0,
        "size": file.size_bytes,
        "time": file.mtime_ns // 1_000_000,
        "preview": preview_version(file),
        "weight": notes.preferred_weight or 1,
        "words": notes.activation_text or ", ".join(trigger_words(file)),
        "negative": notes.negative_text,
        "problem": file.problem or _problem_of_name(file),
    }


def details(file: ModelFile, info: CheckpointInfo | None, hashes: Hashes | None) -> dict[str, Any]:
    """The card and everything else: facts, notes, tags of the training pictures, metadata."""
    metadata = metadata_of(file.path)
    notes, facts = file.notes, file.facts
    return {
        **card(file),
        "file": f"{ROOMS[file.kind].folder}/{file.location}{'' if file.path.is_dir() else file.path.suffix}",
        "facts": [[name, value] for name, value in _facts(file, info).items() if value],
        "sha256": hashes.sha256 if hashes else "",
        "data_sha256": hashes.data_sha256 if hashes else "",
        "trigger_words": trigger_words(file),
        "tags": tag_frequencies(metadata),
        "notes": {
            "activation_text": notes.activation_text,
            "preferred_weight": notes.preferred_weight,
            "negative_text": notes.negative_text,
            "recommended_settings": notes.recommended_settings,
            "notes": notes.notes,
            "prediction_type": notes.prediction_type or "",
        },
        "description": notes.description,
        "may_override_prediction": file.kind == "checkpoint" and facts.adapter_base in ("sd1", "sd2", "sdxl"),
        "metadata": _shown(metadata),
    }


def _problem_of_name(file: ModelFile) -> str:
    if file.kind in NAMED_BY_TAG and any(mark in file.name for mark in TAG_MARKS):
        return f"its name has one of {' '.join(TAG_MARKS)} in it, which a tag cannot hold; rename the file"
    return ""


def label(file: ModelFile) -> str:
    family = FAMILIES.get(file.facts.family)
    if file.kind == "checkpoint" and family is not None:
        return family.label
    return BASE_LABELS.get(base(file), "")


def base(file: ModelFile) -> str:
    family = FAMILIES.get(file.facts.family)
    return file.facts.adapter_base or (family.adapter_base if family else "")


def trigger_words(file: ModelFile) -> list[str]:
    """Words that its maker says call it: from the site it came from, else from its own metadata."""
    return list(file.notes.trained_words or file.facts.trigger_words)


def preview_version(file: ModelFile) -> str:
    """Changes with the preview; "" if there is none."""
    if file.preview is not None:
        return f"{file.preview_mtime_ns:x}"
    return f"{file.mtime_ns:x}" if file.has_thumbnail else ""


def thumbnail_of(path: Path) -> bytes | None:
    """The picture in a safetensors file's own metadata, as it was put there."""
    _, comma, data = metadata_of(path).get(THUMBNAIL, "").partition(";base64,")
    try:
        return base64.b64decode(data, validate=True) if comma else None
    except (binascii.Error, ValueError):
        return None


def metadata_of(path: Path) -> Mapping[str, str]:
    """Of a safetensors file; {} for every other one."""
    if path.is_dir() or path.suffix.lower() != ".safetensors":
        return {}
    try:
        return read_header(path).metadata
    except UnsupportedModel:
        return {}


def tag_frequencies(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """How often each tag stands in the captions it was trained on, most frequent first (kohya's metadata)."""
    counts: Counter[str] = Counter()
    folders = _json(metadata.get("ss_tag_frequency", ""))
    datasets = _json(metadata.get("ss_datasets", ""))
    tables = [
        folders,
        *(_get(dataset, "tag_frequency") for dataset in (datasets if isinstance(datasets, list) else [])),
    ]
    for tags in (tags for table in tables if isinstance(table, dict) for tags in table.values()):
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and tag.strip():
                counts[tag.strip()] += count
    return counts.most_common(MAX_TAGS)


def _facts(file: ModelFile, info: CheckpointInfo | None) -> dict[str, str]:
    """Lines for people: what it is, in the order of interest."""
    facts = file.facts
    lines = {
        "Made for" if file.kind != "checkpoint" else "Family": label(file),
        "Type": ", ".join(facts.adapter_types),
        "Rank": str(facts.rank or ""),
        "Alpha": f"{facts.alpha:g}" if facts.alpha else "",
        "Prediction": info.prediction_type if info else "",
        "Layout": facts.layout,
        "Precision": facts.dtype,
        "Weights": f"{facts.num_parameters:,}" if facts.num_parameters else "",
        "Named inside": file.alias,
    }
    return {name: str(value) for name, value in lines.items()}


def _shown(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Without pictures, and cut where it would be more than anyone reads."""
    left = MAX_METADATA_CHARS
    shown = []
    for key, value in sorted(metadata.items()):
        if key == THUMBNAIL:
            continue
        shown.append((key, value if len(value) <= left else value[: max(left, 0)] + " …"))
        left -= len(value)
    return shown


def _json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return None


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None

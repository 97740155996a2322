"""`inspect model FILE`: what a model file is, as one JSON object. Reads all of it, for its hashes; imports no torch."""

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from webui.errors import ModelNotFound, UnsupportedModel
from webui.library.hashes import hash_file
from webui.library.header import read_header
from webui.library.identify import identify

HASH_LENGTH = 10
ADAPTER_HASH_LENGTH = 12
NUMBER_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<H", "I64": "<q", "I32": "<i"}
"""Types that an alpha is stored in, in struct's words."""


def inspect_model(path: Path) -> dict[str, Any]:
    """Facts, hashes and problems of the file or diffusers folder at `path`.

    `hash_short` is what other programs show for checkpoints; `hash_adapter` is theirs for adapters, of the weights
    without the header. `alpha` is "mixed" if layers differ. Raises ModelNotFound if there is nothing at `path`.
    """
    if not path.exists():
        raise ModelNotFound("model file", str(path), ())
    facts = identify(path)
    hashes = hash_file(path) if path.is_file() else None
    stored = stored_alpha(path) if facts.kind == "adapter" and path.is_file() else None
    return {
        "file": path.name,
        **asdict(facts),
        "alpha": facts.alpha if stored is None else stored,
        "sha256": hashes.sha256 if hashes else "",
        "hash_short": hashes.sha256[:HASH_LENGTH] if hashes else "",
        "hash_adapter": hashes.data_sha256[:ADAPTER_HASH_LENGTH] if hashes and facts.kind == "adapter" else "",
    }


def stored_alpha(path: Path) -> float | Literal["mixed"] | None:
    """The alpha of an adapter's layers, read from the weights; None if it has none or is no safetensors file."""
    try:
        header = read_header(path)
    except UnsupportedModel:
        return None
    with path.open("rb") as file:
        entries = json.loads(file.read(header.data_start)[8:])
        values = set()
        for name, entry in entries.items():
            if name.endswith(".alpha") and entry["dtype"] in NUMBER_FORMATS:
                begin, end = entry["data_offsets"]
                file.seek(header.data_start + begin)
                data = file.read(end - begin)
                if len(data) == struct.calcsize(NUMBER_FORMATS[entry["dtype"]]):  # one with several values is none
                    values.add(_number(data, entry["dtype"]))
    return "mixed" if len(values) > 1 else next(iter(values), None)


def _number(data: bytes, dtype: str) -> float:
    (value,) = struct.unpack(NUMBER_FORMATS[dtype], data)
    if dtype == "BF16":  # the upper half of a float32
        (value,) = struct.unpack("<f", struct.pack("<I", value << 16))
    return float(value)

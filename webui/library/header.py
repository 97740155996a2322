"""What a weight file holds, read from its first bytes alone: names, shapes and types of its tensors.

Reads no weights and imports no torch. Format: https://huggingface.co/docs/safetensors (8 bytes little-endian length,
JSON header, data).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.errors import UnsupportedModel

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

BYTES_PER_VALUE: Mapping[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1, "F4": 0.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """`dtype` in safetensors' words: "F32", "F16", "BF16", "F8_E4M3", ..."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """`data_start` is the offset of the first weight in the file; 0 for files that are not safetensors."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int


def read_header(path: Path, *, final_size: int | None = None) -> Header:
    """The header of a safetensors file. Raises UnsupportedModel: cut off, not safetensors, tensors beyond the end.

    `final_size`: the bytes that a file which is still being written will have.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = path.stat().st_size if final_size is None else final_size
            if len(start) < 8:
                raise UnsupportedModel(path, f"it has only {size} bytes", hint="Copy or download it again.")
            (length,) = struct.unpack("<Q", start)
            if length > MAX_HEADER_BYTES:
                raise UnsupportedModel(path, "it is not a safetensors file: its first bytes are no header length")
            if 8 + length > size:
                raise UnsupportedModel(
                    path, f"it is cut off inside its header ({size} bytes)", hint="Copy or download it again."
                )
            text = file.read(length)
    except OSError as error:
        raise UnsupportedModel(path, f"it cannot be read ({error.strerror or error})") from error
    return _parse(path, text, size)


def _parse(path: Path, text: bytes, size: int) -> Header:
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", None) or {}
        tensors = {name: TensorInfo(str(e["dtype"]), tuple(int(n) for n in e["shape"])) for name, e in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UnsupportedModel(path, f"its safetensors header is damaged ({_first_line(error)})") from error
    data_start = 8 + len(text)
    if data_start + end > size:
        raise UnsupportedModel(
            path,
            f"it is cut off: {size:,} of {data_start + end:,} bytes are there",
            hint="Copy or download it again.",
        )
    return Header(tensors=tensors, metadata={str(k): str(v) for k, v in metadata.items()}, data_start=data_start)


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

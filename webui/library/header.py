"""What a weight file holds, read from its first bytes alone: names, shapes and types of its tensors.

Reads no weights and imports no torch. Format: https://huggingface.co/docs/safetensors (8 bytes little-endian length,
JSON header, data without holes); what the format's own reader would refuse is refused here, in words.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from webui.errors import UnsupportedModel

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
MAX_AXES = 8
"""Of one tensor; networks have up to 5."""
MAX_SIZE = 2**63 - 1
"""Of an axis, a tensor, a file. Without it a header could ask for a product that takes minutes."""

BYTES_PER_VALUE: Mapping[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1, "F4": 0.5,
}  # fmt: skip

_AGAIN = "Copy or download it again."
_DOWNLOAD = "Open its address in a browser: it may ask to log in or to accept terms. Then download it again."
OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "it is a git-lfs pointer, a note of where the model lies, not the model itself",
     "Fetch it with `git lfs pull`, or download it from its page."),
    (b"<", "it is a web page, not a model", _DOWNLOAD),
    (b'{"', "it is a message from a server or a settings file, not a model", _DOWNLOAD),
    (b"PK\x03\x04", "it is a zip archive, or an old model in torch's own format",
     "Unpack it if it is an archive; rename it to .ckpt if it is a model."),
    (b"\x80", "it is an old model in Python's pickle format", "Rename it to .ckpt or .pt."),
    (b"\x89PNG", "it is a picture (PNG), not a model", ""),
    (b"\xff\xd8\xff", "it is a picture (JPEG), not a model", ""),
    (b"RIFF", "it is a picture (WebP), not a model", ""),
    (b"GGUF", "it is a GGUF file, which holds quantised weights of other programs",
     "Look for the same model as .safetensors."),
    (b"\x1f\x8b", "it is a gzip archive", "Unpack it."),
    (b"7z\xbc\xaf", "it is a 7-Zip archive", "Unpack it."),
    (b"Rar!", "it is a RAR archive", "Unpack it."),
    (b"\x89HDF", "it is an HDF5 file, the format of Keras", "Look for the same model as .safetensors."),
    (b"\x00\x00\x00\x00\x00\x00\x00\x00", "it begins with zeros: its download was never finished", _AGAIN),
)  # fmt: skip
"""What else bears the name of a model: first bytes, what it is, what to do."""


class TensorInfo(NamedTuple):
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
    """The header of a safetensors file. Raises UnsupportedModel: what is wrong with the file, or what it is instead.

    `final_size`: the bytes that a file which is still being written will have.
    """
    if path.is_dir():
        raise UnsupportedModel(path, "it is a folder with the name of a file")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2) if final_size is None else final_size
            file.seek(0)
            start = file.read(9)
            length = _header_length(path, start, size)
            text = start[8:] + file.read(length - 1)
    except OSError as error:
        raise UnsupportedModel(path, f"it cannot be read ({error.strerror or error})") from error
    try:
        tensors, metadata, end = _parse(text)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UnsupportedModel(path, f"its safetensors header is damaged ({_reason(error)})", hint=_AGAIN) from error
    _check_size(path, 8 + length + end, size)
    return Header(tensors=tensors, metadata=metadata, data_start=8 + length)


def _header_length(path: Path, start: bytes, size: int) -> int:
    if size == 0:
        raise UnsupportedModel(path, "it is empty", hint=_AGAIN)
    (length,) = struct.unpack("<Q", start[:8].ljust(8, b"\0"))
    if start[8:9] == b"{" and length <= MAX_HEADER_BYTES:
        if 8 + length > size:
            raise UnsupportedModel(path, f"it is cut off inside its header, after {size:,} bytes", hint=_AGAIN)
        return int(length)
    for magic, what, hint in OTHER_FILES:
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(magic[: len(start)]):
            raise UnsupportedModel(path, what, hint=hint)
    if size < 9:
        raise UnsupportedModel(path, f"it has only {size} bytes", hint=_AGAIN)
    raise UnsupportedModel(path, "it is not a safetensors file: it does not begin with a header", hint=_AGAIN)


def _check_size(path: Path, expected: int, size: int) -> None:
    if size < expected:
        raise UnsupportedModel(path, f"it is cut off: {size:,} of {expected:,} bytes are there", hint=_AGAIN)
    if size > expected:
        raise UnsupportedModel(path, f"{size - expected:,} bytes too many follow its weights", hint=_AGAIN)


def _parse(text: bytes) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """Tensors, metadata and the size of the data in bytes. Raises what a damaged header makes it raise."""
    entries = from_json(text)  # takes half of json.loads' time, which is most of what a scan costs
    metadata = entries.pop("__metadata__", None) or {}
    if not all(type(value) is str for value in metadata.values()):
        raise ValueError("its metadata is not all text")
    if text.count(b'"data_offsets"') != len(entries):
        json.loads(text, object_pairs_hook=_refuse_repeated_names)
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in BYTES_PER_VALUE:
            raise ValueError(f"'{name}' has the unknown type {dtype!r}")
        if len(shape) > MAX_AXES or not _are_sizes(shape):
            raise ValueError(f"'{name[:80]}' has a shape of {len(shape)} axes that no tensor has")
        if not _are_sizes((begin, end)):
            raise ValueError(f"'{name[:80]}' has a place in the file that does not fit")
        count = prod(shape)
        if end - begin != count * BYTES_PER_VALUE[dtype]:
            raise ValueError(f"'{name}' has {end - begin} bytes, which does not fit {dtype} {list(shape)}")
        tensors[name] = TensorInfo(dtype, shape)
        spans.append((begin, end))
    return tensors, metadata, _end_of(spans)


def _are_sizes(numbers: Iterable[Any]) -> bool:
    return all(type(number) is int and 0 <= number <= MAX_SIZE for number in numbers)


def _end_of(spans: list[tuple[int, int]]) -> int:
    """Where the data ends. Raises ValueError unless the tensors lie one after the other."""
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError("its tensors overlap" if begin < position else "there are holes between its tensors")
        position = end
    return position


def _refuse_repeated_names(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name[:80]}' is there twice")
        found[name] = value
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

"""Tensors of an adapter file, read from the disk at every access.

Not memory-mapped: a trainer that writes over a mapped file kills the program that reads it, and an adapter's weights
are used once per merge. An open adapter costs no memory.
"""

import json
import math
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.library.header import Header, TensorInfo, read_header

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""safetensors' words for types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A file's table of contents, and the way to one of its tensors by its name there."""

    path: Path
    header: Header
    read: Callable[[str], Tensor]


class StoredTensors(Mapping[str, Tensor]):
    """Some tensors of a file under other names (`keys`: name -> the file's), and some `known` ones beside them.

    An access reads, and raises UnsupportedModel for a value that is not finite.
    """

    def __init__(self, contents: Contents, keys: Mapping[str, str], known: Mapping[str, Tensor] | None = None) -> None:
        self._contents = contents
        self._keys = keys
        self._known = dict(known or {})

    def __getitem__(self, name: str) -> Tensor:
        if name in self._known:
            return self._known[name]
        tensor = self._contents.read(self._keys[name])
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise UnsupportedModel(
                self._contents.path,
                f"its '{self._keys[name]}' has values that are NaN or infinite",
                hint="Its training went wrong; use an earlier version of it.",
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter((*self._keys, *self._known))

    def __len__(self) -> int:
        return len(self._keys) + len(self._known)


def open_contents(path: Path) -> Contents:
    """Raises UnsupportedModel for a file that cannot be read."""
    return _open_safetensors(path) if path.suffix.lower() == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path) -> Contents:
    header = read_header(path)
    offsets = _offsets(path)
    unknown = sorted({info.dtype for info in header.tensors.values()} - set(DTYPES))
    if unknown:
        raise UnsupportedModel(path, f"its weights are of the type {', '.join(unknown)}, which is not known here")
    stamp = _stamp(path)

    def read(key: str) -> Tensor:
        if _stamp(path) != stamp:
            raise UnsupportedModel(path, "it was changed while it was in use", hint="Try again: it is read anew.")
        info = header.tensors[key]
        return _read_tensor(path, info, header.data_start + offsets[key])

    return Contents(path=path, header=header, read=read)


def _read_tensor(path: Path, info: TensorInfo, start: int) -> Tensor:
    dtype = DTYPES[info.dtype]
    size = math.prod(info.shape) * dtype.itemsize
    with path.open("rb") as file:
        file.seek(start)
        data = bytearray(file.read(size))
    if len(data) != size:
        raise UnsupportedModel(
            path, f"it is cut off: byte {start + size:,} is not there", hint="Copy or download it again."
        )
    if not size:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(info.shape)


def _offsets(path: Path) -> dict[str, int]:
    """Where each tensor begins, counted from the end of the header, which `read_header` has found sound."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
    return {name: int(entry["data_offsets"][0]) for name, entry in entries.items() if name != "__metadata__"}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UnsupportedModel(path, f"it cannot be read ({error.strerror or error})") from error
    return status.st_size, status.st_mtime_ns


def _is_finite(tensor: Tensor) -> bool:
    """A sum is NaN or infinite if a value is, and needs no second array as isfinite() does."""
    values = tensor if tensor.itemsize > 1 else tensor.float()
    return math.isfinite(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).item())


def _open_pickle(path: Path) -> Contents:
    tensors, metadata = _load_pickle(path)
    names = {dtype: name for name, dtype in DTYPES.items()}
    infos = {key: TensorInfo(names.get(t.dtype, str(t.dtype)), tuple(t.shape)) for key, t in tensors.items()}
    return Contents(path=path, header=Header(tensors=infos, metadata=metadata, data_start=0), read=tensors.__getitem__)


def _load_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .pt, .ckpt or .bin, also from below "state_dict". Only weights are unpickled, no code is run."""
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsupportedModel(
            path,
            "it holds more than weights, and opening it could run code",
            hint="Convert it to .safetensors with the program that made it.",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(
            path, f"it is damaged ({(str(error).splitlines() or ['no reason given'])[0]})"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise UnsupportedModel(path, f"it holds a {type(loaded).__name__} instead of named weights")
    tensors = {str(key): value.detach() for key, value in loaded.items() if isinstance(value, Tensor)}
    return tensors, {str(key): value for key, value in loaded.items() if isinstance(value, str)}

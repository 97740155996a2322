"""Tensors of an adapter file, read from the disk at every access.

Not memory-mapped: a trainer that writes over a mapped file kills the program that reads it, and an adapter's weights
are used once per merge. An open adapter costs no memory.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.library.header import Header, TensorInfo, read_header
from webui.library.old_files import PICKLE_SUFFIXES
from webui.pipeline.dtypes import DTYPE_NAMES, DTYPES
from webui.pipeline.pickles import read_pickle
from webui.pipeline.weight_files import version_of


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
    return _open_pickle(path) if path.suffix.lower() in PICKLE_SUFFIXES else _open_safetensors(path)


def _open_safetensors(path: Path) -> Contents:
    header = read_header(path)
    offsets = _offsets(path)
    unknown = sorted({info.dtype for info in header.tensors.values()} - set(DTYPES))
    if unknown:
        raise UnsupportedModel(path, f"its weights are of the type {', '.join(unknown)}, which is not known here")
    version = version_of(path)

    def read(key: str) -> Tensor:
        if version_of(path) != version:
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


def _is_finite(tensor: Tensor) -> bool:
    """A sum is NaN or infinite if a value is, and needs no second array as isfinite() does."""
    values = tensor if tensor.itemsize > 1 else tensor.float()
    return math.isfinite(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).item())


def _open_pickle(path: Path) -> Contents:
    """Read whole and copied out of the file, which is small where it is so old."""
    tensors = {key: tensor.clone() for key, tensor in read_pickle(path).items() if tensor.dtype in DTYPE_NAMES}
    infos = {key: TensorInfo(DTYPE_NAMES[t.dtype], tuple(t.shape)) for key, t in tensors.items()}
    return Contents(path=path, header=Header(tensors=infos, metadata={}, data_start=0), read=tensors.__getitem__)

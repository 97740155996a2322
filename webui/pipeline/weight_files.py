"""Files of weights, opened when a tensor is first asked for and memory-mapped: only what is touched is read."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.library.header import Header, read_header
from webui.library.old_files import PICKLE_SUFFIXES
from webui.pipeline.pickles import read_pickle, read_pickle_header

FileVersion = tuple[str, int, int, int]
"""Path, inode, size and time of change (ns): another version is another content."""


class WeightFile(Protocol):
    """`tensor` gives a view of the file's private memory map: writing to it would not reach the file, but every later
    reader of the same opened file. Copy before you change anything."""

    @property
    def path(self) -> Path: ...
    @property
    def header(self) -> Header: ...
    @property
    def version(self) -> FileVersion: ...
    def open(self) -> None:
        """Maps the file if it is not yet. Raises UnsupportedModel if it cannot be, or was changed since."""

    def tensor(self, key: str) -> Tensor: ...
    def close(self) -> None: ...


def open_weights(path: Path) -> WeightFile:
    """Raises UnsupportedModel if the file's header cannot be read."""
    return PickleFile(path) if path.suffix.lower() in PICKLE_SUFFIXES else SafetensorsFile(path)


def version_of(path: Path) -> FileVersion:
    """Raises UnsupportedModel if there is no such file."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UnsupportedModel(path, f"it cannot be read ({error.strerror})") from error
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


class SafetensorsFile:
    """A .safetensors file. The map is kept until `close`, and opens again at the next `tensor`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = version_of(path)
        self.header = read_header(path)
        self._opened: safe_open | None = None

    def open(self) -> None:
        if self._opened is None:
            refuse_changed(self)
            with translated_read_errors(self.path):
                self._opened = safe_open(self.path, framework="pt", device="cpu")

    def tensor(self, key: str) -> Tensor:
        """Raises UnsupportedModel if the data is not there, or the file was changed since it was first read."""
        self.open()
        with translated_read_errors(self.path):
            tensor: Tensor = self._opened.get_tensor(key)  # type: ignore[union-attr]
        return tensor

    def close(self) -> None:
        self._opened = None


class PickleFile:
    """A .ckpt, .pt, .bin or .pth file, through torch's restricted reader."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = version_of(path)
        self.header = read_pickle_header(path)
        self._tensors: Mapping[str, Tensor] | None = None

    def open(self) -> None:
        if self._tensors is None:
            refuse_changed(self)
            self._tensors = read_pickle(self.path)

    def tensor(self, key: str) -> Tensor:
        """Raises UnsupportedModel if the file was changed since it was first read."""
        self.open()
        return (self._tensors or {})[key]

    def close(self) -> None:
        self._tensors = None


def refuse_changed(file: WeightFile) -> None:
    """Raises UnsupportedModel if `file` is no longer what its header was read from."""
    if version_of(file.path) != file.version:
        raise UnsupportedModel(file.path, "it was changed while it was in use", hint="Load the model again.")


@contextlib.contextmanager
def translated_read_errors(path: Path) -> Iterator[None]:
    """Turns the reader's errors into UnsupportedModel."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise UnsupportedModel(
            path, f"it is damaged or cut off ({error})", hint="Copy or download it again."
        ) from error


def byte_view(tensor: Tensor) -> Tensor:
    """`tensor`'s bytes, so that NaN equals NaN."""
    return tensor.contiguous().view(torch.uint8) if tensor.ndim else tensor.reshape(1).view(torch.uint8)

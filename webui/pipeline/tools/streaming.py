"""Writes a safetensors file tensor by tensor, so that a model of any size needs memory for its largest tensor only.

Format: https://huggingface.co/docs/safetensors.
"""

import errno
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from webui.errors import StorageError
from webui.library.disk_space import require_space
from webui.library.tool_models import refuse_existing
from webui.pipeline.dtypes import DTYPE_NAMES

ALIGNMENT = 8
FREE_SOME = "Free some space there, or choose another folder, and try again."

Report = Callable[[int, int], None]
"""(bytes written, bytes in all); may raise to stop, which removes the unfinished file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTensor:
    """A tensor that `make` will give when its turn comes, in `shape` and `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_streaming(
    path: Path,
    tensors: Iterable[PlannedTensor],
    metadata: Mapping[str, str],
    *,
    report: Report = lambda done, total: None,
) -> None:
    """Writes `tensors` to the new file `path`; it appears when it is whole.

    Raises StorageError if `path` exists, cannot be written or would fill the disk, and whatever `make` and `report`
    raise.
    """
    planned = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))  # keeps every start aligned
    refuse_existing(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_space(path.parent, sum(tensor.size_bytes for tensor in planned), what=path.name, hint=FREE_SOME)
        with part.open("wb") as file:
            file.write(_header(planned, metadata))
            _write_data(file.write, planned, report)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise translated(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def translated(path: Path, error: OSError) -> StorageError:
    """What went wrong while `path` was written, and what to do."""
    if error.errno == errno.ENOSPC:
        return StorageError(f"The disk is full: {path.name} was not written.", hint="Free some space and try again.")
    return StorageError(
        f"{path.name} cannot be written in {path.parent} ({error.strerror or error}).", hint="Choose another folder."
    )


def _write_data(write: Callable[[memoryview], object], planned: Sequence[PlannedTensor], report: Report) -> None:
    total = sum(tensor.size_bytes for tensor in planned)
    done = 0
    for tensor in planned:
        value = tensor.make()
        if tuple(value.shape) != tensor.shape:
            raise ValueError(f"{tensor.name} was planned as {tensor.shape} and came as {tuple(value.shape)}.")
        data = value.detach().to("cpu", tensor.dtype).contiguous().reshape(-1).view(torch.uint8).numpy()
        write(data.data)
        done += tensor.size_bytes
        report(done, total)


def _header(planned: Sequence[PlannedTensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for tensor in planned:
        if tensor.name in entries:
            raise ValueError(f"Two tensors are named {tensor.name}.")
        end = start + tensor.size_bytes
        entries[tensor.name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text

"""Old weight files (.ckpt, .pt, .bin, .pth), read without running what they contain.

Such files are Python pickles, which may hold any program. Only torch's restricted reader is used: it builds tensors and
plain containers and refuses everything else.
"""

import pickle
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.library.header import Header, TensorInfo
from webui.pipeline.dtypes import DTYPE_NAMES


class _Bystander:
    """Stands for a class that training tools leave in their files and that no weight needs."""


_scalar = np.float64(0).__reduce__()[0]  # numpy's rebuilder of its scalars, which moved between modules
HARMLESS: list[Any] = [
    (_Bystander, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_Bystander, "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
    (_Bystander, "torch.nn.modules.container.ParameterDict"),  # the first textual inversions; its contents are plain
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]
"""Names that real checkpoints carry besides tensors; none of them can be made to act."""


_one_reader = threading.Lock()
"""torch keeps its list of allowed names for the whole process, and pictures and tools read files at the same time."""

READ_ERRORS = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError)
REFUSED = re.compile(r"GLOBAL (\S+)|Can only (?:create|build)[^.]*got (.+)")


def read_pickle_header(path: Path) -> Header:
    """Names, shapes and types of the tensors in an old weight file; its data is not read.

    Raises UnsupportedModel if the file is damaged or holds more than data.
    """
    tensors = read_pickle(path, map_location="meta")
    known = {name: value for name, value in tensors.items() if value.dtype in DTYPE_NAMES}
    infos = {name: TensorInfo(DTYPE_NAMES[value.dtype], tuple(value.shape)) for name, value in known.items()}
    return Header(tensors=infos, metadata={}, data_start=0)


def read_pickle(path: Path, *, map_location: str = "cpu") -> dict[str, Tensor]:
    """The tensors of an old weight file, memory-mapped where its format allows (torch 1.6 and later).

    Raises UnsupportedModel if the file is damaged or holds more than data.
    """
    return _tensors(read_content(path, map_location=map_location))


def read_content(path: Path, *, map_location: str = "cpu") -> object:
    """All of an old file as it was saved: tensors in plain containers. Raises as `read_pickle` does."""
    try:
        with path.open("rb") as file:
            mapped = file.read(2) == b"PK"
        with _one_reader, torch.serialization.safe_globals(HARMLESS):
            content: object = torch.load(path, weights_only=True, mmap=mapped, map_location=map_location)
    except (pickle.UnpicklingError, *READ_ERRORS) as error:
        if refused := _refused(error):
            raise UnsupportedModel(
                path,
                f"it holds more than weights, and could run a program when opened ({refused})",
                hint="Look for the same model as .safetensors.",
            ) from error
        reason = (str(error).split(". ")[0].splitlines() or ["it ends too early"])[0]
        raise UnsupportedModel(
            path, f"it is damaged or cut off ({reason})", hint="Copy or download it again."
        ) from error
    return content


def _tensors(content: object) -> dict[str, Tensor]:
    """Training tools nest the weights under "state_dict"; everything else beside them is left out."""
    if not isinstance(content, Mapping):
        return {}
    nested = content.get("state_dict")
    weights = nested if isinstance(nested, Mapping) else content
    return {str(name): value.detach() for name, value in weights.items() if isinstance(value, Tensor)}


def _refused(error: Exception) -> str:
    """The name that torch's reader refused, out of its page of advice; empty if the file is merely damaged."""
    found = REFUSED.search(str(error))
    return found.group(1) or found.group(2) if found else ""

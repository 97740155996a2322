"""What an old weight file (.ckpt, .pt, .bin, .pth) holds: names, shapes and types, without torch.

Such files are Python pickles. Every class and function that one names is replaced by a stand-in that does nothing, so
that whatever it asks for, nothing happens; its weights are later read by torch's restricted reader alone.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from webui.errors import UnsupportedModel
from webui.library.header import Header, TensorInfo

MAX_PICKLE_BYTES = 100_000_000
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value in files of torch before 1.6, which hold four pickles one after the other."""
DTYPES: Mapping[str, str] = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
MAX_DEPTH = 8
READ_ERRORS = (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, KeyError, IndexError, TypeError,
               AttributeError, RecursionError, OverflowError, MemoryError, NotImplementedError)  # fmt: skip


def read_old_header(path: Path) -> Header:
    """Names as `state_dict` or the nested containers give them, joined by dots.

    Raises UnsupportedModel for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = _zipped(file) if zipfile.is_zipfile(file) else _legacy(file)
    except OSError as error:
        raise UnsupportedModel(path, f"it cannot be read ({error.strerror or error})") from error
    except READ_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnsupportedModel(
            path, f"it is damaged or cut off ({reason})", hint="Copy or download it again."
        ) from error
    nested = content.get("state_dict") if isinstance(content, dict) else None
    weights = nested if isinstance(nested, dict) else content
    return Header(tensors=dict(_flat(weights, "", 0)), metadata={}, data_start=0)


def _zipped(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if name is None:
            raise ValueError("it is a zip archive without weights of torch")
        if archive.getinfo(name).file_size > MAX_PICKLE_BYTES:
            raise ValueError("its list of contents is too long")
        return _Reader(io.BytesIO(archive.read(name))).load()


def _legacy(file: IO[bytes]) -> Any:
    file.seek(0)
    if _Reader(file).load() != LEGACY_MAGIC:
        raise ValueError("it is a pickle, but not one of torch")
    for _ in range(2):  # version and system
        _Reader(file).load()
    return _Reader(file).load()


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, TensorInfo]]:
    if isinstance(value, TensorInfo):
        yield name or "weight", value
    elif depth < MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, f"{name}.{key}" if name else str(key), depth + 1)


class _Ignored:
    """Stands for whatever else a file names."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Does nothing."""

    def __setstate__(self, state: Any) -> None:
        """Does nothing."""


class _Storage(str):
    """The type of a tensor's values, in safetensors' words."""

    __slots__ = ()


class _Reader(pickle.Unpickler):
    """Looks nothing up: a name gives its stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "collections" and name == "OrderedDict":
            return dict
        if module in ("torch", "torch.storage") and name in DTYPES:
            return _Storage(DTYPES[name])
        return _STAND_INS.get(name, _Ignored) if module.startswith("torch.") else _Ignored

    def persistent_load(self, reference: Any) -> Any:
        """A tensor's values: ("storage", type, key, device, count). Only the type is kept."""
        return reference[1]


def _tensor(storage: Any, offset: Any, size: Any, *rest: Any) -> TensorInfo:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has values of an unknown type")
    return TensorInfo(str(storage), tuple(int(n) for n in size))


def _first(value: Any, *rest: Any) -> Any:
    return value


_STAND_INS: Mapping[str, Any] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_parameter": _first,
    "Size": tuple,
}

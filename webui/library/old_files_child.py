"""The child process that reads the headers of old weight files; see old_files. Imports the standard library alone.

Reads a line per file, its path in hex, and answers with a line of JSON: {"tensors": [[name, type, shape], ...]} or
{"problem": reason, "hint": what to do}. Every class and function that a pickle names is
replaced by a stand-in that does nothing.
"""

import contextlib
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

if sys.platform != "win32":
    import resource

MAX_PICKLE_BYTES = 100_000_000
MAX_MEMORY_BYTES = 2**30
MAX_CPU_S = 5
"""Per file."""
MAX_NAMES = 100_000
MAX_VALUES = 1_000_000
"""Looked at in search of tensors: lists that hold one another many times over have no end otherwise."""
MAX_NAME_CHARS = 1000
MAX_DEPTH = 8
MAX_AXES = 8
MAX_SIZE = 2**63 - 1
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value in files of torch before 1.6, which hold four pickles one after the other."""
DTYPES: Mapping[str, str] = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip


def main() -> None:
    """Answers until its input ends."""
    for line in sys.stdin:
        _limit()
        answer = json.dumps(_answer(os.fsdecode(bytes.fromhex(line.strip()))))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _limit() -> None:
    """Where the system can do that; elsewhere only the parent's patience is limited."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(ValueError, OSError):
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + MAX_CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _answer(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib would take half of this process's time to start
            return {"tensors": tensors_in(file)}
    except OSError as error:
        return {"problem": f"it cannot be read ({error.strerror or error})"}
    except MemoryError:
        return {"problem": "it asks for more memory than the list of a model's weights needs"}
    except TooMuch as error:
        return {"problem": str(error)}
    except Exception as error:  # noqa: BLE001 - a pickle can make its reader raise anything; all of it means this
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return {"problem": f"it is damaged or cut off ({reason})", "hint": "Copy or download it again."}


class TooMuch(Exception):
    """More than any model has; the message says of what."""


def tensors_in(file: IO[bytes]) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, type, shape) of each. Raises whatever a file makes it raise."""
    content = _zipped(file) if zipfile.is_zipfile(file) else _legacy(file)
    nested = content.get("state_dict") if isinstance(content, dict) else None
    weights = nested if isinstance(nested, dict) else content
    found: dict[str, _Tensor] = {}
    for number, (name, tensor) in enumerate(_values(weights, "", 0)):
        if number >= MAX_VALUES or len(found) >= MAX_NAMES:
            raise TooMuch(f"it holds more than {MAX_NAMES:,} weights")
        if tensor is not None:
            found[name] = tensor
    return [(name, tensor.dtype, tensor.shape) for name, tensor in found.items()]


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


class _Tensor:
    """What a weight is, instead of the weight."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        if len(shape) > MAX_AXES or not all(0 <= size <= MAX_SIZE for size in shape):
            raise ValueError("a tensor has a shape that no tensor has")
        self.dtype = dtype
        self.shape = shape


def _values(value: Any, name: str, depth: int) -> Iterator[tuple[str, _Tensor | None]]:
    """Tensors by name; None for everything else, so that it can be counted."""
    if len(name) > MAX_NAME_CHARS:
        raise TooMuch(f"it has names of more than {MAX_NAME_CHARS:,} characters")
    if isinstance(value, _Tensor):
        yield name or "weight", value
        return
    yield name, None
    if depth < MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(inner, f"{name}.{key}" if name else str(key), depth + 1)


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


def _tensor(storage: Any, offset: Any, size: Any, *rest: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has values of an unknown type")
    return _Tensor(str(storage), tuple(int(n) for n in size))


def _first(value: Any, *rest: Any) -> Any:
    return value


_STAND_INS: Mapping[str, Any] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_parameter": _first,
    "Size": tuple,
}

if __name__ == "__main__":
    main()

"""Which memory layout is faster for a U-Net on this machine: measured once for each width, and noted in a file."""

import contextlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class MeasuredLayouts:
    """What was measured, by network. Without a file, or where it cannot be written, it lasts as long as the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._names: dict[str, str] = _read(path)

    def find(self, config: Any, dtype: torch.dtype, native_size: int) -> torch.memory_format | None:
        """The layout noted for a U-Net with `config` that makes pictures of `native_size` pixels."""
        return LAYOUTS.get(self._names.get(_key(config, dtype, native_size), ""))

    def note(self, config: Any, dtype: torch.dtype, native_size: int, layout: torch.memory_format) -> None:
        """Remembers what was measured."""
        (name,) = (name for name, value in LAYOUTS.items() if value == layout)
        self._names[_key(config, dtype, native_size)] = name
        if self._path is not None:
            with contextlib.suppress(OSError):  # it is measured again next time
                self._path.parent.mkdir(parents=True, exist_ok=True)
                new = self._path.with_suffix(f".{os.getpid()}.new")
                new.write_text(json.dumps(self._names, indent=1), encoding="utf-8")
                new.replace(self._path)


def _key(config: Any, dtype: torch.dtype, native_size: int) -> str:
    """Other widths, sizes, libraries or processors may come out otherwise."""
    widths = "-".join(map(str, config["block_out_channels"]))
    machine = f"{platform.processor() or platform.machine()} {torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {machine}, {str(dtype).removeprefix('torch.')}, {widths}, {native_size} px"


def _read(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(name) for key, name in names.items()}
    except (OSError, ValueError, AttributeError):  # a note that is missing or damaged is made anew
        return {}

"""Adapter files that are kept open: read once, their weights kept in memory within a bound, read again when changed."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from webui.pipeline.adapters.reading import AdapterFile, read_adapter
from webui.pipeline.adapters.targets import AdapterGroup
from webui.pipeline.weight_files import FileVersion, version_of

KEPT_BYTES = 512 * 2**20
"""Of adapters' weights in memory: about twenty for SD 1.5, three large ones for SDXL."""


class AdapterFiles:
    """Used by the thread of the device's lane only."""

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[Path, tuple[FileVersion, AdapterFile, dict[str, _Kept]]] = OrderedDict()

    def open(self, path: Path) -> tuple[AdapterFile, FileVersion]:
        """The adapter, and what tells its content from all others'. Raises UnsupportedModel."""
        version = version_of(path)
        opened = self._files.get(path)
        if opened is None or opened[0] != version:
            file = read_adapter(path)
            kept = {prefix: _Kept(group.tensors) for prefix, group in file.groups.items()}
            groups = {
                prefix: AdapterGroup(prefix=prefix, shapes=group.shapes, tensors=kept[prefix])
                for prefix, group in file.groups.items()
            }
            opened = version, replace(file, groups=groups), kept
            self._files[path] = opened
        self._files.move_to_end(path)
        self._trim()
        return opened[1], version

    @property
    def kept_bytes(self) -> int:
        """Of weights in memory."""
        return sum(tensors.nbytes for _, _, kept in self._files.values() for tensors in kept.values())

    def _trim(self) -> None:
        """The least recently used let go of their weights, and are read again when they are needed."""
        for path in list(self._files)[:-1]:
            if self.kept_bytes <= self._max_bytes:
                return
            for tensors in self._files[path][2].values():
                tensors.let_go()


class _Kept(Mapping[str, Tensor]):
    """Tensors that are kept once they were read."""

    def __init__(self, stored: Mapping[str, Tensor]) -> None:
        self._stored = stored
        self._kept: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._kept:
            self._kept[name] = self._stored[name]
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._kept.values())

    def let_go(self) -> None:
        self._kept.clear()

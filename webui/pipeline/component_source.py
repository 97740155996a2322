"""The weights of one network in its files: under the network's own names, opened lazily, in the file's dtype."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.library.header import TensorInfo
from webui.pipeline.layouts import Config, Transform
from webui.pipeline.networks import effective_config
from webui.pipeline.weight_files import WeightFile, byte_view, version_of

THIRDS: Mapping[Transform, int] = MappingProxyType({"first_third": 0, "second_third": 1, "last_third": 2})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one weight of a network lies."""

    file: WeightFile
    key: str
    transform: Transform = "same"


class ComponentSource:
    """The weights of one network in its files. Tensors are views of the memory map: copy before changing one."""

    def __init__(self, name: str, path: Path, config: Config, origins: Mapping[str, Origin]) -> None:
        """`path` is the checkpoint, for messages; `config` is as diffusers or transformers write it."""
        self.name = name
        self.path = path
        self.config = config
        self.origins = origins

    def names(self) -> Sequence[str]:
        """Names of the weights, as in the network's own state dict."""
        return tuple(self.origins)

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a weight, from the file's header alone. Raises KeyError."""
        origin = self.origins[name]
        info = origin.file.header.tensors[origin.key]
        return TensorInfo(info.dtype, _shape(info.shape, origin.transform))

    def tensor(self, name: str) -> Tensor:
        """A weight in the file's dtype and the network's shape. Raises KeyError, or UnsupportedModel on reading."""
        origin = self.origins[name]
        return transformed(origin.file.tensor(origin.key), origin.transform)

    @cached_property
    def key(self) -> str:
        """Where the content comes from: files with their versions, and what of them. The same key is the same content.

        Components that are shared keep the key of the file they were first read from, see `same_content`.
        """
        files = sorted(":".join(map(str, file.version)) for file in self._files())
        first = next(iter(self.origins.values())).key if self.origins else ""
        return "|".join((self.name, *files, first))

    @property
    def num_values(self) -> int:
        return sum(math.prod(self.info(name).shape) for name in self.origins)

    def is_current(self) -> bool:
        """Whether the files are still what was read. The map of one that was written in place shows new values."""
        try:
            return all(version_of(file.path) == file.version for file in self._files())
        except UnsupportedModel:  # it is gone
            return False

    def open(self) -> None:
        """Maps the files now, so that `tensor` may be called from several threads. Raises UnsupportedModel."""
        for file in self._files():
            file.open()

    def close(self) -> None:
        """Gives the memory maps back; the next `tensor` opens them again."""
        for file in self._files():
            file.close()

    def _files(self) -> list[WeightFile]:
        return list({id(origin.file): origin.file for origin in self.origins.values()}.values())


def transformed(tensor: Tensor, transform: Transform) -> Tensor:
    """A view of the file's `tensor` in the network's shape."""
    if transform in THIRDS:
        return tensor.chunk(3)[THIRDS[transform]]
    if transform == "transposed":
        return tensor.T
    return tensor[:, :, 0, 0] if transform == "conv1x1" and tensor.ndim == 4 else tensor


def to_original(parts: Mapping[Transform, Tensor]) -> Tensor:
    """The inverse of `transformed`: one tensor of an original file from the network's weights, by their transforms."""
    if set(parts) == set(THIRDS):
        return torch.cat([parts[third] for third in THIRDS])
    ((transform, tensor),) = parts.items()
    if transform == "transposed":
        return tensor.T.contiguous()
    return tensor[:, :, None, None] if transform == "conv1x1" else tensor


def same_content(one: ComponentSource, other: ComponentSource) -> bool:
    """Whether two sources hold the same network: equal configs and equal bytes in every weight.

    Exact, and cheap where they differ: it stops at the first difference, the smallest weights coming first.
    """
    if one.key == other.key:
        return True
    if one.name != other.name or set(one.names()) != set(other.names()):
        return False
    if effective_config(one.name, one.config) != effective_config(other.name, other.config):
        return False
    names = sorted(one.names(), key=lambda name: math.prod(one.info(name).shape))
    if any(one.info(name) != other.info(name) for name in names):
        return False
    return all(torch.equal(byte_view(one.tensor(name)), byte_view(other.tensor(name))) for name in names)


def _shape(shape: tuple[int, ...], transform: Transform) -> tuple[int, ...]:
    if transform in THIRDS:
        return (shape[0] // 3, *shape[1:])
    if transform == "transposed":
        return shape[::-1]
    return shape[:2] if transform == "conv1x1" else shape

"""What was encoded once, kept in memory or on disk under a key that names everything that went into it.

So nothing is ever stale: another picture, crop, size, or autoencoder is another key. A damaged file is made again.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from webui.errors import StorageError
from webui.library.whole_files import write_whole
from webui.pipeline.weight_files import byte_view
from webui.training.config import CacheWhere

Tensors = Mapping[str, Tensor]


class TensorCache:
    """Tensors by key. `folder` is where "disk" keeps them; several processes may share it."""

    def __init__(self, where: CacheWhere, folder: Path) -> None:
        self._where = where
        self._folder = folder
        self._kept: dict[str, Tensors] = {}

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """What `make` gives, or gave before. On the processor, without gradients; not to be changed.

        Raises StorageError where it cannot be written.
        """
        if self._where == "off":
            return _settled(make())
        if self._where == "disk":
            return self._from_disk(key, make)
        if key not in self._kept:
            self._kept[key] = _settled(make())
        return self._kept[key]

    def path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def _from_disk(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        path = self.path(key)
        tensors = _read(path, key)
        if tensors is None:
            tensors = _settled(make())
            _write(path, key, tensors)
        return tensors


def latent_key(content: str, area: tuple[float, ...], size: tuple[int, int], *, flipped: bool, encoder: str) -> str:
    """`content` is the photo's hash, `encoder` the autoencoder's digest."""
    place = " ".join(f"{edge:.3f}" for edge in area)
    return f"latent {content} {place} {size[0]}x{size[1]} {'flipped' if flipped else 'as it is'} {encoder}"


def text_key(caption: str, *, clip_skip: int, encoders: str) -> str:
    """`encoders` is the digest of all text encoders."""
    return f"text {encoders} {clip_skip} {caption}"


def weights_digest(*modules: nn.Module) -> str:
    """Of every weight, with its name, shape and type."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
            digest.update(byte_view(value.detach().cpu().contiguous()).numpy().data)
    return digest.hexdigest()


def _settled(tensors: Tensors) -> Tensors:
    """Copies that can be trained with, whatever mode they were made in."""
    with torch.inference_mode(mode=False):
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _read(path: Path, key: str) -> Tensors | None:
    """None where there is no file, or not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, struct.error):
        return None
    return tensors if metadata == {"key": key, "crc32": _checksum(tensors)} else None


def _write(path: Path, key: str, tensors: Tensors) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(dict(tensors), metadata={"key": key, "crc32": _checksum(tensors)}))
    except OSError as error:
        raise StorageError(
            f"What was encoded could not be kept in {path.parent.parent}: {error.strerror or error}.",
            hint="Make room on the disk, or set data.cache to memory.",
        ) from error


def _checksum(tensors: Tensors) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(byte_view(tensors[name].contiguous()).numpy().data, value)
    return f"{value:08x}"

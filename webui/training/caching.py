"""What was encoded once, kept in memory or on disk under a key that names everything that went into it.

So nothing is ever stale: another picture, crop, size, or autoencoder is another key. A damaged file is made again.
"""

import hashlib
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from webui.errors import StorageError
from webui.library.whole_files import write_whole
from webui.pipeline.weight_files import byte_view
from webui.prompt.chunks import Chunk
from webui.training.config import CacheWhere

Tensors = Mapping[str, Tensor]


class TensorCache:
    """Tensors by key. `folder` is where "disk" keeps them; several processes may share it.

    `most`: how many stay in memory, those used last; None: all.
    """

    def __init__(self, where: CacheWhere, folder: Path, *, most: int | None = None) -> None:
        self._where = where
        self._folder = folder
        self._most = most
        self._kept: OrderedDict[str, Tensors] = OrderedDict()

    def get(self, key: str, make: Callable[[], Tensors], *, passing: bool = False) -> Tensors:
        """What `make` gives, or gave before. On the processor, without gradients; not to be changed.

        `passing`: it may never be asked for again, so that "disk" makes no file of it and keeps it in memory. Raises
        StorageError where it cannot be written.
        """
        if self._where == "off":
            return _settled(make())
        if self._where == "disk" and not passing:
            return self._from_disk(key, make)
        return self._from_memory(key, make)

    @property
    def outlives_run(self) -> bool:
        """Whether another run may find what is kept, so that a key has to tell all that decides it."""
        return self._where == "disk"

    def path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def _from_memory(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        if key not in self._kept:
            self._kept[key] = _settled(make())
            if self._most is not None and len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

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


def text_key(chunks: Sequence[Chunk], *, clip_skip: int, encoders: str, computed_in: str) -> str:
    """`encoders` is the digest of all text encoders, which decide how they are read; emphasis does not count."""
    tokens = " ".join(f"{chunk.token_ids}{chunk.embeddings or ''}" for chunk in chunks)
    return f"text {encoders} {clip_skip} {computed_in} {tokens}"


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

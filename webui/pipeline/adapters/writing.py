"""Adapter files that every program reads: kohya's names and metadata in a safetensors file.

diffusers' own export is not used: it writes alpha = rank whatever alpha is, and names of text encoders that others do
not know.
"""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import save
from torch import Tensor

from webui.errors import StorageError
from webui.library.families import AdapterBase
from webui.library.whole_files import write_whole
from webui.pipeline.adapters.adapter_types import ADAPTER_TYPES, adapter_type
from webui.pipeline.adapters.targets import AdaptedComponent, Target
from webui.pipeline.layouts import Config, modules_by_original, unet_weights

TEXT_PREFIXES: Mapping[AdapterBase, Mapping[AdaptedComponent, str]] = MappingProxyType(
    {
        "sd1": {"text_encoder": "lora_te"},
        "sd2": {"text_encoder": "lora_te"},
        "sd-custom": {"text_encoder": "lora_te"},
        "sdxl": {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
        "sdxl-refiner": {"text_encoder_2": "lora_te2"},
    }
)

SGM_BASES: frozenset[AdapterBase] = frozenset({"sdxl", "sdxl-refiner"})
"""For these, U-Net modules have the original's names: all readers know them, diffusers' names only some."""

WITH_WEIGHT = frozenset({"lora_up", "lora_down", "lora_mid", "a1", "a2", "b1", "b2", "oft_R"})
"""Names that have ".weight" behind them in a file."""

HASH_KEY = "sshs_model_hash"


class KohyaNames:
    """kohya's name of every module of a model. `unet_config` is the U-Net's config."""

    def __init__(self, base: AdapterBase, unet_config: Config) -> None:
        self._base = base
        originals = modules_by_original(unet_weights(unet_config)) if base in SGM_BASES else {}
        self._unet = {path: original for original, path in originals.items()}

    def prefix(self, target: Target) -> str:
        """The part of a key before the first dot. Raises KeyError for a text encoder that the base does not have."""
        if target.component == "unet":
            return f"lora_unet_{self._unet.get(target.path, target.path).replace('.', '_')}"
        module = target.path.removeprefix("text_model.")
        parent = "" if module == "text_projection" else "text_model."
        return f"{TEXT_PREFIXES[self._base][target.component]}_{(parent + module).replace('.', '_')}"


def write_adapter(
    path: Path,
    modules: Mapping[Target, Mapping[str, Tensor]],
    names: KohyaNames,
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    embeddings: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({}),
) -> str:
    """Writes `modules`, whose tensors have our names ("lora_up", "alpha", ...), and returns the file's model hash.

    `embeddings` are textual inversions that come along: name -> part ("*", "clip_l", "clip_g") -> (vectors, width).

    Factors are stored as `dtype`; an alpha keeps float32, because half precision turns 92.3 into 92.5. `metadata`
    (ss_*, modelspec.*: the caller's to know) goes in as it is, and with it `sshs_model_hash`, by which programs tell
    the adapter of a picture. The file appears whole or not at all.
    Raises StorageError; ValueError for tensors that make no adapter.
    """
    tensors = {**_tensors(modules, names, dtype), **_bundled(embeddings, dtype)}
    return _write(path, tensors, metadata)


def write_embedding(path: Path, parts: Mapping[str, Tensor], *, dtype: torch.dtype, metadata: Mapping[str, str]) -> str:
    """Writes a textual inversion, called as the file, and returns its model hash: kohya's names for it.

    `parts` are "*" alone, or "clip_l" and "clip_g": (vectors, width) each. The file appears whole or not at all.
    Raises StorageError.
    """
    tensors = {"emb_params" if part == "*" else part: _stored(part, vectors, dtype) for part, vectors in parts.items()}
    return _write(path, tensors, metadata)


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    stored = dict(tensors)
    digest = _hash_of_weights(save(stored))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(stored, {**metadata, HASH_KEY: digest}))
    except OSError as error:
        raise StorageError(
            f"The adapter '{path.name}' could not be written: {error.strerror or error}.",
            hint="Check the space on the disk and the rights of the folder.",
        ) from error
    return digest


def _bundled(embeddings: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        f"bundle_emb.{name}.{'string_to_param.*' if part == '*' else part}": _stored(part, vectors, dtype)
        for name, parts in embeddings.items()
        for part, vectors in parts.items()
    }


def _tensors(
    modules: Mapping[Target, Mapping[str, Tensor]], names: KohyaNames, dtype: torch.dtype
) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}
    for target, group in modules.items():
        if adapter_type({name: tuple(tensor.shape) for name, tensor in group.items()}) is None:
            known = ", ".join(row.label for row in ADAPTER_TYPES)
            raise ValueError(f"{', '.join(group)} of {target.path} make none of {known}")
        for name, tensor in group.items():
            key = f"{names.prefix(target)}.{name}{'.weight' if name in WITH_WEIGHT else ''}"
            found[key] = _stored(name, tensor, dtype)
    return found


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32 if name in {"alpha", "scale"} else dtype)
    return tensor.detach().cpu().contiguous()


def _hash_of_weights(file: bytes) -> str:
    """SHA-256 of what comes after a safetensors header, as kohya's trainer computes it: metadata does not count."""
    (length,) = struct.unpack("<Q", file[:8])
    return hashlib.sha256(memoryview(file)[8 + length :]).hexdigest()

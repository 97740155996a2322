"""Checkpoint folders in diffusers layout, read without a copy too many.

Modules are made without memory (meta device); the weights are memory-mapped and assigned, converted to the working
precision tensor by tensor. Nothing is ever fetched from a network, and only safetensors files are read.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from webui.errors import UnsupportedModel

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
                "model.safetensors", "model.fp16.safetensors")  # fmt: skip


def load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """The U-Net of `folder`, in eval mode on the CPU. Raises UnsupportedModel with the reason."""
    return _load(UNet2DConditionModel, read_config(folder), folder, dtype)


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder of `folder`, in eval mode on the CPU. Raises UnsupportedModel with the reason."""
    return _load(AutoencoderKL, read_config(folder), folder, dtype, rename=_current_attention_name)


def load_tiny_decoder(folder: Path, dtype: torch.dtype) -> AutoencoderTiny:
    """A small decoder for previews, in TAESD's shape. Raises UnsupportedModel with the reason."""
    return _load(AutoencoderTiny, read_config(folder), folder, dtype)


def load_text_model(folder: Path, dtype: torch.dtype) -> CLIPTextModel:
    """The CLIP text model of `folder`, in eval mode on the CPU. Raises UnsupportedModel with the reason."""
    config = CLIPTextConfig.from_dict(read_config(folder))
    with torch.device("meta"):
        model = CLIPTextModel(config)
    weights = {key.removeprefix("text_model."): value for key, value in _weights(folder).items()}
    weights.pop("embeddings.position_ids", None)  # files from before transformers 4.31 carry this buffer
    _assign(model, weights, folder, dtype)
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """A component's config. Raises UnsupportedModel if there is none."""
    name = "scheduler_config.json" if folder.name == "scheduler" else "config.json"
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel(folder.parent, f"{folder.name}/{name} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UnsupportedModel(folder.parent, f"{folder.name}/{name} is not a JSON object")
    return value


def _load(
    kind: type[Any],
    config: Mapping[str, Any],
    folder: Path,
    dtype: torch.dtype,
    rename: Callable[[str], str] = lambda key: key,
) -> Any:
    known = inspect.signature(kind.__init__).parameters
    arguments = {key: value for key, value in config.items() if key in known}
    try:
        with torch.device("meta"):
            model = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UnsupportedModel(folder.parent, f"{folder.name}/config.json does not fit ({error})") from error
    _assign(model, {rename(key): value for key, value in _weights(folder).items()}, folder, dtype)
    return model


def _current_attention_name(key: str) -> str:
    """Autoencoders saved before diffusers 0.15 have other names in their mid attention."""
    if ".attentions." not in key:
        return key
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        key = key.replace(f".{old}.", f".{new}.")
    return key


def _weights(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            try:
                return load_file(path)
            except (SafetensorError, OSError) as error:
                reason = f"{folder.name}/{name} is damaged or cut off ({error})"
                raise UnsupportedModel(folder.parent, reason, hint="Copy the file again.") from error
    raise UnsupportedModel(folder.parent, f"{folder.name} has no .safetensors weights")


def _assign(model: nn.Module, weights: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
    converted = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    try:
        model.load_state_dict(converted, strict=True, assign=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise UnsupportedModel(
            folder.parent, f"{folder.name}'s weights do not fit its config: {lines[-1].strip()}"
        ) from error
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta:
            _restore_buffer(model, name, buffer)
    model.eval().requires_grad_(False)


def _restore_buffer(model: nn.Module, name: str, buffer: Tensor) -> None:
    """Buffers that files leave out: CLIP's position ids count from 0."""
    owner, _, attribute = name.rpartition(".")
    if attribute != "position_ids":
        raise RuntimeError(f"No rule to fill the buffer {name}.")
    model.get_submodule(owner).register_buffer(
        attribute, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False
    )

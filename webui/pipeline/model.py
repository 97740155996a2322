"""A checkpoint that is ready to run: its networks on the device, and what its noise levels mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from webui.errors import UnsupportedModel
from webui.library.catalog import CheckpointInfo
from webui.library.families import FAMILIES, Family, PredictionType
from webui.pipeline.adapters.stack import AdapterStack
from webui.pipeline.components import Component
from webui.pipeline.conditioning import Condition, UNetInputs
from webui.pipeline.device import Device, probe_memory_format
from webui.pipeline.latents import LatentCodec
from webui.pipeline.preview import Previewer
from webui.pipeline.schedules import NoiseLevels
from webui.pipeline.sources import CheckpointSource
from webui.pipeline.text_encoding import CLIP_RULES, ClipEncoder, TextEncoder
from webui.prompt.tokenizer import ClipTokenizer

PROBE_SIDE = 32
"""Latents; larger ones would take seconds to measure and prefer the same layout."""

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """All that a generation needs of a checkpoint. Used by the thread of the device's lane only."""

    info: CheckpointInfo
    components: Mapping[str, Component]
    """The networks below, as the cache keeps them."""
    vae_path: Path | None
    """The autoencoder's own file; None where it is the checkpoint's."""
    family: Family
    device: Device
    unet: UNet2DConditionModel
    inputs: UNetInputs
    text_encoder: TextEncoder
    codec: LatentCodec
    previewer: Previewer
    levels: NoiseLevels
    prediction_type: PredictionType
    adapters: AdapterStack

    def predict(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """The U-Net's answer, (rows, C, h, w) float32, to the scaled latent `x` of the same shape."""
        unet = self.unet
        if condition.channels is not None:
            x = torch.cat([x, condition.channels], dim=1)
        added = {"text_embeds": condition.pooled, "time_ids": condition.time_ids} if self.inputs.num_time_ids else None
        output: Tensor = unet(
            x.to(unet.dtype),
            timestep,
            encoder_hidden_states=condition.context.to(unet.dtype),
            timestep_cond=None if condition.timestep_cond is None else condition.timestep_cond.to(unet.dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output.float()


def assemble(
    source: CheckpointSource, components: Mapping[str, Component], device: Device, *, vae_path: Path | None = None
) -> Model:
    """The model of `components`, by their names in `source` and already where and as they are to run.

    `vae_path` is the file that the autoencoder came from instead of the checkpoint.

    Raises UnsupportedModel if they do not fit together.
    """
    info = source.info
    family = FAMILIES[info.family]
    modules = {name: component.module for name, component in components.items()}
    unet: Any = modules["unet"]
    codec = LatentCodec(modules["vae"], device)
    return Model(
        info=info,
        components=components,
        vae_path=vae_path,
        family=family,
        device=device,
        unet=unet,
        inputs=_inputs_of(source, unet, modules, codec),
        text_encoder=_text_encoder_of(source, family, components),
        codec=codec,
        previewer=Previewer(codec, modules.get("tiny_decoder"), family.adapter_base),
        levels=_levels_of(source),
        prediction_type=info.prediction_type,
        adapters=AdapterStack(components, family, unet.config),
    )


def component_dtype(name: str, config: Mapping[str, Any], device: Device) -> torch.dtype:
    """The precision in which a component with this config (the file's, without a library's defaults) runs on `device`.

    The tiny decoder always has float32. So has the autoencoder on a processor, where bf16 is slower, and in place of
    float16 where its config says that it overflows.
    """
    overflows = device.dtype == torch.float16 and config.get("force_upcast") is True
    if name == "tiny_decoder" or (name == "vae" and (device.is_cpu or overflows)):
        return torch.float32
    return device.dtype


def choose_layout(unet: Any, device: Device, native_size: int) -> torch.memory_format:
    """Puts the U-Net in the memory layout in which its first block is faster on this processor."""
    config = unet.config
    side = min(native_size // 8, PROBE_SIDE)
    width = config.block_out_channels[0]
    x = torch.randn(2, width, side, side, dtype=device.dtype)
    emb = torch.randn(2, width * 4, dtype=device.dtype)
    context = torch.randn(2, 77, config.cross_attention_dim, dtype=device.dtype)
    block = unet.down_blocks[0]
    arguments = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}

    def run(module: torch.nn.Module, layout: torch.memory_format) -> Tensor:
        output: Tensor = module(x.contiguous(memory_format=layout), emb, **arguments)[0]
        return output

    with torch.no_grad():  # weights that inference mode lays out anew could never be trained on
        layout = probe_memory_format(block, run)
    unet.to(memory_format=layout)
    return layout


def _text_encoder_of(source: CheckpointSource, family: Family, components: Mapping[str, Component]) -> TextEncoder:
    rules = CLIP_RULES[family.adapter_base]
    names = [name for name in TEXT_ENCODERS if name in components]
    if len(names) != len(rules.pads_with_end):
        raise UnsupportedModel(
            source.info.path, f"it has {len(names)} text encoders, {family.label} has {len(rules.pads_with_end)}"
        )
    encoders = [
        ClipEncoder(
            components[name].module,
            ClipTokenizer(source.tokenizer(name.replace("text_encoder", "tokenizer"))),
            pads_with_end=pads_with_end,
        )
        for name, pads_with_end in zip(names, rules.pads_with_end, strict=True)
    ]
    return TextEncoder(encoders, rules, weights=lambda: tuple(components[name].patches.state for name in names))


def _inputs_of(source: CheckpointSource, unet: Any, modules: Mapping[str, nn.Module], codec: LatentCodec) -> UNetInputs:
    projections = (getattr(modules[name], "text_projection", None) for name in TEXT_ENCODERS if name in modules)
    widths = [projection.out_features for projection in projections if projection is not None]
    try:
        return UNetInputs.of(unet.config, latent_channels=codec.num_channels, pooled_width=widths[-1] if widths else 0)
    except ValueError as error:
        raise UnsupportedModel(source.info.path, str(error)) from error


def _levels_of(source: CheckpointSource) -> NoiseLevels:
    info, config = source.info, source.scheduler_config
    start, end = config.get("beta_start", 0.00085), config.get("beta_end", 0.012)
    num = int(config.get("num_train_timesteps", 1000))
    if config.get("trained_betas"):
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
    elif config.get("beta_schedule", "scaled_linear") == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, num, dtype=np.float64) ** 2
    elif config["beta_schedule"] == "linear":
        betas = np.linspace(start, end, num, dtype=np.float64)
    else:
        raise UnsupportedModel(info.path, f"its beta schedule '{config['beta_schedule']}' is unknown")
    levels = NoiseLevels.from_betas(betas)
    return levels.with_zero_terminal_snr() if config.get("rescale_betas_zero_snr") else levels

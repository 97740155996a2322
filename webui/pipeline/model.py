"""A checkpoint that is ready to run: its networks on the device, and what its noise levels mean."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.pipeline import loading
from webui.library.catalog import CheckpointInfo
from webui.pipeline.device import Device, probe_memory_format
from webui.pipeline.latents import LatentCodec
from webui.pipeline.preview import Previewer
from webui.pipeline.schedules import NoiseLevels
from webui.pipeline.text_encoding import TextEncoder
from webui.prompt.tokenizer import ClipTokenizer

PROBE_SIDE = 32
"""Latents; larger ones would take seconds to measure and prefer the same layout."""

PredictionType = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """All that a generation needs of a checkpoint. Used by the worker's thread only."""

    info: CheckpointInfo
    device: Device
    unet: UNet2DConditionModel
    text_encoder: TextEncoder
    codec: LatentCodec
    previewer: Previewer
    levels: NoiseLevels
    prediction_type: PredictionType


def load_model(info: CheckpointInfo, device: Device) -> Model:
    """Reads the folder of `info` and puts it on `device`. Raises UnsupportedModel with the reason."""
    unet = loading.load_unet(info.path / "unet", device.dtype)
    text_model = loading.load_text_model(info.path / "text_encoder", device.dtype)
    vae = loading.load_vae(info.path / "vae", _vae_dtype(device))
    tiny = info.path / "tiny_decoder"
    tiny_decoder = loading.load_tiny_decoder(tiny, torch.float32) if tiny.is_dir() else None
    levels, prediction_type = _noise_of(info)
    tokenizer = ClipTokenizer(info.path / "tokenizer")
    for network in (unet, text_model, vae, tiny_decoder):
        if network is not None:
            network.to(device.torch_device)
    choose_layout(unet, device, info.native_size)
    codec = LatentCodec(vae, device)
    return Model(
        info=info,
        device=device,
        unet=unet,
        text_encoder=TextEncoder(text_model, tokenizer, pad_id=tokenizer.end_id),
        codec=codec,
        previewer=Previewer(codec, tiny_decoder),
        levels=levels,
        prediction_type=prediction_type,
    )


def choose_layout(unet: UNet2DConditionModel, device: Device, native_size: int) -> torch.memory_format:
    """Puts the U-Net in the memory layout in which its first block is faster here."""
    if not device.is_cpu:
        unet.to(memory_format=torch.channels_last)
        return torch.channels_last
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

    with torch.inference_mode():
        layout = probe_memory_format(block, run)
    unet.to(memory_format=layout)
    return layout


def _vae_dtype(device: Device) -> torch.dtype:
    """The autoencoder stays in float32 on a processor: bf16 is slower there, and it is the part that overflows."""
    return torch.float32 if device.is_cpu else device.dtype


def _noise_of(info: CheckpointInfo) -> tuple[NoiseLevels, PredictionType]:
    config = loading.read_config(info.path / "scheduler")
    start, end = config.get("beta_start", 0.00085), config.get("beta_end", 0.012)
    num = int(config.get("num_train_timesteps", 1000))
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in get_args(PredictionType):
        raise UnsupportedModel(info.path, f"its prediction type '{prediction_type}' is unknown")
    if config.get("trained_betas"):
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
    elif config.get("beta_schedule", "scaled_linear") == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, num, dtype=np.float64) ** 2
    elif config["beta_schedule"] == "linear":
        betas = np.linspace(start, end, num, dtype=np.float64)
    else:
        raise UnsupportedModel(info.path, f"its beta schedule '{config['beta_schedule']}' is unknown")
    return NoiseLevels.from_betas(betas), prediction_type

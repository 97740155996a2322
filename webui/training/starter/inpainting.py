"""The inpainting sibling: the starter's U-Net with five more channels, trained on with pictures that have holes.

Text encoder and autoencoder stay as they are, so that both models share their files.
"""

import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from webui.training.data.holes import random_hole
from webui.training.starter.diffusion import (
    Denoiser,
    PredictionType,
    alphas_cumprod,
    draw_batch,
    noise_and_target,
)
from webui.training.starter.export import read_json, replaced, write_json
from webui.training.starter.latents import Composed, Shard, encode_pictures, save_shard
from webui.training.starter.loop import Plan, train
from webui.training.starter.muon import muon_for
from webui.training.starter.networks import LATENT_FACTOR, NATIVE_SIZE
from webui.training.starter.ranks import Ranks
from webui.training.starter.tokenizer import TokenIds

NUM_CHANNELS = 9
TITLE = "Atelier starter inpainting (icons)"
PIPELINE = "StableDiffusionInpaintPipeline"
SHARED_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler", "sample.png")
FIRST_INDEX = 100_000
"""Shards from here on: other pictures than those of the starter's own pool."""


@dataclass(frozen=True, slots=True)
class HoledSet:
    """Latents (N, 4, h, w) of unit variance, the same of pictures with holes, masks (N, 1, h, w), captions' tokens."""

    latents: npt.NDArray[np.float16]
    holed: npt.NDArray[np.float16]
    masks: npt.NDArray[np.uint8]
    token_ids: TokenIds


def widened(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy that also takes a mask and a picture (B, 9, h, w); as yet it makes nothing of them."""
    wide: UNet2DConditionModel = UNet2DConditionModel.from_config({**unet.config, "in_channels": NUM_CHANNELS})
    state = unet.state_dict()
    kernel = state["conv_in.weight"]
    more = kernel.new_zeros(kernel.shape[0], NUM_CHANNELS - kernel.shape[1], *kernel.shape[2:])
    wide.load_state_dict(state | {"conv_in.weight": torch.cat([kernel, more], dim=1)})
    return wide


def holed_shards(count: int) -> tuple[Shard, ...]:
    return tuple(Shard(FIRST_INDEX + index, NATIVE_SIZE, NATIVE_SIZE) for index in range(count))


def encode_holed(path: Path, composed: Composed, vae: AutoencoderKL, *, seed: int) -> None:
    """Encodes one shard with a hole in each picture; a kill at any moment leaves no half of it."""
    height, width = composed.pictures.shape[1:3]
    holes = np.stack([random_hole(width, height, seed=seed + row) for row in range(len(composed.pictures))]) > 0
    save_shard(
        path,
        latents=encode_pictures(vae, composed.pictures),
        holed=encode_pictures(vae, composed.pictures, holes),
        masks=holes[:, None, ::LATENT_FACTOR, ::LATENT_FACTOR].astype(np.uint8),
        token_ids=composed.token_ids,
    )


def load_holed(folder: Path, shards: tuple[Shard, ...]) -> HoledSet:
    files = [np.load(shard.path(folder)) for shard in shards]
    return HoledSet(*(np.concatenate([file[name] for file in files]) for name in HoledSet.__dataclass_fields__))


def train_inpainting(
    denoiser: Denoiser,
    pool: HoledSet,
    empty_ids: TokenIds,
    plan: Plan,
    *,
    batch_size: int,
    prediction_type: PredictionType,
    seed: int,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
) -> nn.Module:
    """Trains the U-Net of `denoiser` (9 channels) to the end of `plan`; returns its averaged weights.

    `batch_size` is over all ranks.
    """
    signal = alphas_cumprod().to(ranks.device)
    count = batch_size // ranks.count
    unet = denoiser.unet

    def loss_of(step: int) -> Tensor:
        batch = draw_batch(pool.latents, pool.token_ids, empty_ids, count=count, seed=seed, step=step, ranks=ranks)
        holed, masks = (
            torch.from_numpy(values[batch.rows]).to(ranks.device).float() for values in (pool.holed, pool.masks)
        )
        with ranks.autocast():
            with torch.no_grad():
                context = denoiser.encode_text(batch.token_ids)
            noisy, target = noise_and_target(batch.clean, batch.noise, signal[batch.timesteps], prediction_type)
            seen = torch.cat([noisy, masks, holed], dim=1).contiguous(memory_format=torch.channels_last)
            return functional.mse_loss(unet(seen, batch.timesteps, context).sample.float(), target)

    denoiser.to(ranks.device)
    unet.to(memory_format=torch.channels_last)
    optimizer = muon_for(unet, learning_rate=plan.learning_rate, plain=("conv_in", "conv_out"), ranks=ranks)
    return train(unet, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=on_checkpoint)


def export_inpainting(
    folder: Path, *, starter: Path, unet: UNet2DConditionModel, provenance: Mapping[str, object]
) -> None:
    """Writes the model of which all but the U-Net is that of the exported model `starter`."""
    with replaced(folder) as fresh:
        for part in SHARED_PARTS:
            copy = shutil.copytree if (starter / part).is_dir() else shutil.copy2
            copy(starter / part, fresh / part)
        deepcopy(unet).cpu().half().save_pretrained(fresh / "unet")
        config = read_json(fresh / "unet" / "config.json")
        config.pop("_name_or_path", None)  # where it was read from
        write_json(fresh / "unet" / "config.json", config)
        write_json(fresh / "model_index.json", {**read_json(starter / "model_index.json"), "_class_name": PIPELINE})
        words = read_json(starter / "atelier.json")
        write_json(
            fresh / "atelier.json", {**words, "title": TITLE, "provenance": {**words["provenance"], **provenance}}
        )

"""The U-Net and text encoder stage: squared error at every noise level, on the pool of latents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel

from webui.training.config import LossWeighting
from webui.training.losses import weights_of_levels
from webui.training.starter.latents import LatentSet
from webui.training.starter.loop import Plan, generator_for, train
from webui.training.starter.muon import muon_for
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.ranks import Ranks, place
from webui.training.starter.tokenizer import TokenIds

PredictionType = Literal["v_prediction", "epsilon"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)
OptimizerName = Literal["muon", "adamw"]
NUM_TRAIN_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
CAPTION_DROPOUT = 0.1
PENULTIMATE_SHARE = 0.1
OTHER_SIZE_SHARE = 0.1
NATIVE = (NATIVE_SIZE, NATIVE_SIZE)
MIN_SNR_GAMMA = 5.0
NO_MATRICES = ("conv_in", "conv_out", "embeddings")
"""Parts whose weights get AdamW from Muon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is learned from how much at a time. `batch_size`: pictures per step over all ranks."""

    batch_size: int
    prediction_type: PredictionType = "v_prediction"
    weighting: LossWeighting = "none"
    optimizer: OptimizerName = "muon"


def alphas_cumprod() -> Tensor:
    """(1000,) float32, the share of signal power left at each step of Stable Diffusion's schedule."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TRAIN_TIMESTEPS, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, dim=0).float()


def scheduler(prediction_type: PredictionType) -> DDIMScheduler:
    """Stable Diffusion 1's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


class Denoiser(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def encode_text(self, token_ids: Tensor, penultimate: Tensor | None = None) -> Tensor:
        """(B, 77) to (B, 77, width); rows where `penultimate` (B,) is true skip the last layer, as clip skip 2 does."""
        output = self.text_encoder(token_ids, output_hidden_states=penultimate is not None)
        last: Tensor = output.last_hidden_state
        if penultimate is None:
            return last
        skipped = self.text_encoder.final_layer_norm(output.hidden_states[-2])
        return torch.where(penultimate[:, None, None], skipped, last)

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The predicted v or noise, shaped as `noisy` (B, 4, h, w)."""
        prediction: Tensor = self.unet(noisy, timesteps, context).sample
        return prediction


def train_denoiser(
    denoiser: Denoiser,
    pool: Mapping[tuple[int, int], LatentSet],
    empty_ids: TokenIds,
    plan: Plan,
    recipe: Recipe,
    *,
    seed: int,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
    compiled: bool = False,
) -> nn.Module:
    """Train to the end of `plan`. Returns the averaged weights.

    The pool's latents lie on the device. `compiled`: the U-Net is compiled for the size that most of the pool has.
    """
    usual = max(pool, key=lambda size: len(pool[size].latents))
    signal = alphas_cumprod().to(ranks.device)
    latents = {size: torch.from_numpy(latent_set.latents).to(ranks.device) for size, latent_set in pool.items()}
    at_usual = torch.compile(denoiser, dynamic=False) if compiled else denoiser
    snr = signal / (1 - signal)
    weights = weights_of_levels(recipe.weighting, snr, recipe.prediction_type, gamma=MIN_SNR_GAMMA)

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step, ranks.index])
        # All ranks take the same picture size, so that none waits for the other.
        size = _choose_size(pool, usual, np.random.default_rng([seed, step]))
        count = _rows(recipe.batch_size // ranks.count, size, usual)
        rows = rng.integers(len(latents[size]), size=count)
        clean = latents[size][on_device(rows)].float()
        token_ids = on_device(choose_captions(pool[size].token_ids[rows], empty_ids, rng))
        penultimate = on_device(rng.random(count) < PENULTIMATE_SHARE)
        timesteps = on_device(spread_timesteps(count, rng))
        source = generator_for(seed, step, ranks.index, ranks.device)
        noise = torch.randn(clean.shape, generator=source, device=ranks.device)
        network = at_usual if size == usual else denoiser
        with ranks.autocast():
            context = denoiser.encode_text(token_ids, penultimate)
            noisy, target = noise_and_target(clean, noise, signal[timesteps], recipe.prediction_type)
            predicted = network(noisy, timesteps, context).float()
            errors = functional.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))
            return (errors * weights[timesteps]).mean()

    def on_device(values: npt.NDArray[np.generic]) -> Tensor:
        return place(torch.from_numpy(values), ranks.device)

    denoiser.to(ranks.device)
    denoiser.unet.to(memory_format=torch.channels_last)
    plain = NO_MATRICES if recipe.optimizer == "muon" else ("",)  # a part of every name
    optimizer = muon_for(denoiser, learning_rate=plan.learning_rate, plain=plain, ranks=ranks)
    return train(denoiser, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=on_checkpoint)


def noise_and_target(
    clean: Tensor, noise: Tensor, signal: Tensor, prediction_type: PredictionType
) -> tuple[Tensor, Tensor]:
    """What the U-Net sees and what it has to say; `signal` (B,) is the share of signal power.

    v = alpha noise - sigma clean. Source: Salimans and Ho 2022, arXiv:2202.00512.
    """
    alpha, sigma = (share.sqrt()[:, None, None, None] for share in (signal, 1 - signal))
    noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
    return noisy, noise if prediction_type == "epsilon" else alpha * noise - sigma * clean


def _choose_size(
    pool: Mapping[tuple[int, int], LatentSet], usual: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    others = [size for size in pool if size != usual]
    if others and rng.random() < OTHER_SIZE_SHARE:
        return others[int(rng.integers(len(others)))]
    return usual


def _rows(count: int, size: tuple[int, int], usual: tuple[int, int]) -> int:
    """Fewer rows for larger pictures, so that every step costs the same."""
    return max(1, round(count * usual[0] * usual[1] / (size[0] * size[1])))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one rank trains on in one step, on its device: latents (B, 4, h, w), noise, token ids (B, 77), timesteps.

    `rows` (B,) says which of the pool they are.
    """

    rows: npt.NDArray[np.int64]
    clean: Tensor
    noise: Tensor
    token_ids: Tensor
    timesteps: Tensor


def draw_batch(
    latents: npt.NDArray[np.float16],
    token_ids: TokenIds,
    empty_ids: TokenIds,
    *,
    count: int,
    seed: int,
    step: int,
    ranks: Ranks,
) -> Batch:
    """`count` rows of `latents` (N, 4, h, w) with one of their captions `token_ids` (N, captions, 77) or none."""
    rng = np.random.default_rng([seed, step, ranks.index])
    rows = rng.integers(len(latents), size=count)
    clean = torch.from_numpy(latents[rows]).to(ranks.device).float()
    source = generator_for(seed, step, ranks.index, ranks.device)
    return Batch(
        rows=rows,
        clean=clean,
        noise=torch.randn(clean.shape, generator=source, device=ranks.device),
        token_ids=torch.from_numpy(choose_captions(token_ids[rows], empty_ids, rng)).to(ranks.device),
        timesteps=torch.from_numpy(spread_timesteps(count, rng)).to(ranks.device),
    )


def choose_captions(token_ids: TokenIds, empty_ids: TokenIds, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One of each row's captions, or none: (B, captions, 77) to (B, 77) int64."""
    choice = rng.integers(token_ids.shape[1], size=len(token_ids))
    chosen = token_ids[np.arange(len(token_ids)), choice]
    chosen[rng.random(len(chosen)) < CAPTION_DROPOUT] = empty_ids
    return chosen.astype(np.int64)


def spread_timesteps(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(count,) int64, one in each of `count` equal slices of the range: uniform, with less scatter per batch."""
    positions = (np.arange(count) + rng.random(count)) / count
    return (positions * NUM_TRAIN_TIMESTEPS).astype(np.int64)

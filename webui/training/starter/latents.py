"""A pool of encoded pictures with their tokenised captions, so that the U-Net's training needs no autoencoder.

A shard is one `.npz` of one picture size, and depends on (seed, its index) and the autoencoder only.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

from webui.training.starter.backgrounds import Pixels
from webui.training.starter.captions import caption
from webui.training.starter.compose import Choices, Layout, Sprites, render, sample_layout
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.tokenizer import TokenIds
from webui.training.starter.vae import to_tensor

SHARD_SIZE = 1024
CAPTIONS_PER_PICTURE = 4
ENCODE_BATCH = 32
# (width, height) of the pictures that are not square or not of the native size.
OTHER_SIZES = ((128, 128), (224, 160), (160, 224), (256, 192), (192, 256), (256, 256))
NATIVE_PER_OTHER = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `index` of the pool, of pictures `width` x `height` px."""

    index: int
    width: int
    height: int

    def path(self, folder: Path) -> Path:
        return folder / f"{self.width}x{self.height}-{self.index:03}.npz"


@dataclass(frozen=True, slots=True)
class Affine:
    """Per-channel mean and deviation of the raw latents: `(z - mean) / deviation` has unit variance."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


UNIT = Affine((0.0,) * 4, (1.0,) * 4)
"""Of latents that `export.load_exported_vae` makes."""


@dataclass(frozen=True, slots=True)
class LatentSet:
    """All shards of one size: latents (N, 4, h, w) float16, unit variance; token ids (N, captions, 77)."""

    latents: npt.NDArray[np.float16]
    token_ids: TokenIds


def pool_shards(num_native: int) -> tuple[Shard, ...]:
    """`num_native` shards of the native size, then of each other size one for every 16 of them."""
    native = [Shard(index, NATIVE_SIZE, NATIVE_SIZE) for index in range(num_native)]
    others = [
        Shard(1000 * (1 + position) + index, *size)
        for position, size in enumerate(OTHER_SIZES)
        for index in range(max(1, num_native // NATIVE_PER_OTHER))
    ]
    return (*native, *others)


@dataclass(frozen=True, slots=True)
class Composed:
    """The pictures of one shard, uint8 (1024, height, width, 3), and their tokenised captions (1024, captions, 77)."""

    pictures: Pixels
    token_ids: TokenIds


def drawn_and_worded(rng: np.random.Generator, choices: Choices) -> tuple[Layout, list[str]]:
    """A layout of the starter's pool and its captions; the same generator state gives the same."""
    layout = sample_layout(rng, choices)
    return layout, [caption(layout, rng) for _ in range(CAPTIONS_PER_PICTURE)]


def compose_shard(
    shard: Shard,
    sprites: Sprites,
    *,
    tokenize: Callable[[list[str]], TokenIds],
    seed: int,
    draw: Callable[[np.random.Generator, Choices], tuple[Layout, list[str]]] = drawn_and_worded,
) -> Composed:
    """Draw and word one shard; the same seed gives the same. `draw` words each picture four times."""
    choices = Choices.of(sprites)
    pictures, captions = [], []
    for row in range(SHARD_SIZE):
        rng = np.random.default_rng([seed, 7, shard.index, row])
        layout, worded = draw(rng, choices)
        pictures.append(render(layout, sprites, shard.width, shard.height))
        captions += worded
    return Composed(np.stack(pictures), tokenize(captions).reshape(SHARD_SIZE, CAPTIONS_PER_PICTURE, -1))


def encode_shard(path: Path, composed: Composed, vae: AutoencoderKL) -> None:
    """Encode one shard and save it; a kill at any moment leaves no half of it."""
    save_shard(path, latents=encode_pictures(vae, composed.pictures), token_ids=composed.token_ids)


def save_shard(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(path)


def measure_affine(shard_path: Path) -> Affine:
    """The affine that gives the raw latents of one shard mean 0 and variance 1 in each channel."""
    latents = np.load(shard_path)["latents"].astype(np.float64)
    return Affine(tuple(latents.mean(axis=(0, 2, 3)).tolist()), tuple(latents.std(axis=(0, 2, 3)).tolist()))


def load_pool(folder: Path, shards: tuple[Shard, ...], affine: Affine) -> dict[tuple[int, int], LatentSet]:
    """The present shards by (width, height), normalised with `affine`."""
    by_size: dict[tuple[int, int], list[Path]] = {}
    for shard in shards:
        if shard.path(folder).exists():
            by_size.setdefault((shard.width, shard.height), []).append(shard.path(folder))
    return {size: _load_set(paths, affine) for size, paths in by_size.items()}


def _load_set(paths: list[Path], affine: Affine) -> LatentSet:
    mean = np.array(affine.mean, np.float32)[:, None, None]
    deviation = np.array(affine.deviation, np.float32)[:, None, None]
    files = [np.load(path) for path in paths]
    latents = [((file["latents"].astype(np.float32) - mean) / deviation).astype(np.float16) for file in files]
    return LatentSet(np.concatenate(latents), np.concatenate([file["token_ids"] for file in files]))


@torch.no_grad()
def encode_pictures(
    vae: AutoencoderKL, pictures: Pixels, holes: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float16]:
    """Raw latents (N, 4, h, w) of `pictures` (N, H, W, 3).

    Where `holes` (N, H, W) are, they are the middle of the range exactly, which no 8-bit grey is.
    """
    parts = []
    for start in range(0, len(pictures), ENCODE_BATCH):
        few = slice(start, start + ENCODE_BATCH)
        values = to_tensor(pictures[few], vae.device)
        if holes is not None:
            values = values.masked_fill(torch.from_numpy(holes[few])[:, None].to(vae.device), 0.0)
        parts.append(vae.encode(values).latent_dist.mean.half().cpu().numpy())
    return np.concatenate(parts)

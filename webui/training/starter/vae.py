"""The autoencoder stage: crops of composed pictures, other icons and a few free photographs.

Loss: L1, edges, L1 at half size and squared error, with a light pull of the latents towards a unit normal.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.nn import functional

from webui.training.starter.backgrounds import Pixels
from webui.training.starter.compose import Choices, Sprites, render, sample_layout
from webui.training.starter.feed import Feed
from webui.training.starter.loop import Plan, train
from webui.training.starter.muon import muon_for
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.ranks import Ranks, place
from webui.training.starter.variants import SpriteKey

# Public domain or CC0, each by its own notice in `skimage.data`; "coffee" is kept back to measure with.
TRAINING_PHOTOS = ("astronaut", "chelsea", "camera", "rocket", "brick", "grass", "gravel")
HELD_OUT_PHOTO = "coffee"
PHOTO_SHARE = 0.12
OTHER_ICON_SHARE = 0.38
CANVAS_SIZES = (128, NATIVE_SIZE, NATIVE_SIZE, 256)
CROP_SIZE, LARGE_CROP_SIZE = 64, 128
LARGE_SHARE = 0.2  # of the run, the last of it, sees larger crops
KL_WEIGHT = 6e-4
VALIDATION_SEED = 900_000
CPU = torch.device("cpu")


def load_photos(names: tuple[str, ...]) -> list[Image.Image]:
    """The named scikit-image photographs, RGB."""
    return [Image.fromarray(getattr(data, name)()).convert("RGB") for name in names]


class Crops:
    """A deterministic source of training crops: the picture depends on (seed, step, rank) only."""

    def __init__(self, sprites: Sprites, other: list[Image.Image], photos: list[Image.Image], *, seed: int) -> None:
        nameless = nameless_sprites(other)
        self._sprites = {**sprites, **nameless}
        self._named, self._nameless = Choices.of(sprites), Choices.of(nameless)
        self._photos = photos
        self._seed = seed

    def batch(self, step: int, rank: int, count: int, size: int) -> Pixels:
        """uint8 (count, size, size, 3)."""
        rng = np.random.default_rng([self._seed, step, rank])
        return np.stack([self._crop(rng, size) for _ in range(count)])

    def _crop(self, rng: np.random.Generator, size: int) -> Pixels:
        kind = rng.random()
        if self._photos and kind < PHOTO_SHARE:
            return _photo_crop(self._photos[int(rng.integers(len(self._photos)))], rng, size)
        nameless = self._nameless.things and kind < PHOTO_SHARE + OTHER_ICON_SHARE
        layout = sample_layout(rng, self._nameless if nameless else self._named)
        canvas = CANVAS_SIZES[int(rng.integers(len(CANVAS_SIZES)))]
        picture = render(layout, self._sprites, canvas, canvas)
        top, left = (int(rng.integers(canvas - size + 1)) for _ in range(2))
        return picture[top : top + size, left : left + size]


def nameless_sprites(pictures: list[Image.Image]) -> dict[SpriteKey, Image.Image]:
    """Pictures that no caption names, each under a key of its own."""
    return {SpriteKey(concept=f"{index}", style=""): picture for index, picture in enumerate(pictures)}


def _photo_crop(photo: Image.Image, rng: np.random.Generator, size: int) -> Pixels:
    side = int(rng.integers(size, min(photo.size) + 1))
    left, top = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
    crop = photo.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(crop)


def to_tensor(pixels: Pixels, device: torch.device = CPU) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1], channels last, converted on `device`."""
    return place(torch.tensor(pixels), device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Scalar; both (B, 3, H, W) in [-1, 1]."""
    difference = output - target
    edges = sum(difference.diff(dim=axis).abs().mean() for axis in (-1, -2))
    halved = functional.avg_pool2d(difference, 2).abs().mean()
    return difference.abs().mean() + 0.5 * edges + 0.5 * halved + difference.square().mean()


def train_vae(
    vae: AutoencoderKL,
    crops: Crops,
    plan: Plan,
    *,
    num_crops: int,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
) -> AutoencoderKL:
    """Train to the end of `plan` with `num_crops` of 64 px a step over all ranks; returns the averaged weights."""

    def crops_of(step: int) -> Pixels:
        size = LARGE_CROP_SIZE if plan.is_among_last(LARGE_SHARE, step) else CROP_SIZE
        count = num_crops * CROP_SIZE**2 // size**2
        return crops.batch(step, ranks.index, max(1, count // ranks.count), size)

    feed = Feed(crops_of, last=plan.num_steps, num_workers=ranks.num_workers)

    def loss_of(step: int) -> Tensor:
        pixels = to_tensor(feed(step), ranks.device)
        with ranks.autocast():
            posterior = vae.encode(pixels).latent_dist
            source = torch.Generator(ranks.device).manual_seed(step * 64 + ranks.index)
            noise = torch.randn(posterior.mean.shape, generator=source, device=ranks.device)
            output = vae.decode(posterior.mean + posterior.std * noise).sample
        kl: Tensor = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        return reconstruction_loss(output.float(), pixels) + KL_WEIGHT * kl

    vae.to(ranks.device, memory_format=torch.channels_last)
    optimizer = muon_for(
        vae, learning_rate=plan.learning_rate, plain=("conv_in", "conv_out", "quant_conv"), ranks=ranks
    )
    averaged = train(vae, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=on_checkpoint)
    assert isinstance(averaged, AutoencoderKL)
    return averaged


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Pixels) -> Pixels:
    """`pixels` uint8 (B, H, W, 3) through the latents and back, same shape."""
    output = vae.decode(vae.encode(to_tensor(pixels, vae.device)).latent_dist.mean).sample
    return to_pixels(output)


def to_pixels(images: Tensor) -> Pixels:
    """float (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3)."""
    scaled = images.float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def mean_psnr(first: Pixels, second: Pixels) -> float:
    """Mean peak signal-to-noise ratio in dB over a batch of uint8 pictures."""
    error = np.square(first.astype(np.float64) - second.astype(np.float64)).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(error, 1e-9))))


def validation_pictures(sprites: Sprites, count: int) -> Pixels:
    """Composed pictures of a seed that training never uses, uint8 (count, 192, 192, 3); none is made worse."""
    choices = Choices.of(sprites)
    rngs = (np.random.default_rng([VALIDATION_SEED, index]) for index in range(count))
    layouts = (replace(sample_layout(rng, choices), degraded=None) for rng in rngs)
    return np.stack([render(layout, sprites, NATIVE_SIZE, NATIVE_SIZE) for layout in layouts])


def photo_pictures(count: int) -> Pixels:
    """Crops of the photograph that training never sees, uint8 (count, 192, 192, 3)."""
    photo = load_photos((HELD_OUT_PHOTO,))[0]
    rngs = (np.random.default_rng([VALIDATION_SEED, index]) for index in range(count))
    return np.stack([_photo_crop(photo, rng, NATIVE_SIZE) for rng in rngs])

"""Pictures to latents and back, through the checkpoint's autoencoder."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from webui.errors import InvalidNumbers
from webui.pipeline.device import Device, is_out_of_memory, translated_memory_errors
from webui.pipeline.strips import Strips

CACHED_ENCODINGS = 8
FACTOR = 8
"""Pixels per latent, each way."""
FULL_SIZE_ACTIVATIONS = 8
"""Decoding at once keeps about this many activations of the picture's size and the last block's width; measured."""
STORED_ACTIVATIONS = 4
"""Decoding in strips keeps so many, with room for the strip."""
STRIP_PIXELS_CPU = 2**14
STRIP_PIXELS_GPU = 2**18


class LatentCodec:
    """Encodes and decodes; encodings of the latest pictures are kept, so that a second run does not pay again.

    Pictures that do not fit into the device's memory go through in strips, with the same result. An autoencoder that
    gives NaN or Inf in a half precision is put into float32 for good, and the picture is done again.
    """

    def __init__(self, vae: AutoencoderKL, device: Device) -> None:
        self.vae = vae
        self._device = device
        self._affine = _Affine(vae.config, device.torch_device)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self.was_rescued = False
        """Whether float32 was needed since this codec exists."""

    @property
    def num_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def device(self) -> torch.device:
        return self._device.torch_device

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(C, h, w) of a picture of (width, height) pixels."""
        return self.num_channels, size[1] // FACTOR, size[0] // FACTOR

    def encode(self, image: Image.Image) -> Tensor:
        """RGB picture -> (1, C, h / 8, w / 8) float32 latent: the mean of the posterior, which has no randomness."""
        return self.encode_values(to_values(image))

    def encode_values(self, values: Tensor) -> Tensor:
        """As `encode`, of (3, h, w) float32 in -1..1."""
        key = hashlib.sha256(values.numpy().tobytes()).hexdigest() + str(values.shape)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        own = self._attempt(lambda strips: self._encode(values[None], strips), values[0].numel(), "encoding")
        latent = self._affine.to_model(own)
        self._cache[key] = latent
        if len(self._cache) > CACHED_ENCODINGS:
            self._cache.popitem(last=False)
        return latent

    def unscaled(self, latent: Tensor) -> Tensor:
        """The autoencoder's own numbers of a latent that `encode` gave."""
        return self._affine.to_autoencoder(latent)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """(B, C, h, w) latents -> B RGB pictures, decoded one at a time. Raises InvalidNumbers on NaN or Inf."""
        return [to_image(self._decode_one(latent[None])) for latent in latents]

    def _decode_one(self, latent: Tensor) -> Tensor:
        if not torch.isfinite(latent).all():
            raise InvalidNumbers(
                "The model gave NaN (not a number) instead of a picture.",
                hint="Try --dtype fp32, a lower CFG scale, or another checkpoint; this file may be damaged.",
            )
        own = self._affine.to_autoencoder(latent)
        return self._attempt(lambda strips: self._decode(own, strips), own[0, 0].numel() * FACTOR**2, "decoding")[0]

    def _decode(self, own: Tensor, strips: Strips | None) -> Tensor:
        own = own.to(self.vae.dtype)
        return strips.decode(self.vae, own) if strips else self.vae.decode(own).sample

    def _encode(self, values: Tensor, strips: Strips | None) -> Tensor:
        values = values.to(self.device, self.vae.dtype)
        if strips is None:
            mode: Tensor = self.vae.encode(values).latent_dist.mode()
            return mode
        return strips.encode(self.vae, values)[:, : self.num_channels]

    def _attempt(self, run: Callable[[Strips | None], Tensor], num_pixels: int, doing: str) -> Tensor:
        """`run` at once or in strips as memory allows, and again in float32 if it gives NaN or Inf."""
        result = self._fitted(run, num_pixels, doing)
        if not torch.isfinite(result).all() and self.vae.dtype != torch.float32:
            with torch.inference_mode(mode=False):  # weights made inside could not be moved or merged into later
                self.vae.to(torch.float32)
            self.was_rescued = True
            result = self._fitted(run, num_pixels, doing)
        if not torch.isfinite(result).all():
            raise InvalidNumbers(
                f"The autoencoder gave NaN (not a number) while {doing} the picture.",
                hint="Choose another VAE; this file may be damaged.",
            )
        return result

    def _fitted(self, run: Callable[[Strips | None], Tensor], num_pixels: int, doing: str) -> Tensor:
        if num_pixels * self._bytes_per_pixel(FULL_SIZE_ACTIVATIONS) < self._device.free_bytes():
            try:
                return run(None)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._device.free_memory()
        with translated_memory_errors(self._device, what=f"{doing} the picture", hint="Use a smaller size."):
            return run(self._strips(num_pixels)).to(self.device)

    def _strips(self, num_pixels: int) -> Strips:
        fits = num_pixels * self._bytes_per_pixel(STORED_ACTIVATIONS) < self._device.free_bytes()
        return Strips(
            device=self.device,
            storage=self.device if fits else torch.device("cpu"),
            strip_pixels=STRIP_PIXELS_CPU if self._device.is_cpu else STRIP_PIXELS_GPU,
        )

    def _bytes_per_pixel(self, num_activations: int) -> int:
        width, itemsize = int(self.vae.config.block_out_channels[0]), int(self.vae.dtype.itemsize)
        return num_activations * width * itemsize


class _Affine:
    """Between the autoencoder's own numbers and those the U-Net works on: (own - shift) * scale.

    Most have one factor for all; some have a mean and a deviation per channel instead.
    """

    def __init__(self, config: Mapping[str, Any], device: torch.device) -> None:
        self._scale: float | Tensor = float(config["scaling_factor"])
        self._shift: float | Tensor = float(config.get("shift_factor") or 0.0)
        if config.get("latents_mean") and config.get("latents_std"):
            mean, deviation = (
                torch.tensor(config[key], dtype=torch.float32, device=device)[:, None, None]
                for key in ("latents_mean", "latents_std")
            )
            self._shift, self._scale = mean, self._scale / deviation

    def to_model(self, own: Tensor) -> Tensor:
        return (own.float() - self._shift) * self._scale

    def to_autoencoder(self, latent: Tensor) -> Tensor:
        return latent / self._scale + self._shift


def to_values(image: Image.Image) -> Tensor:
    """RGB picture -> (3, H, W) float32 in -1..1."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1.0


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in -1..1 -> RGB picture."""
    values = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())

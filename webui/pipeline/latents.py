"""Pictures to latents and back, through the checkpoint's autoencoder."""

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from webui.errors import InvalidNumbers
from webui.pipeline.device import Device, translated_memory_errors

CACHED_ENCODINGS = 8
FACTOR = 8
"""Pixels per latent, each way."""


class LatentCodec:
    """Encodes and decodes; encodings of the latest pictures are kept, so that a second run does not pay again."""

    def __init__(self, vae: AutoencoderKL, device: Device) -> None:
        self.vae = vae
        self._device = device
        self._scale = float(vae.config.scaling_factor)
        self._cache: OrderedDict[tuple[str, tuple[int, int]], Tensor] = OrderedDict()

    @property
    def num_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    def encode(self, image: Image.Image) -> Tensor:
        """RGB picture -> (1, C, h / 8, w / 8) float32 latent: the mean of the posterior, which has no randomness."""
        key = (hashlib.sha256(image.tobytes()).hexdigest(), image.size)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
        pixels = pixels.to(self._device.torch_device, self.vae.dtype) / 127.5 - 1.0
        with translated_memory_errors(self._device, what="encoding the picture", hint="Use a smaller size."):
            latent: Tensor = self.vae.encode(pixels).latent_dist.mode().float() * self._scale
        self._cache[key] = latent
        if len(self._cache) > CACHED_ENCODINGS:
            self._cache.popitem(last=False)
        return latent

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """(B, C, h, w) latents -> B RGB pictures, decoded one at a time. Raises InvalidNumbers on NaN or Inf."""
        return [to_image(self._decode_one(latent[None])) for latent in latents]

    def _decode_one(self, latent: Tensor) -> Tensor:
        if not torch.isfinite(latent).all():
            raise InvalidNumbers(
                "The model gave NaN (not a number) instead of a picture.",
                hint="Try --dtype fp32, a lower CFG scale, or another checkpoint; this file may be damaged.",
            )
        with translated_memory_errors(self._device, what="decoding the picture", hint="Use a smaller size."):
            pixels: Tensor = self.vae.decode((latent / self._scale).to(self.vae.dtype)).sample[0]
        if not torch.isfinite(pixels).all():
            raise InvalidNumbers(
                f"The autoencoder gave NaN (not a number) in {str(self.vae.dtype).removeprefix('torch.')}.",
                hint="Start with --dtype fp32.",
            )
        return pixels


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in -1..1 -> RGB picture."""
    values = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())

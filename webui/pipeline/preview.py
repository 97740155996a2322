"""Live previews: what the model expects the picture to become, decoded cheaply."""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor

from webui.library.families import AdapterBase
from webui.pipeline.latents import LatentCodec, to_image

MIN_INTERVAL_S = 0.25
MAX_SHARE_OF_TIME = 0.1
"""Previews may take at most this share of the run's time."""
VAE_IS_FAST_BELOW_S = 0.12
MAX_SIDE_PX = 512


@dataclass(frozen=True, slots=True)
class LatentColours:
    """A linear map from 4 latent channels to RGB in -1..1: `factors` (4, 3) and `offset` (3,)."""

    factors: tuple[tuple[float, float, float], ...]
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


SD_COLOURS = LatentColours(
    ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
)
"""SD 1.x and 2.x share an autoencoder; a least-squares fit known in the field."""
SDXL_COLOURS = LatentColours(
    ((0.471, 0.471, 0.471), (-0.471, -0.039, 0.078), (0.196, 0.118, -0.039), (-0.549, -0.392, -0.275)),
    offset=(0.176, 0.098, 0.020),
)
"""Source: T. A. Vass, "Explaining the SDXL latent space", in 255ths: (60, -60, 25, -70), (60, -5, 15, -50),
(60, 10, -5, -35), from (150, 140, 130)."""
COLOURS: Mapping[AdapterBase, LatentColours] = MappingProxyType({"sdxl": SDXL_COLOURS, "sdxl-refiner": SDXL_COLOURS})


class Previewer:
    """Decides when a preview is due and makes it: by the tiny decoder, by the VAE where that is fast, else linearly."""

    def __init__(self, codec: LatentCodec, tiny_decoder: AutoencoderTiny | None, base: AdapterBase) -> None:
        self._codec = codec
        self._colours = COLOURS.get(base, SD_COLOURS)
        self._tiny = tiny_decoder
        self._vae_is_fast: bool | None = None
        self._next_at = 0.0

    def begin(self) -> None:
        """A new run: its first step is shown."""
        self._next_at = 0.0

    def due(self) -> bool:
        """Whether enough time has passed since the last preview, given what that one cost."""
        return time.monotonic() >= self._next_at

    def jpeg(self, denoised: Tensor) -> bytes:
        """JPEG of the first of `denoised` (B, C, h, w) latents."""
        start = time.monotonic()
        image = self._image(denoised[:1])
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        cost = time.monotonic() - start
        self._next_at = time.monotonic() + max(MIN_INTERVAL_S - cost, cost / MAX_SHARE_OF_TIME)
        return buffer.getvalue()

    def _image(self, latent: Tensor) -> Image.Image:
        if self._tiny is not None:
            return to_image(self._tiny.decode(latent).sample[0] * 2 - 1)
        if self._vae_is_fast is None:
            self._vae_is_fast = self._measure_vae(latent)
        return self._codec.decode(latent)[0] if self._vae_is_fast else _linear_image(latent, self._colours)

    def _measure_vae(self, latent: Tensor) -> bool:
        """Times a corner of 8 x 8 latents and scales it to the whole."""
        corner = latent[:, :, :8, :8]
        start = time.monotonic()
        self._codec.decode(corner)
        return (time.monotonic() - start) * latent[0, 0].numel() / corner[0, 0].numel() < VAE_IS_FAST_BELOW_S


def _linear_image(latent: Tensor, colours: LatentColours) -> Image.Image:
    rgb = torch.einsum("chw,cr->rhw", latent[0].float().cpu(), torch.tensor(colours.factors))
    rgb = rgb + torch.tensor(colours.offset)[:, None, None]
    return to_image(torch.nn.functional.interpolate(rgb[None], scale_factor=8, mode="bilinear")[0])

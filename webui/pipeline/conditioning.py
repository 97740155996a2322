"""What a U-Net is told beside the noisy latent and the timestep: text, sizes, the picture to repaint or to edit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from webui.pipeline.latents import FACTOR, LatentCodec, to_values
from webui.pipeline.text_encoding import EncodedPrompt

AESTHETIC_SCORES = (6.0, 2.5)
"""Of prompt and negative prompt, for the SDXL refiner: the values it is used with by its authors."""

GREY = 0.0
"""The middle of -1..1: what stands for pixels that are not to be seen."""

PictureChannels = Literal["", "inpaint", "edit"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """One branch of guidance; every tensor has one row per picture, or one that all share.

    `context` (rows, tokens, width). `pooled` (rows, projection) and `time_ids` (rows, 5 or 6) are SDXL's added
    conditioning. `channels` (rows, 4 or 5, h, w) are put behind the latent's own. `timestep_cond` (rows, dim) tells a
    distilled model its guidance scale.
    """

    context: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    channels: Tensor | None = None
    timestep_cond: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by field name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if value is not None}

    def rows(self, num_rows: int) -> "Condition":
        """Expanded to `num_rows` pictures."""
        expanded = {name: value.expand(num_rows, *value.shape[1:]) for name, value in self.tensors().items()}
        return replace(self, **expanded)

    def part(self, start: int, end: int) -> "Condition":
        return replace(self, **{name: value[start:end] for name, value in self.tensors().items()})

    def fits(self, other: "Condition") -> bool:
        """Whether both can go through the network together: prompts of as many chunks."""
        return self.context.shape[1] == other.context.shape[1]


def stack(conditions: Sequence[Condition]) -> Condition:
    """The rows of all, in order."""
    if len(conditions) == 1:
        return conditions[0]
    names = conditions[0].tensors()
    return Condition(**{name: torch.cat([getattr(condition, name) for condition in conditions]) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guidance:
    """What the prediction is steered by: `conditions` from the least told to the most, `scales` from each to the next,

    c0 + scales[0] * (c1 - c0) + scales[1] * (c2 - c1). Two conditions are classifier-free guidance (Ho & Salimans
    2022, arXiv:2207.12598); three are InstructPix2Pix' (Brooks et al. 2022, arXiv:2211.09800): nothing, the picture,
    picture and prompt. One needs no scale.
    """

    conditions: tuple[Condition, ...]
    scales: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetInputs:
    """What a U-Net takes, read from its config.

    `num_time_ids` is 0 without added conditioning, 6 for SDXL (original size, crop, target size), 5 for its refiner
    (original size, crop, aesthetic score). `guidance_dim` is the width of a distilled model's guidance embedding, or 0.
    """

    picture_channels: PictureChannels
    num_time_ids: int
    guidance_dim: int

    @classmethod
    def of(cls, config: Mapping[str, Any], *, latent_channels: int, pooled_width: int) -> "UNetInputs":
        """`config` as diffusers writes it; `pooled_width` is that of the text encoder's projection, 0 without one.

        Raises ValueError with the reason where the network takes something unknown.
        """
        kinds: dict[int, PictureChannels] = {0: "", latent_channels + 1: "inpaint", latent_channels: "edit"}
        num_time_ids = 0
        if config.get("addition_embed_type") == "text_time":
            width = int(config["projection_class_embeddings_input_dim"]) - pooled_width
            num_time_ids = width // int(config["addition_time_embed_dim"])
        extra = int(config["in_channels"]) - latent_channels
        if extra not in kinds:
            raise ValueError(f"its U-Net takes {config['in_channels']} channels")
        return cls(
            picture_channels=kinds[extra],
            num_time_ids=num_time_ids,
            guidance_dim=int(config.get("time_cond_proj_dim") or 0),
        )


def build_guidance(
    inputs: UNetInputs,
    prompt: EncodedPrompt,
    negative: EncodedPrompt,
    *,
    size: tuple[int, int],
    scale: float,
    image_scale: float | None,
    channels: Tensor | None,
) -> Guidance:
    """`size` is (width, height) in pixels; `channels` come from `picture_channels`.

    `image_scale` says how closely to follow a picture that is edited; None where there is none.
    """
    device = prompt.context.device
    cond, uncond = (
        Condition(
            context=encoded.context,
            pooled=encoded.pooled if inputs.num_time_ids else None,
            time_ids=time_ids(inputs.num_time_ids, size, score).to(device) if inputs.num_time_ids else None,
            channels=channels,
        )
        for encoded, score in zip((prompt, negative), AESTHETIC_SCORES, strict=True)
    )
    if inputs.guidance_dim:
        return Guidance(
            conditions=(replace(cond, timestep_cond=guidance_embedding(scale, inputs.guidance_dim).to(device)),)
        )
    if inputs.picture_channels == "edit" and channels is not None and image_scale is not None:
        told_nothing = replace(uncond, channels=torch.zeros_like(channels))
        return _shortened((told_nothing, uncond, cond), (image_scale, scale))
    return _shortened((uncond, cond), (scale,))


def _shortened(conditions: tuple[Condition, ...], scales: tuple[float, ...]) -> Guidance:
    """Without the first conditions where a scale of 1 cancels them."""
    while scales and scales[0] == 1.0:
        conditions, scales = conditions[1:], scales[1:]
    return Guidance(conditions=conditions, scales=scales)


def time_ids(num_ids: int, size: tuple[int, int], aesthetic_score: float) -> Tensor:
    """(1, 5 or 6) float32: original height and width, crop top and left, then target size or aesthetic score.

    Source: Podell et al. 2023, arXiv:2307.01952, section 2.2. The picture counts as uncropped and made at its size.
    """
    width, height = size
    start = (height, width, 0, 0)
    return torch.tensor([(*start, height, width) if num_ids == 6 else (*start, aesthetic_score)], dtype=torch.float32)


def guidance_embedding(scale: float, dim: int) -> Tensor:
    """(1, dim) float32: sinusoids of 1000 * (scale - 1), dim even.

    Source: Luo et al. 2023, arXiv:2310.04378, and Meng et al. 2022, arXiv:2210.03142; the published LCMs count 1 as no
    guidance.
    """
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10_000.0) / (half - 1)))
    angles = (scale - 1.0) * 1000.0 * frequencies
    return torch.cat([angles.sin(), angles.cos()])[None]


def picture_channels(
    kind: PictureChannels,
    codec: LatentCodec,
    image: Image.Image | None,
    mask: Image.Image | None,
    *,
    size: tuple[int, int],
) -> Tensor | None:
    """What the U-Net sees of the picture; None where it takes none.

    `image` is RGB in `size`; `mask` is mode "L", 255 where something new is made; None means everywhere.
    """
    if kind == "inpaint":
        return inpaint_channels(codec, image, mask, size=size)
    if kind == "edit":
        return edit_channels(codec, image, size=size)
    return None


def inpaint_channels(
    codec: LatentCodec, image: Image.Image | None, mask: Image.Image | None, *, size: tuple[int, int]
) -> Tensor:
    """(1, 1 + C, h, w): the mask, 1 where something new is made, and the latent of the picture with that part grey.

    The mask is rounded, so that the picture has no half-seen pixels, and every 8th of its pixels is taken: the
    convention the checkpoints of Rombach et al. 2021, arXiv:2112.10752, were trained with.
    """
    width, height = size
    repaint = torch.ones(height, width, dtype=torch.bool)
    if mask is not None:
        repaint = torch.from_numpy(np.array(mask.convert("L")) >= 128)
    values = torch.full((3, height, width), GREY) if image is None else to_values(image)
    latent = codec.encode_values(torch.where(repaint, GREY, values))
    mask_latent = repaint[::FACTOR, ::FACTOR].to(latent)[None, None]
    return torch.cat([mask_latent, latent], dim=1)


def edit_channels(codec: LatentCodec, image: Image.Image | None, *, size: tuple[int, int]) -> Tensor:
    """(1, C, h, w): the picture's latent, not scaled to unit variance; zeros without a picture.

    Source: Brooks et al. 2022, arXiv:2211.09800.
    """
    if image is None:
        return torch.zeros(1, *codec.latent_shape(size), device=codec.device)
    return codec.unscaled(codec.encode(image))

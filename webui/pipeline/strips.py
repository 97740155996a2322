"""The autoencoder, one strip of rows at a time: large pictures in little memory, exactly as if done at once.

Tiles that are decoded apart disagree at their borders, because the network's norms average over what they see, and
its attention looks everywhere. Here each layer is run over the whole picture in strips instead: a convolution's strip
takes the rows it needs from its neighbours, and norms take their averages over all strips. So there is nothing to
blend, and no seam. What a layer hands to the next is kept in `storage`, which may be the host's memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

ATTENTION_SCORES = 2**26
"""Scores of attention that may be worked on at once, where the library does not avoid to write them down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strips:
    """`device` computes, `storage` keeps; a strip has about `strip_pixels` positions."""

    device: torch.device
    storage: torch.device
    strip_pixels: int

    def decode(self, vae: AutoencoderKL, latent: Tensor) -> Tensor:
        """(1, C, h, w) in the autoencoder's scale -> (1, 3, 8 h, 8 w) on `storage`, as `vae.decode` gives it."""
        decoder: Any = vae.decoder
        if vae.post_quant_conv is not None:
            latent = vae.post_quant_conv(latent)
        x = self._mid(decoder.mid_block, decoder.conv_in(latent)).to(self.storage)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = self._resnet(resnet, x)
            for upsampler in block.upsamplers or ():
                x = self._upsample(upsampler.conv, x)
        return self._convolve(decoder.conv_out, x, before=self._norm(decoder.conv_norm_out, x))

    def encode(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) in -1..1 -> (1, 2 C, H / 8, W / 8): mean and log variance, as `vae.encode` takes them."""
        encoder: Any = vae.encoder
        x = self._convolve(encoder.conv_in, pixels.to(self.storage))
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                x = self._resnet(resnet, x)
            for downsampler in block.downsamplers or ():
                x = self._downsample(downsampler.conv, x)
        mid = self._mid(encoder.mid_block, x.to(self.device))
        moments: Tensor = encoder.conv_out(F.silu(encoder.conv_norm_out(mid)))
        return vae.quant_conv(moments) if vae.quant_conv is not None else moments

    def _mid(self, block: Any, x: Tensor) -> Tensor:
        """At the latent's resolution, where the whole is small."""
        x = block.resnets[0](x, None)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            if attention is not None:
                x = _attend(attention, x)
            x = resnet(x, None)
        return x

    def _resnet(self, resnet: Any, x: Tensor) -> Tensor:
        hidden = self._convolve(resnet.conv1, x, before=self._norm(resnet.norm1, x))
        hidden = self._convolve(resnet.conv2, hidden, before=self._norm(resnet.norm2, hidden), in_place=True)
        for start, end in self._spans(x.shape[2], x.shape[3]):
            skipped = self._rows(x, start, end)
            if resnet.conv_shortcut is not None:
                skipped = resnet.conv_shortcut(skipped)
            hidden[:, :, start:end] += skipped.to(hidden.device)
        return hidden

    def _convolve(
        self,
        conv: nn.Conv2d,
        x: Tensor,
        *,
        before: Callable[[Tensor], Tensor] = lambda rows: rows,
        in_place: bool = False,
    ) -> Tensor:
        """A 3 x 3 convolution of `before(x)`; each strip takes one row more on either side.

        `in_place` writes over `x`, and keeps of each strip the last row for the next one.
        """
        height, width = x.shape[2:]
        result = x if in_place else self._empty(x, conv.out_channels, height, width)
        above: Tensor | None = None
        for start, end in self._spans(height, width):
            low = max(start - 1, 0)
            rows = self._rows(x, start, min(end + 1, height))
            if low < start:
                rows = torch.cat([self._rows(x, low, start) if above is None else above, rows], dim=2)
            if in_place:
                above = self._rows(x, end - 1, end).clone()
            result[:, :, start:end] = _cropped(conv(before(rows)), start - low, end - start).to(self.storage)
        return result

    def _upsample(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """Twice the size by repetition, then a 3 x 3 convolution."""
        height, width = x.shape[2:]
        result = self._empty(x, conv.out_channels, height * 2, width * 2)
        for start, end in self._spans(height, width * 4):
            low = max(start - 1, 0)
            rows = F.interpolate(self._rows(x, low, min(end + 1, height)), scale_factor=2.0, mode="nearest")
            made = _cropped(conv(rows), 2 * (start - low), 2 * (end - start))
            result[:, :, 2 * start : 2 * end] = made.to(self.storage)
        return result

    def _downsample(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """A 3 x 3 convolution of every second position, with a row and a column of zeros at the far ends."""
        height, width = x.shape[2:]
        result = self._empty(x, conv.out_channels, height // 2, width // 2)
        for start, end in self._spans(height // 2, width):
            rows = self._rows(x, 2 * start, min(2 * end + 1, height))
            rows = F.pad(rows, (0, 1, 0, 2 * end + 1 - min(2 * end + 1, height)))
            result[:, :, start:end] = conv(rows).to(self.storage)
        return result

    def _norm(self, norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The group norm over all of `x`, followed by SiLU, as a function of some of its rows."""
        count, mean, squares = 0, torch.zeros(norm.num_groups), torch.zeros(norm.num_groups)
        for start, end in self._spans(*x.shape[2:]):
            rows = self._rows(x, start, end).reshape(norm.num_groups, -1).float()
            strip_mean, num = rows.mean(dim=1), rows.shape[1]
            strip_squares = (rows - strip_mean[:, None]).square_().sum(dim=1).cpu()
            strip_mean = strip_mean.cpu()
            difference = strip_mean - mean
            total = count + num
            mean = mean + difference * (num / total)
            squares = squares + strip_squares + difference.square() * (count * num / total)
            count = total
        per_channel = norm.num_channels // norm.num_groups
        deviation = (squares / count + norm.eps).sqrt().repeat_interleave(per_channel).to(self.device)
        scale = norm.weight.float() / deviation
        shift = norm.bias.float() - mean.repeat_interleave(per_channel).to(self.device) * scale

        def normalise(rows: Tensor) -> Tensor:
            return F.silu(rows.float() * scale[:, None, None] + shift[:, None, None], inplace=True).to(rows.dtype)

        return normalise

    def _rows(self, x: Tensor, start: int, end: int) -> Tensor:
        return x[:, :, start:end].to(self.device)

    def _spans(self, height: int, width: int) -> list[tuple[int, int]]:
        rows = max(self.strip_pixels // width, 1)
        return [(start, min(start + rows, height)) for start in range(0, height, rows)]

    def _empty(self, like: Tensor, channels: int, height: int, width: int) -> Tensor:
        return torch.empty(1, channels, height, width, dtype=like.dtype, device=self.storage)


def _cropped(rows: Tensor, start: int, count: int) -> Tensor:
    """Without the neighbours' rows: a convolution saw nothing beside them, right at the picture's edge alone."""
    return rows[:, :, start : start + count]


def _attend(attention: Any, x: Tensor) -> Tensor:
    """The single-headed attention between all positions, some queries at a time."""
    batch, channels, height, width = x.shape
    normed = attention.group_norm(x).flatten(2).transpose(1, 2)
    query, key, value = attention.to_q(normed), attention.to_k(normed), attention.to_v(normed)
    rows = max(ATTENTION_SCORES // (height * width), 1)
    parts = [F.scaled_dot_product_attention(part, key, value) for part in query.split(rows, dim=1)]
    attended = attention.to_out[0](torch.cat(parts, dim=1))
    restored: Tensor = attended.transpose(1, 2).reshape(batch, channels, height, width) + x
    return restored

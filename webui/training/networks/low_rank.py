"""LoRA, LoCon and DoRA through their two small factors: the change is never written out as a weight.

One autograd step for a layer and its adapter together. It adds the change to the layer's output where that lies, and
keeps the input and a few values per position for the way back; the input is the same tensor for the query, the key and
the value.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from webui.training.networks.layers import (
    Adaptable,
    AdaptedLayer,
    Dropouts,
    applied,
    input_gradient,
    kaiming,
    kept_channels,
    kernel_of,
    weight_gradient,
)


class LoraLayer(AdaptedLayer):
    """W + alpha / rank * up @ down. Hu et al. 2021, arXiv:2106.09685; for convolutions as in LoCon."""

    merges = False

    def __init__(self, layer: Adaptable, dropouts: Dropouts, *, rank: int, alpha: float) -> None:
        outputs, inputs = layer.weight.shape[:2]
        ones = (1,) * len(kernel_of(layer))
        factors = {
            "lora_down": kaiming(rank, inputs, *kernel_of(layer)),
            "lora_up": torch.zeros(outputs, rank, *ones),
        }
        super().__init__(layer, dropouts, factors, {"alpha": torch.tensor(float(alpha))})
        self._scale = alpha / rank

    def adapted(self, x: Tensor) -> Tensor:
        return _with_change(
            x, self.factors["lora_down"], self.factors["lora_up"], None, self.layer, self._scale * self.strength
        )

    def dropped(self, x: Tensor, dropouts: Dropouts) -> Tensor:
        """Values between the factors, and ranks for each row of the batch, left out, as kohya's trainer does it."""
        base = self.base(x)
        hidden = applied(self.layer, x, self.factors["lora_down"].to(x.dtype), None)
        axis = -1 if isinstance(self.layer, nn.Linear) else 1
        hidden = F.dropout(hidden, dropouts.value) * kept_channels(hidden, axis, dropouts.rank)
        up = self.factors["lora_up"].to(x.dtype)
        change = F.linear(hidden, up) if isinstance(self.layer, nn.Linear) else F.conv2d(hidden, up)
        return torch.add(base, change, alpha=self._scale)

    def change_norm(self) -> float:
        """From products of the size of the rank."""
        up, down = self.factors["lora_up"].flatten(1), self.factors["lora_down"].flatten(1)
        return self._scale * float(((up.mT @ up) * (down @ down.mT)).sum().clamp_min(0).sqrt())


class DoraLayer(LoraLayer):
    """g * V / ||V|| with V = W + alpha / rank * up @ down: Liu et al. 2024, arXiv:2402.09353.

    There is a magnitude g for each input, as in the paper's formula: the form that all programs read alike. It is a
    gain on what comes in, so that the way of LoRA stays. The norm counts as a constant on the way back, as the paper
    proposes.
    """

    merges = True

    def __init__(self, layer: Adaptable, dropouts: Dropouts, *, rank: int, alpha: float) -> None:
        super().__init__(layer, dropouts, rank=rank, alpha=alpha)
        outputs, inputs = layer.weight.shape[:2]
        self._squares = layer.weight.detach().float().reshape(outputs, inputs, -1).square().sum(dim=(0, 2))
        shape = (1, inputs, *(1,) * len(kernel_of(layer)))
        self.factors["dora_scale"] = nn.Parameter(self._norms().reshape(shape))

    def adapted(self, x: Tensor) -> Tensor:
        gain = self.factors["dora_scale"].flatten() / self._norms()
        return _with_change(x, self.factors["lora_down"], self.factors["lora_up"], gain, self.layer, self._scale)

    def dropped(self, x: Tensor, dropouts: Dropouts) -> Tensor:
        gain = self.factors["dora_scale"].flatten() / self._norms()
        return super().dropped(_times(x, gain), dropouts)

    def shrink(self, ratio: float) -> None:
        """The magnitudes are not part of what is limited: `change_norm` is that of the low-rank part."""
        for name in ("lora_up", "lora_down"):
            self.factors[name].mul_(ratio**0.5)

    @torch.no_grad()
    def _norms(self) -> Tensor:
        """||V|| for each input, from the norms of W and products with the small factors."""
        weight = self.layer.weight.detach()
        up, down = self.factors["lora_up"].flatten(1), self.factors["lora_down"].unsqueeze(-1).flatten(2)
        mixed = (up.to(weight.dtype).mT @ weight.flatten(1)).float().reshape(down.shape)
        own = torch.einsum("qr,rik->qik", up.mT @ up, down)
        squares = self._squares + (down * (2 * self._scale * mixed + self._scale**2 * own)).sum(dim=(0, 2))
        return squares.clamp_min(torch.finfo(torch.float32).eps ** 2).sqrt()


def _with_change(x: Tensor, down: Tensor, up: Tensor, gain: Tensor | None, layer: Adaptable, scale: float) -> Tensor:
    result: Tensor = _LowRank.apply(x, down, up, gain, layer, scale)  # type: ignore[no-untyped-call]
    return result


class _LowRank(torch.autograd.Function):
    """layer(x * gain) + scale * up(down(x * gain)), for a layer that is frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, down: Tensor, up: Tensor, gain: Tensor | None, layer: Adaptable, scale: float
    ) -> Tensor:
        down, up = down.to(x.dtype), up.to(x.dtype)
        turned = x if gain is None else _times(x, gain)
        output = applied(layer, turned, layer.weight, layer.bias)
        hidden = applied(layer, turned, down, None)
        _add_product(output, hidden, up.flatten(1), scale)
        ctx.save_for_backward(x, down, up, gain, hidden)
        ctx.layer, ctx.scale = layer, scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, down, up, gain, hidden = ctx.saved_tensors
        layer: Adaptable = ctx.layer
        linear = isinstance(layer, nn.Linear)
        hidden_gradient = _through_up(gradient, up, linear) * ctx.scale
        up_gradient = _outer(gradient, hidden, linear).float().mul_(ctx.scale).reshape(up.shape)
        down_gradient = weight_gradient(layer, x, down.shape, hidden_gradient).float()
        if gain is not None:
            down_gradient = _times(down_gradient, gain)
        x_gradient = gain_gradient = None
        if ctx.needs_input_grad[0] or gain is not None:
            x_gradient = input_gradient(layer, x.shape, layer.weight, gradient)
            if linear:
                x_gradient.flatten(0, -2).addmm_(hidden_gradient.flatten(0, -2), down)
            else:
                x_gradient.add_(input_gradient(layer, x.shape, down, hidden_gradient))
            if gain is not None:
                axes = tuple(range(x.ndim - 1)) if linear else (0, 2, 3)
                gain_gradient = (x_gradient * x).sum(dim=axes, dtype=torch.float32)
                x_gradient = _times(x_gradient, gain)
        return x_gradient, down_gradient, up_gradient, gain_gradient, None, None


def _times(x: Tensor, gain: Tensor) -> Tensor:
    """Each channel of `x`, or column of a weight, times its gain, which is near 1: rounded once in x's type."""
    axis = 1 if x.ndim == 4 else -1
    excess = (gain - 1).to(x.dtype)
    return torch.addcmul(x, x, excess[:, None, None] if axis == 1 else excess)


def _add_product(output: Tensor, hidden: Tensor, up: Tensor, scale: float) -> None:
    """output += scale * up @ hidden over channels, where output lies and in whichever order."""
    if output.ndim != 4:
        output.view(-1, output.shape[-1]).addmm_(hidden.reshape(-1, hidden.shape[-1]), up.mT, alpha=scale)
    elif output.is_contiguous():
        batch, channels = output.shape[:2]
        factors = up.expand(batch, *up.shape)
        output.view(batch, channels, -1).baddbmm_(factors, hidden.flatten(2), alpha=scale)
    else:
        rows, values = output.permute(0, 2, 3, 1), hidden.permute(0, 2, 3, 1)
        rows.view(-1, rows.shape[-1]).addmm_(values.reshape(-1, values.shape[-1]), up.mT, alpha=scale)


def _through_up(gradient: Tensor, up: Tensor, linear: bool) -> Tensor:
    return gradient @ up if linear else F.conv2d(gradient, up.transpose(0, 1))


def _outer(gradient: Tensor, hidden: Tensor, linear: bool) -> Tensor:
    """(outputs, rank): how each output's gradient goes with each rank's value."""
    if linear:
        return gradient.flatten(0, -2).mT @ hidden.flatten(0, -2)
    return torch.einsum("bohw,brhw->or", gradient, hidden)

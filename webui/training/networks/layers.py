"""A layer of a frozen network that gives what it would give with an adapter merged into it.

The layer keeps its class, its parameters and their names: only its instance's `forward` is another one while the
adapter is on it. Factors are float32 parameters of their own and are cast to the layer's type as they are used, so that
no autocast is needed and gradients come in float32. What each kind computes is what `pipeline.adapters.formulas` say of
its file.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from webui.errors import AdapterMismatch
from webui.pipeline.adapters import deltas
from webui.pipeline.adapters.targets import AdapterGroup

Adaptable = nn.Linear | nn.Conv2d

MAX_CUTS = 20
"""Rounds in which a change that does not grow in proportion to its factors is cut back."""


def applied(layer: Adaptable, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `layer` gives for `x` with another weight and bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)


def input_gradient(layer: Adaptable, shape: torch.Size, weight: Tensor, gradient: Tensor) -> Tensor:
    """Of an input of `shape`, from the gradient of `applied(layer, input, weight, ...)`. Needs no input."""
    if isinstance(layer, nn.Linear):
        return gradient @ weight
    return conv2d_input(  # type: ignore[no-untyped-call,no-any-return]
        shape, weight, gradient, layer.stride, layer.padding, layer.dilation
    )


def weight_gradient(layer: Adaptable, x: Tensor, shape: torch.Size, gradient: Tensor) -> Tensor:
    """Of a weight of `shape`, from the gradient of `applied(layer, x, weight, ...)`."""
    if isinstance(layer, nn.Linear):
        return gradient.flatten(0, -2).mT @ x.flatten(0, -2)
    return conv2d_weight(  # type: ignore[no-untyped-call,no-any-return]
        x, shape, gradient, layer.stride, layer.padding, layer.dilation
    )


def kernel_of(layer: Adaptable) -> tuple[int, ...]:
    """(kh, kw) of a convolution, () of a linear layer."""
    return tuple(layer.weight.shape[2:])


def kaiming(*shape: int) -> Tensor:
    """What every trainer starts a factor with that meets another one of zeros."""
    return nn.init.kaiming_uniform_(torch.empty(*shape), a=math.sqrt(5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropouts:
    """Shares that are left out of each pass while training: values, ranks or rows of the change, whole layers."""

    value: float = 0.0
    rank: float = 0.0
    module: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.value or self.rank or self.module)


class AdaptedLayer:
    """One layer's part of an adapter. Subclasses give `adapted`, the output with the change at full strength."""

    merges: ClassVar[bool] = True
    """Whether other strengths than the training's are merged into a weight; else `strength` is heeded by `adapted`."""

    def __init__(
        self, layer: Adaptable, dropouts: Dropouts, factors: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> None:
        """`factors` are the first values of what is trained, `constants` go into the file with them."""
        self.layer = layer
        self.training = False
        self.strength = 1.0
        device = layer.weight.device
        self.factors = {name: nn.Parameter(value.to(device, torch.float32)) for name, value in factors.items()}
        self._constants = dict(constants)
        self._dropouts = dropouts
        self._merged: Tensor | None = None

    def attach(self) -> None:
        """From now on the layer gives the adapted output."""
        self.layer.forward = self._forward  # type: ignore[assignment]

    def detach(self) -> None:
        """The layer is as it was."""
        del self.layer.forward

    def adapted(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Views of the factors, and the constants, under the names that a file has them by."""
        return {**{name: factor.detach() for name, factor in self.factors.items()}, **self._constants}

    def load(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Takes over what `tensors` gave. Raises AdapterMismatch, naming `where`, if it is for another network."""
        own = self.tensors()
        for name, tensor in own.items():
            given = tensors.get(name)
            if given is None or given.numel() != tensor.numel():
                found = "nothing" if given is None else str(list(given.shape))
                raise AdapterMismatch(
                    f"{where} has {found} as {name}, and this training has {list(tensor.shape)}.",
                    hint="Continue with the method and the rank that it was trained with.",
                )
            if name in self._constants and not torch.allclose(given.float(), tensor.float()):
                raise AdapterMismatch(
                    f"{where} was trained with {name} {given.item():g}, and this training has {tensor.item():g}.",
                    hint=f"Set {name} to {given.item():g}.",
                )
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.copy_(tensors[name].reshape(factor.shape))

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        """The layer is base + `weight` times the change inside, without dropouts; 0 is the base to the bit."""
        before = self.strength, self._merged, self.training
        self.strength, self.training = weight, False
        self._merged = self._merge(weight) if self.merges and weight != 0 else None
        try:
            yield
        finally:
            self.strength, self._merged, self.training = before

    @torch.no_grad()
    def limit_norm(self, max_norm: float) -> bool:
        """Makes the Frobenius norm of the change at most `max_norm`; returns whether it was more."""
        for rounds in range(MAX_CUTS):
            norm = self.change_norm()
            if norm <= max_norm * (1 + 1e-4):
                return rounds > 0
            self.shrink(max_norm / norm)
        return True

    def change_norm(self) -> float:
        """Frobenius norm of the change."""
        weight = self.layer.weight.float()
        return float((deltas.patched(self._group(), weight, 1.0) - weight).norm())

    def shrink(self, ratio: float) -> None:
        """Multiplies the change by `ratio`, nearly: in equal parts on all factors that it is a product of."""
        for factor in self.factors.values():
            factor.mul_(ratio ** (1 / len(self.factors)))

    def base(self, x: Tensor) -> Tensor:
        """The layer's own output."""
        return applied(self.layer, x, self.layer.weight, self.layer.bias)

    def _forward(self, x: Tensor) -> Tensor:
        if self._merged is not None:
            return applied(self.layer, x, self._merged, self.layer.bias)
        if self.strength == 0:
            return self.base(x)
        if self.training and self._dropouts:
            return self._with_dropouts(x)
        return self.adapted(x)

    def _with_dropouts(self, x: Tensor) -> Tensor:
        dropouts = self._dropouts
        if dropouts.module and torch.rand(()) < dropouts.module:
            return self.base(x)
        return self.dropped(x, dropouts) if dropouts.value or dropouts.rank else self.adapted(x)

    def dropped(self, x: Tensor, dropouts: Dropouts) -> Tensor:
        """Values and output channels of the change left out, channels for each row of the batch; the rest is larger."""
        base = self.base(x)
        change = F.dropout(self.adapted(x) - base, dropouts.value)
        channel_axis = -1 if isinstance(self.layer, nn.Linear) else 1
        return base + change * kept_channels(change, channel_axis, dropouts.rank)

    def _merge(self, weight: float) -> Tensor:
        own = self.layer.weight.detach()
        return torch.empty_like(own).copy_(deltas.patched(self._group(), own, weight))

    def _group(self) -> AdapterGroup:
        return AdapterGroup.of("", self.tensors())


def kept_channels(values: Tensor, axis: int, dropout: float) -> Tensor:
    """For each row of the batch, 1 / (1 - dropout) at the channels that stay and 0 at the others."""
    shape = [1] * values.ndim
    shape[0], shape[axis] = values.shape[0], values.shape[axis]
    ones = torch.ones(shape, dtype=values.dtype, device=values.device)
    return F.dropout(ones, dropout)

"""Hypernetworks: small networks that change what a U-Net's attention reads, as NovelAI and A1111 have them.

A file has two networks for each width of attention input, one in front of the keys and one in front of the values. They
are hooked in for a run and taken out again; no weight of the U-Net changes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from webui.errors import UnsupportedModel
from webui.pipeline.pickles import read_content

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[str, Activation | None] = MappingProxyType(
    {
        "linear": None,
        "relu": functional.relu,
        "leakyrelu": functional.leaky_relu,
        "elu": functional.elu,
        "swish": functional.hardswish,
        "hardswish": functional.hardswish,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "celu": functional.celu,
        "gelu": functional.gelu,
        "hardshrink": functional.hardshrink,
        "hardsigmoid": functional.hardsigmoid,
        "hardtanh": functional.hardtanh,
        "logsigmoid": functional.logsigmoid,
        "mish": functional.mish,
        "relu6": functional.relu6,
        "selu": functional.selu,
        "silu": functional.silu,
        "softplus": functional.softplus,
        "softshrink": functional.softshrink,
        "softsign": functional.softsign,
        "tanhshrink": functional.tanhshrink,
    }
)
"""By the name in the file. "swish" has always been torch's Hardswish there."""

_KEY = re.compile(r"linear(?:\.(\d+)|(1|2))\.(weight|bias)")
"""Layers of a Sequential, or the two layers of the first files."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """`weight` (out, in) and `bias` (out,); then the activation; then a layer norm's (weight, bias)."""

    weight: Tensor
    bias: Tensor
    activation: Activation | None
    norm: tuple[Tensor, Tensor] | None = None

    def to(self, like: Tensor) -> "_Layer":
        """On the device and in the type of `like`."""
        norm = None if self.norm is None else (self.norm[0].to(like), self.norm[1].to(like))
        return replace(self, weight=self.weight.to(like), bias=self.bias.to(like), norm=norm)

    def __call__(self, x: Tensor) -> Tensor:
        x = functional.linear(x, self.weight, self.bias)
        if self.activation is not None:
            x = self.activation(x)
        if self.norm is not None:
            x = functional.layer_norm(x, (len(self.norm[0]),), *self.norm)
        return x


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hypernetwork:
    """`networks`: width of the attention's input -> (layers before the keys, layers before the values)."""

    name: str
    networks: Mapping[int, tuple[Sequence[_Layer], Sequence[_Layer]]] = field(repr=False)


def read_hypernetwork(path: Path) -> Hypernetwork:
    """Raises UnsupportedModel if the file is damaged, holds more than data, or is no hypernetwork."""
    content = read_content(path)
    if not isinstance(content, Mapping):
        raise UnsupportedModel(path, "it is no hypernetwork")
    activation = str(content.get("activation_func") or "linear").lower()
    if activation not in ACTIVATIONS:
        raise UnsupportedModel(path, f"its activation '{activation}' is not known here")
    read = _Reader(
        path=path,
        activation=ACTIVATIONS[activation],
        activate_output=bool(content.get("activate_output", True)),
    )
    networks = {
        width: (read.layers(pair[0], width), read.layers(pair[1], width))
        for width, pair in content.items()
        if isinstance(width, int) and isinstance(pair, Sequence) and len(pair) == 2
    }
    if not networks:
        raise UnsupportedModel(path, "it is no hypernetwork: there are no networks by width in it")
    return Hypernetwork(name=path.stem, networks=networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    path: Path
    activation: Activation | None
    activate_output: bool

    def layers(self, state: object, width: int) -> Sequence[_Layer]:
        """The layers of one network, from its state dict; dropout has no weights and no effect here."""
        steps = self._steps(state)
        linear = [index for index, (weight, _) in enumerate(steps) if weight.ndim == 2]
        layers = []
        for i, index in enumerate(linear):
            weight, bias = steps[index]
            is_norm = index + 1 < len(steps) and steps[index + 1][0].ndim == 1
            is_last = i == len(linear) - 1
            activation = None if is_last and not self.activate_output else self.activation
            layers.append(
                _Layer(weight=weight, bias=bias, activation=activation, norm=steps[index + 1] if is_norm else None)
            )
        if not layers or layers[0].weight.shape[1] != width or layers[-1].weight.shape[0] != width:
            raise UnsupportedModel(self.path, f"its networks for width {width} do not fit it")
        return layers

    def _steps(self, state: object) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of the layers that have them, in order."""
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items() if isinstance(state, Mapping) else ():
            match = _KEY.fullmatch(str(key))
            if match is None or not isinstance(value, Tensor):
                raise UnsupportedModel(self.path, f"it holds '{key}', which is no part of a hypernetwork")
            if not torch.isfinite(value).all():
                raise UnsupportedModel(self.path, f"its '{key}' has values that are NaN or infinite")
            found.setdefault(int(match[1] or int(match[2]) - 1), {})[match[3]] = value.detach()
        if any(set(entry) != {"weight", "bias"} for entry in found.values()):
            raise UnsupportedModel(self.path, "one of its layers has no weight or no bias")
        return [(found[index]["weight"], found[index]["bias"]) for index in sorted(found)]


@contextmanager
def hypernetworks_applied(unet: nn.Module, weighted: Sequence[tuple[Hypernetwork, float]]) -> Iterator[None]:
    """While it lasts, the keys and values of `unet`'s attentions are made of changed inputs: x + weight * network(x).

    Several are applied one after the other. A width that a file has no network for is left alone.
    """
    with ExitStack() as hooks:
        for hypernetwork, weight in weighted:
            for attention in _attentions(unet):
                for projection, layers in _changed_projections(hypernetwork, attention):
                    hook = projection.register_forward_pre_hook(_Change(layers, weight))
                    hooks.callback(hook.remove)
        yield


def num_changed_attentions(unet: nn.Module, hypernetwork: Hypernetwork) -> int:
    """How many of the attentions of `unet` it has networks for."""
    return sum(1 for attention in _attentions(unet) if attention.to_k.in_features in hypernetwork.networks)


def _attentions(unet: nn.Module) -> Iterator[Any]:
    for name, module in unet.named_modules():
        if name.endswith((".attn1", ".attn2")):
            yield module


def _changed_projections(hypernetwork: Hypernetwork, attention: Any) -> Iterator[tuple[Any, Sequence[_Layer]]]:
    pair = hypernetwork.networks.get(attention.to_k.in_features)
    if pair is not None:
        yield from zip((attention.to_k, attention.to_v), pair, strict=True)


class _Change:
    """The hook: x becomes x + weight * network(x)."""

    def __init__(self, layers: Sequence[_Layer], weight: float) -> None:
        self._layers = layers
        self._weight = weight

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        first = self._layers[0].weight
        if (first.device, first.dtype) != (x.device, x.dtype):  # known only now: networks may move while they run
            self._layers = [layer.to(x) for layer in self._layers]
        y = x
        for layer in self._layers:
            y = layer(y)
        return (x + y * self._weight, *rest)

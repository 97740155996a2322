"""Which class each component is, and what its config comes to with the classes' own defaults."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from webui.pipeline.layouts import Config, has_projection

WITHOUT_EFFECT = ("sample_size", "transformers_version", "architectures", "dtype", "torch_dtype", "model_type",
                  "id2label", "label2id")  # fmt: skip
"""Entries that change nothing in the network."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """`arguments` gives every argument of `make`, from a config as files have it."""

    arguments: Callable[[Config], dict[str, Any]]
    make: Callable[[dict[str, Any]], nn.Module]


def make_network(name: str, config: Config) -> nn.Module:
    """The network of component `name`. Raises TypeError, ValueError or another of the class's errors."""
    kind = _KINDS[name]
    return kind.make(kind.arguments(config))


def effective_config(name: str, config: Config) -> dict[str, Any]:
    """What of `config` decides how the network of component `name` computes, defaults filled in."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in _KINDS[name].arguments(config).items()
        if key not in WITHOUT_EFFECT and not key.startswith("_")
    }


def _diffusers(kind: type[Any]) -> _Kind:
    parameters = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name != "self"]

    def arguments(config: Config) -> dict[str, Any]:
        return {p.name: config.get(p.name, p.default) for p in parameters}

    return _Kind(arguments, lambda values: kind(**values))


def _text_arguments(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = CLIPTextConfig.from_dict(dict(config)).to_dict()
    return values | {"architectures": list(config.get("architectures") or ())}


def _make_text_model(values: dict[str, Any]) -> nn.Module:
    kind = CLIPTextModelWithProjection if has_projection(values) else CLIPTextModel
    model: nn.Module = kind(CLIPTextConfig.from_dict(values))
    return model


_TEXT = _Kind(_text_arguments, _make_text_model)
_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "unet": _diffusers(UNet2DConditionModel),
        "vae": _diffusers(AutoencoderKL),
        "tiny_decoder": _diffusers(AutoencoderTiny),
        "text_encoder": _TEXT,
        "text_encoder_2": _TEXT,
    }
)

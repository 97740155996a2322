"""Which layers of a model are trained: by where they lie, not by their names' ends alone."""

from collections.abc import Iterator, Mapping
from typing import Literal

from torch import nn

from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS, Target
from webui.training.config import Layers
from webui.training.networks.layers import Adaptable, kernel_of

Place = Literal["attention", "mlp", "convolutions"]

PLACES: Mapping[Layers, frozenset[Place]] = {
    "attention": frozenset({"attention"}),
    "attention and mlp": frozenset({"attention", "mlp"}),
    "all": frozenset({"attention", "mlp", "convolutions"}),
}

UNET_PLACES: tuple[tuple[str, Place], ...] = (
    (".attn1.", "attention"),
    (".attn2.", "attention"),
    ("attentions.", "mlp"),
    ("resnets.", "convolutions"),
    ("downsamplers.", "convolutions"),
    ("upsamplers.", "convolutions"),
)
"""The first part that a path has tells the place. The U-Net's ends and embeddings have none: no reader has names for
adapters of those. "mlp" is the rest of a transformer: its projections are in every LoRA that trains more than
attention."""

TEXT_PLACES: tuple[tuple[str, Place], ...] = ((".self_attn.", "attention"), (".mlp.", "mlp"))


def adaptable_layers(modules: Mapping[str, nn.Module]) -> Iterator[tuple[Target, Adaptable, Place]]:
    """Every linear layer and convolution that could be trained, in the networks' own order, the U-Net first."""
    for component in ADAPTED_COMPONENTS:
        if component not in modules:
            continue
        table = UNET_PLACES if component == "unet" else TEXT_PLACES
        for path, module in modules[component].named_modules():
            place = next((place for part, place in table if part in path), None)
            if place is not None and isinstance(module, nn.Linear | nn.Conv2d):
                yield Target(component, path), module, place


def has_kernel(layer: Adaptable) -> bool:
    """Whether it is a convolution that looks at neighbours."""
    return any(size > 1 for size in kernel_of(layer))

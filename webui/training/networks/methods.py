"""The methods that change layers, one row each: which layers they take, and what they make of one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import nn

from webui.pipeline.adapters.targets import Target
from webui.training.config import Method, Network
from webui.training.networks.gains import Ia3Layer, OftLayer
from webui.training.networks.layers import Adaptable, AdaptedLayer, Dropouts
from webui.training.networks.low_rank import DoraLayer, LoraLayer
from webui.training.networks.products import LohaLayer, LokrLayer
from webui.training.networks.selection import PLACES, Place, adaptable_layers, has_kernel

Make = Callable[[Target, Adaptable, Dropouts, Network], AdaptedLayer]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMethod:
    """`kernels`: whether convolutions that look at neighbours are never taken, when chosen, or always (with all that
    lies among them). `wants` leaves out layers that the method has no use for."""

    make: Make
    kernels: Literal["never", "chosen", "always"] = "chosen"
    wants: Callable[[Target], bool] = lambda target: True


def _ranked(kind: type[LoraLayer] | type[LohaLayer]) -> Make:
    def make(target: Target, layer: Adaptable, dropouts: Dropouts, network: Network) -> AdaptedLayer:
        rank, alpha = rank_of(layer, network)
        return kind(layer, dropouts, rank=rank, alpha=alpha)

    return make


def rank_of(layer: Adaptable, network: Network) -> tuple[int, float]:
    """Rank and alpha for a layer."""
    if has_kernel(layer):
        return network.conv_rank, network.conv_alpha
    return network.rank, network.alpha


def _lokr(target: Target, layer: Adaptable, dropouts: Dropouts, network: Network) -> AdaptedLayer:
    rank, alpha = rank_of(layer, network)
    return LokrLayer(layer, dropouts, rank=rank, alpha=alpha, factor=network.lokr_factor or -1)


def _ia3(target: Target, layer: Adaptable, dropouts: Dropouts, network: Network) -> AdaptedLayer:
    return Ia3Layer(layer, dropouts, on_input=target.path.endswith(IA3_INPUTS))


def _oft(target: Target, layer: Adaptable, dropouts: Dropouts, network: Network) -> AdaptedLayer:
    return OftLayer(layer, dropouts, block=network.oft_block)


IA3_OUTPUTS = ("to_k", "to_v", "k_proj", "v_proj")
IA3_INPUTS = ("ff.net.2", "fc2")
"""Keys, values, and what is between the two layers of a transformer's network: those that the paper rescales."""

LORA = LayerMethod(make=_ranked(LoraLayer), kernels="never")

LAYER_METHODS: Mapping[Method, LayerMethod] = MappingProxyType(
    {
        "lora": LORA,
        "pivotal": LORA,
        "locon": LayerMethod(make=_ranked(LoraLayer), kernels="always"),
        "dora": LayerMethod(make=_ranked(DoraLayer)),
        "loha": LayerMethod(make=_ranked(LohaLayer)),
        "lokr": LayerMethod(make=_lokr),
        "ia3": LayerMethod(make=_ia3, wants=lambda target: target.path.endswith(IA3_OUTPUTS + IA3_INPUTS)),
        "oft": LayerMethod(make=_oft),
    }
)


def make_layers(modules: Mapping[str, nn.Module], network: Network) -> dict[Target, AdaptedLayer]:
    """The adapter of each layer that `network` trains, not attached yet, the U-Net's first."""
    method = LAYER_METHODS[network.method]
    dropouts = Dropouts(value=network.dropout, rank=network.rank_dropout, module=network.module_dropout)
    places: frozenset[Place] = PLACES[network.layers]
    if method.kernels == "always":
        places |= {"convolutions"}
    return {
        target: method.make(target, layer, dropouts, network)
        for target, layer, place in adaptable_layers(modules)
        if place in places
        and (target.component == "unet" or network.text_encoder)
        and not (method.kernels == "never" and has_kernel(layer))
        and method.wants(target)
    }

"""The same tensors in LyCORIS and PEFT at strength 1: what their layers compute while training is what merging gives.

LyCORIS is asked for its forward pass only: its merge applies alpha / rank twice for some types.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, get_peft_model
from torch import Tensor, nn

from tests.adapter_files import Shape, fits, tensors_for
from tests.pipeline.adapters.test_deltas import group_of
from webui.pipeline.adapters import deltas
from webui.pipeline.adapters.reading import read_adapter
from webui.pipeline.adapters.targets import AdapterGroup

RANK, ALPHA = 4, 3.0
SHAPES: dict[str, Shape] = {"linear": (16, 12), "1x1": (16, 12, 1, 1), "3x3": (16, 12, 3, 3), "norm": (16,)}


def layer_of(shape: Shape) -> nn.Module:
    torch.manual_seed(3)
    if len(shape) == 1:
        layer: nn.Module = nn.LayerNorm(shape[0])
    elif len(shape) == 2:
        layer = nn.Linear(shape[1], shape[0])
    else:
        layer = nn.Conv2d(shape[1], shape[0], shape[2], stride=2, padding=shape[2] // 2)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.requires_grad_(False)


def input_of(shape: Shape) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    size = {1: (5, shape[0]), 2: (5, shape[-1])}.get(len(shape)) or (2, shape[1], 7, 7)
    return torch.randn(size, generator=generator)


def ours(group: AdapterGroup, shape: Shape) -> tuple[Tensor, Tensor]:
    """What the layer gives for the input without and with the adapter merged into it."""
    layer, x = layer_of(shape), input_of(shape)
    plain = layer(x)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    weight.copy_(deltas.patched(group, weight, 1.0))
    bias.copy_(deltas.bias_patched(group, bias, 1.0))
    return plain, layer(x)


def assert_same_change(plain: Tensor, found: Tensor, expected: Tensor) -> None:
    assert ((found - expected).norm() / (expected - plain).norm()).item() <= 1e-4


# LyCORIS -------------------------------------------------------------------------------------------------------------

Build = Callable[[nn.Module], nn.Module]


def lycoris(kind: Any, **options: Any) -> Build:
    return lambda layer: kind("x", layer, 1.0, **{"lora_dim": RANK, "alpha": ALPHA, **options})


DORA_OUT = {"weight_decompose": True, "wd_on_out": True}
DORA_IN = {"weight_decompose": True, "wd_on_out": False}

LYCORIS: Mapping[str, Build] = {
    "lora": lycoris(LoConModule),
    "lora-tucker": lycoris(LoConModule, use_tucker=True),
    "dora-out": lycoris(LoConModule, **DORA_OUT),
    "dora-in": lycoris(LoConModule, **DORA_IN),
    "dora-out-tucker": lycoris(LoConModule, use_tucker=True, **DORA_OUT),
    "dora-in-tucker": lycoris(LoConModule, use_tucker=True, **DORA_IN),
    "loha": lycoris(LohaModule),
    "loha-tucker": lycoris(LohaModule, use_tucker=True),
    "dora-out-loha": lycoris(LohaModule, **DORA_OUT),
    "dora-in-loha": lycoris(LohaModule, **DORA_IN),
    "dora-out-loha-tucker": lycoris(LohaModule, use_tucker=True, **DORA_OUT),
    "lokr-whole": lycoris(LokrModule, full_matrix=True),
    "lokr-second-factored": lycoris(LokrModule, lora_dim=3, factor=2),
    "lokr-factored": lycoris(LokrModule, lora_dim=1, decompose_both=True),
    "lokr-tucker": lycoris(LokrModule, lora_dim=3, factor=2, use_tucker=True),
    "lokr-tucker-factored": lycoris(LokrModule, lora_dim=1, decompose_both=True, use_tucker=True),
    "dora-out-lokr": lycoris(LokrModule, lora_dim=3, factor=2, **DORA_OUT),
    "dora-in-lokr": lycoris(LokrModule, lora_dim=1, decompose_both=True, **DORA_IN),
    "dora-out-lokr-tucker": lycoris(LokrModule, lora_dim=1, decompose_both=True, use_tucker=True, **DORA_OUT),
    "ia3": lycoris(IA3Module, train_on_input=False),
    "ia3-on-input": lycoris(IA3Module, train_on_input=True),
    "oft": lycoris(DiagOFTModule, constraint=0.0),
    "oft-constrained": lycoris(DiagOFTModule, constraint=0.01),
    "oft-rescaled": lycoris(DiagOFTModule, constraint=0.0, rescaled=True),
    "boft": lycoris(ButterflyOFTModule, constraint=0.0),
    "boft-constrained": lycoris(ButterflyOFTModule, constraint=0.01),
    "boft-rescaled": lycoris(ButterflyOFTModule, constraint=0.0, rescaled=True),
    "glora": lycoris(GLoRAModule),
    "full": lycoris(FullModule),
    "norm": lambda layer: NormModule("x", layer, 1.0),
}

LYCORIS_CASES = [(variant, layer) for variant in LYCORIS for layer in SHAPES if fits(variant, SHAPES[layer])]


def own_shapes(module: nn.Module) -> dict[str, Tensor]:
    """Values of moderate size for LyCORIS's own parameters, whose shapes it chose."""
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, Tensor] = {}
    for name, value in module.named_parameters():
        random = torch.randn(value.shape, generator=generator) * 0.3
        tensors[name] = 1 + random.abs() if name in {"dora_scale", "rescale"} else random
    return tensors


@pytest.mark.parametrize(("variant", "layer"), LYCORIS_CASES)
def test_merging_gives_what_lycoris_computes_forward(variant: str, layer: str) -> None:
    shape = SHAPES[layer]
    network = layer_of(shape)
    module = LYCORIS[variant](network).eval()
    tensors = own_shapes(module)
    if variant == "full":
        tensors = {"diff": tensors["weight"], "diff_b": tensors["bias"]}
    assert module.load_state_dict(tensors, strict=False).unexpected_keys == []
    tensors |= {name: value for name, value in module.named_buffers() if name in {"alpha", "on_input"}}
    expected_ends = tensors_for(variant, shape, rank=RANK, alpha=ALPHA).keys() - {"alpha"}
    assert tensors.keys() - {"alpha"} == expected_ends, "LyCORIS stores other keys for this type than our test files"
    plain, found = ours(group_of(tensors), shape)
    module.apply_to()
    with torch.no_grad():
        assert_same_change(plain, found, network(input_of(shape)))


# PEFT ----------------------------------------------------------------------------------------------------------------

PEFT_RANK = 3

PEFT: Mapping[str, Any] = {
    "lora": LoraConfig(r=PEFT_RANK, lora_alpha=ALPHA, target_modules=["layer"]),
    "lora-rank-stabilised": LoraConfig(r=PEFT_RANK, lora_alpha=ALPHA, use_rslora=True, target_modules=["layer"]),
    "dora-out": LoraConfig(r=PEFT_RANK, lora_alpha=ALPHA, use_dora=True, target_modules=["layer"]),
    "loha": LoHaConfig(r=PEFT_RANK, alpha=ALPHA, target_modules=["layer"]),
    "loha-tucker": LoHaConfig(r=PEFT_RANK, alpha=ALPHA, use_effective_conv2d=True, target_modules=["layer"]),
    "lokr-whole": LoKrConfig(r=16, alpha=ALPHA, target_modules=["layer"]),
    "lokr-second-factored": LoKrConfig(r=PEFT_RANK, alpha=ALPHA, decompose_factor=2, target_modules=["layer"]),
    "lokr-factored": LoKrConfig(r=1, alpha=ALPHA, decompose_both=True, target_modules=["layer"]),
    "oft-input": OFTConfig(oft_block_size=4, r=0, target_modules=["layer"]),
    "oft-input-shared": OFTConfig(oft_block_size=4, r=0, block_share=True, target_modules=["layer"]),
    "lokr-tucker": LoKrConfig(r=1, alpha=ALPHA, use_effective_conv2d=True, target_modules=["layer"]),
}

PEFT_CASES = [
    (variant, layer) for variant in PEFT for layer in ("linear", "1x1", "3x3") if fits(variant, SHAPES[layer])
]


@pytest.mark.parametrize(("variant", "layer"), PEFT_CASES)
def test_a_file_that_peft_writes_gives_what_peft_computes_forward(variant: str, layer: str, tmp_path: Path) -> None:
    """Through the file: keys without an alpha, and the settings in adapter_config.json beside it."""
    shape = SHAPES[layer]
    model = get_peft_model(nn.ModuleDict({"layer": layer_of(shape)}), PEFT[variant])
    generator = torch.Generator().manual_seed(6)
    for name, parameter in model.named_parameters():
        if "base_layer" not in name:
            value = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.data = 1 + value.abs() if "magnitude" in name else value
    model.save_pretrained(tmp_path)
    (group,) = read_adapter(tmp_path / "adapter_model.safetensors").groups.values()
    assert group.prefix == "base_model.model.layer"
    plain, found = ours(group, shape)
    with torch.no_grad():
        assert_same_change(plain, found, model.base_model.model["layer"](input_of(shape)))

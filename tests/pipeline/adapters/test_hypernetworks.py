"""Hypernetworks, against a plain attention computed apart in float64."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from webui.errors import UnsupportedModel
from webui.pipeline.adapters.hypernetworks import hypernetworks_applied, num_changed_attentions, read_hypernetwork

WIDTH = 8


def network(
    structure: Sequence[float], *, activation: type[nn.Module] | None, norm: bool, dropout: bool, activate_output: bool
) -> nn.Sequential:
    """As A1111 builds them: Linear, activation, LayerNorm, Dropout for each step of the structure."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(structure)):
        layers.append(nn.Linear(int(WIDTH * before), int(WIDTH * after)))
        if activation is not None and (activate_output or i < len(structure) - 2):
            layers.append(activation())
        if norm:
            layers.append(nn.LayerNorm(int(WIDTH * after)))
        if dropout and i < len(structure) - 2:
            layers.append(nn.Dropout(0.3))
    model = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {f"linear.{name}": value for name, value in model.state_dict().items()}


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"structure": [1, 2, 1], "activation": None, "norm": False, "dropout": False, "activate_output": True},
    "relu": {"structure": [1, 2, 1], "activation": nn.ReLU, "norm": False, "dropout": False, "activate_output": False},
    "deep": {
        "structure": [1, 1.5, 2, 1],
        "activation": nn.Mish,
        "norm": True,
        "dropout": True,
        "activate_output": True,
    },
    "swish": {
        "structure": [1, 3, 1],
        "activation": nn.Hardswish,
        "norm": True,
        "dropout": False,
        "activate_output": False,
    },
}
NAMES = {None: None, nn.ReLU: "relu", nn.Mish: "mish", nn.Hardswish: "swish"}


def write(path: Path, keys: nn.Module, values: nn.Module, **settings: object) -> Path:
    torch.save({WIDTH: (state_of(keys), state_of(values)), "step": 10, "name": "x", **settings}, path)
    return path


def attention(width: int = WIDTH) -> nn.Module:
    """A network with one attention, under the name it has in a U-Net."""
    torch.manual_seed(0)
    outer = nn.Module()
    outer.add_module("block", nn.Module())
    outer.block.add_module("attn1", Attention(query_dim=width, heads=2, dim_head=4))  # type: ignore[union-attr]
    return outer.eval().requires_grad_(False)


def reference(module: Any, x: Tensor, changes: Sequence[tuple[nn.Module, nn.Module, float]]) -> Tensor:
    """softmax(q k^T / sqrt(d)) v in float64, with the inputs of k and v changed."""
    weights = {name: value.double() for name, value in module.state_dict().items()}
    into_k = into_v = x.double()
    for keys, values, strength in changes:
        into_k = into_k + strength * keys.double()(into_k)
        into_v = into_v + strength * values.double()(into_v)
    inputs = {"q": x.double(), "k": into_k, "v": into_v}
    q, k, v = (
        (entry @ weights[f"to_{name}.weight"].T).unflatten(-1, (2, 4)).transpose(1, 2) for name, entry in inputs.items()
    )
    mixed = ((q @ k.mT / 2).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    return mixed @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_hypernetwork_changes_keys_and_values_by_its_definition(variant: str, tmp_path: Path) -> None:
    row = VARIANTS[variant]
    keys, values = network(**row), network(**row)
    values.load_state_dict({name: -value for name, value in keys.state_dict().items()})
    path = write(
        tmp_path / "h.pt",
        keys,
        values,
        activation_func=NAMES[row["activation"]],
        activate_output=row["activate_output"],
    )
    hypernetwork = read_hypernetwork(path)
    outer = attention()
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(7))
    before = outer.block.attn1(x)
    with hypernetworks_applied(outer, [(hypernetwork, 0.7), (hypernetwork, -0.2)]):
        applied = outer.block.attn1(x)
    expected = reference(outer.block.attn1, x, [(keys, values, 0.7), (keys, values, -0.2)])
    assert (applied - expected).norm() / expected.norm() < 1e-5
    assert not torch.equal(applied, before)
    assert torch.equal(outer.block.attn1(x), before), "and is gone to the bit"


def test_the_first_files_with_two_layers_are_read(tmp_path: Path) -> None:
    keys = network(**VARIANTS["plain"])
    state = {
        f"linear{1 + int(name[7])}{name[8:]}": value for name, value in state_of(keys).items()
    }  # linear1.weight, linear2.weight
    assert set(state) == {"linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"}
    torch.save({WIDTH: (state, state)}, tmp_path / "old.pt")
    hypernetwork = read_hypernetwork(tmp_path / "old.pt")
    outer = attention()
    x = torch.randn(1, 3, WIDTH)
    with hypernetworks_applied(outer, [(hypernetwork, 1.0)]):
        expected = reference(outer.block.attn1, x, [(keys, keys, 1.0)])
        assert torch.allclose(outer.block.attn1(x).double(), expected, atol=1e-5)


def test_attentions_of_other_widths_are_left_alone(tmp_path: Path) -> None:
    keys = network(**VARIANTS["plain"])
    hypernetwork = read_hypernetwork(write(tmp_path / "h.pt", keys, keys))
    outer = attention(width=16)
    x = torch.randn(1, 3, 16)
    before = outer.block.attn1(x)
    assert num_changed_attentions(outer, hypernetwork) == 0
    with hypernetworks_applied(outer, [(hypernetwork, 1.0)]):
        assert torch.equal(outer.block.attn1(x), before)


def test_an_error_during_the_run_leaves_no_hook_behind(tmp_path: Path) -> None:
    keys = network(**VARIANTS["plain"])
    hypernetwork = read_hypernetwork(write(tmp_path / "h.pt", keys, keys))
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    assert num_changed_attentions(unet, hypernetwork) == 7, "all cross-attentions, and self-attentions of width 8"
    with pytest.raises(KeyError), hypernetworks_applied(unet, [(hypernetwork, 1.0)]):
        raise KeyError
    assert not any(module._forward_pre_hooks for module in unet.modules())


BROKEN: Mapping[str, tuple[object, str]] = {
    "list": ([1], "no hypernetwork"),
    "no width": ({"a": torch.zeros(2)}, "no networks by width"),
    "activation": ({WIDTH: ({}, {}), "activation_func": "magic"}, "activation 'magic'"),
    "foreign": ({WIDTH: ({"conv.weight": torch.zeros(1)}, {})}, "'conv.weight', which is no part"),
    "empty": ({WIDTH: ({}, {})}, "do not fit"),
    "width": ({16: (state_of(network(**VARIANTS["plain"])),) * 2}, "width 16 do not fit"),
    "no bias": ({WIDTH: ({"linear.0.weight": torch.zeros(8, 8)},) * 2}, "no weight or no bias"),
    "nan": ({WIDTH: ({"linear.0.weight": torch.full((8, 8), torch.nan)},) * 2}, "NaN"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_said(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    torch.save(content, tmp_path / "h.pt")
    with pytest.raises(UnsupportedModel, match=message):
        read_hypernetwork(tmp_path / "h.pt")

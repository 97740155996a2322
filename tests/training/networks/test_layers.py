"""One layer of each kind: its output, and its gradients, against independent computations of the same change."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tests.pipeline.adapters.oracles import trained_weight
from webui.errors import AdapterMismatch
from webui.pipeline.adapters.targets import Target
from webui.pipeline.adapters.writing import KohyaNames, write_adapter
from webui.training.networks.gains import Ia3Layer, OftLayer
from webui.training.networks.halves import split_size
from webui.training.networks.layers import AdaptedLayer, Dropouts, applied
from webui.training.networks.low_rank import DoraLayer, LoraLayer
from webui.training.networks.products import LohaLayer, LokrLayer

RANK, ALPHA = 4, 3.0
NONE = Dropouts()

KINDS: Mapping[str, Callable[..., AdaptedLayer]] = {
    "lora": lambda layer, dropouts=NONE: LoraLayer(layer, dropouts, rank=RANK, alpha=ALPHA),
    "dora": lambda layer, dropouts=NONE: DoraLayer(layer, dropouts, rank=RANK, alpha=ALPHA),
    "loha": lambda layer, dropouts=NONE: LohaLayer(layer, dropouts, rank=RANK, alpha=ALPHA),
    "lokr": lambda layer, dropouts=NONE: LokrLayer(layer, dropouts, rank=RANK, alpha=ALPHA, factor=-1),
    "lokr factored": lambda layer, dropouts=NONE: LokrLayer(layer, dropouts, rank=2, alpha=ALPHA, factor=2),
    "ia3": lambda layer, dropouts=NONE: Ia3Layer(layer, dropouts, on_input=False),
    "ia3 on input": lambda layer, dropouts=NONE: Ia3Layer(layer, dropouts, on_input=True),
    "oft": lambda layer, dropouts=NONE: OftLayer(layer, dropouts, block=4),
}
ORACLES = {"lora": "lora", "dora": "dora-in", "loha": "loha", "lokr": "lokr-whole", "ia3": "ia3", "oft": "oft",
           "lokr factored": "lokr-second-factored", "ia3 on input": "ia3-on-input"}  # fmt: skip
LYCORIS: Mapping[str, Callable[[nn.Module], Any]] = {
    "lora": lambda layer: LoConModule("x", layer, 1.0, RANK, ALPHA),
    "dora": lambda layer: LoConModule("x", layer, 1.0, RANK, ALPHA, weight_decompose=True, wd_on_out=False),
    "loha": lambda layer: LohaModule("x", layer, 1.0, RANK, ALPHA),
    "lokr": lambda layer: LokrModule("x", layer, 1.0, RANK, ALPHA, full_matrix=True),
    "lokr factored": lambda layer: LokrModule("x", layer, 1.0, 2, ALPHA, factor=2),
    "ia3": lambda layer: IA3Module("x", layer, 1.0, train_on_input=False),
    "ia3 on input": lambda layer: IA3Module("x", layer, 1.0, train_on_input=True),
    "oft": lambda layer: DiagOFTModule("x", layer, 1.0, 4, 0.0, constraint=0.0),
}
LAYERS: Mapping[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": lambda: nn.Linear(12, 16),
    "without bias": lambda: nn.Linear(12, 16, bias=False),
    "1x1": lambda: nn.Conv2d(12, 16, 1),
    "3x3": lambda: nn.Conv2d(12, 16, 3, stride=2, padding=1),
}
EVERY = [(kind, layer) for kind in KINDS for layer in LAYERS]


def layer_of(name: str) -> nn.Linear | nn.Conv2d:
    torch.manual_seed(3)
    layer = LAYERS[name]()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.requires_grad_(False)


def input_of(layer: nn.Module, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn((batch, 5, 12) if isinstance(layer, nn.Linear) else (batch, 12, 7, 7), generator=generator)


def adapted(kind: str, layer: nn.Linear | nn.Conv2d, dropouts: Dropouts = NONE) -> AdaptedLayer:
    """On the layer, with values as after much training."""
    made = KINDS[kind](layer, dropouts)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for factor in made.factors.values():
            factor.add_(torch.randn(factor.shape, generator=generator) * 0.3)
    made.attach()
    return made


def relative(found: Tensor, expected: Tensor, base: Tensor | float = 0.0) -> float:
    return float((found - expected).norm() / (expected - base).norm())


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_new_adapter_changes_nothing(kind: str, name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    before = layer(x)
    KINDS[kind](layer).attach()
    assert relative(layer(x).detach(), before) < 1e-6


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_output_is_that_of_the_formula_in_float64(kind: str, name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    before = layer(x)
    made = adapted(kind, layer)
    ends = {"lora_up": "lora_up.weight", "lora_down": "lora_down.weight"}
    tensors = {ends.get(name, name): tensor for name, tensor in made.tensors().items()}
    weight = torch.from_numpy(trained_weight(ORACLES[kind], tensors, layer.weight))
    bias = None if layer.bias is None else layer.bias.double()
    assert relative(layer(x).detach().double(), applied(layer, x.double(), weight, bias), before) < 1e-5


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_lycoris_gives_the_same_output_with_the_tensors_of_the_file(kind: str, name: str, tmp_path: Path) -> None:
    layer, other = layer_of(name), layer_of(name)
    x = input_of(layer)
    before = layer(x)
    made = adapted(kind, layer)
    path = tmp_path / "x.safetensors"
    names = KohyaNames("sd1", {})
    write_adapter(path, {Target("unet", "layer"): made.tensors()}, names, dtype=torch.float32, metadata={})
    stored = {key.removeprefix("lora_unet_layer."): tensor for key, tensor in load_file(path).items()}
    module = LYCORIS[kind](other).eval()
    result = module.load_state_dict(stored, strict=False)
    assert not result.unexpected_keys
    assert all(key in ("scalar", "bypass_mode") for key in result.missing_keys), result.missing_keys
    module.apply_to()
    assert relative(layer(x).detach(), other(x).detach(), before) < 1e-4


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_the_formula(kind: str, name: str, channels_last: bool) -> None:
    layer = layer_of(name)
    made = adapted(kind, layer)
    x = input_of(layer)
    if channels_last and x.ndim == 4:
        layer.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    output = layer(x)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(6))
    (output * weights).sum().backward()
    factors = {name: factor.detach().double().requires_grad_() for name, factor in made.factors.items()}
    far = x.detach().double().requires_grad_()
    bias = None if layer.bias is None else layer.bias.double()
    expected = applied(layer, far, FORMULAS[kind](factors, layer.weight.double()), bias)
    (expected * weights.double()).sum().backward()
    assert relative(output.detach().double(), expected.detach()) < 1e-6
    assert far.grad is not None and x.grad is not None
    assert relative(x.grad.double(), far.grad) < 1e-5
    for key, factor in made.factors.items():
        wanted = factors[key].grad
        assert factor.grad is not None and wanted is not None
        assert factor.grad.dtype == torch.float32
        assert relative(factor.grad.double(), wanted) < 1e-5, key
    assert layer.weight.grad is None


def _lora(t: Mapping[str, Tensor], w: Tensor) -> Tensor:
    return w + ALPHA / RANK * (t["lora_up"].flatten(1) @ t["lora_down"].flatten(1)).reshape(w.shape)


def _dora(t: Mapping[str, Tensor], w: Tensor) -> Tensor:
    """The paper's section 4.3: the norm is a constant to the gradient."""
    directed = _lora(t, w)
    axes = [axis for axis in range(w.ndim) if axis != 1]
    return directed * t["dora_scale"] / directed.detach().square().sum(dim=axes, keepdim=True).sqrt()


def _loha(t: Mapping[str, Tensor], w: Tensor) -> Tensor:
    product = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    return w + ALPHA / RANK * product.reshape(w.shape)


def _lokr(t: Mapping[str, Tensor], w: Tensor) -> Tensor:
    factored = "lokr_w2_a" in t
    second = t["lokr_w2_a"] @ t["lokr_w2_b"] if factored else t["lokr_w2"].flatten(1)
    return w + (ALPHA / 2 if factored else 1.0) * torch.kron(t["lokr_w1"], second).reshape(w.shape)


def _ia3(t: Mapping[str, Tensor], w: Tensor, axis: int) -> Tensor:
    shape = [-1 if i == axis else 1 for i in range(w.ndim)]
    return w * (1 + t["weight"].reshape(shape))


def _oft(t: Mapping[str, Tensor], w: Tensor) -> Tensor:
    skew = t["oft_blocks"] - t["oft_blocks"].mT
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype)
    turns = torch.block_diag(*((identity + skew) @ torch.linalg.inv(identity - skew)).mT)
    return (turns @ w.flatten(1)).reshape(w.shape)


FORMULAS: Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]] = {
    "lora": _lora, "dora": _dora, "loha": _loha, "lokr": _lokr, "lokr factored": _lokr, "oft": _oft,
    "ia3": lambda t, w: _ia3(t, w, 0), "ia3 on input": lambda t, w: _ia3(t, w, 1),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_in_bfloat16_factors_and_their_gradients_stay_float32(kind: str, name: str) -> None:
    exact, layer = layer_of(name), layer_of(name).to(torch.bfloat16)
    x = input_of(layer)
    made, reference = adapted(kind, layer), adapted(kind, exact)
    reference.load(made.tensors(), "layer")
    output = layer(x.to(torch.bfloat16))
    expected = exact(x)
    assert output.dtype == torch.bfloat16
    assert relative(output.detach().float(), expected.detach()) < 0.03
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(6))
    (output.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for key, factor in made.factors.items():
        theirs = reference.factors[key].grad
        assert factor.dtype == torch.float32
        assert factor.grad is not None and theirs is not None
        assert factor.grad.dtype == torch.float32
        assert relative(factor.grad, theirs) < 0.05, key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropouts", [Dropouts(value=0.5), Dropouts(rank=0.5), Dropouts(value=0.3, rank=0.3)])
def test_dropouts_keep_the_mean_and_apply_while_training_only(kind: str, dropouts: Dropouts) -> None:
    layer = layer_of("linear")
    made = adapted(kind, layer, dropouts)
    x = input_of(layer, batch=1).expand(3000, 5, 12)
    with torch.no_grad():
        kept = layer(x)
        assert torch.equal(kept[0], kept[-1])
        made.training = True
        torch.manual_seed(0)
        dropped = layer(x)
    base = F.linear(x[0], layer.weight, layer.bias)
    assert not torch.equal(dropped[0], dropped[1])
    assert relative(dropped.mean(dim=0), kept[0], base) < 0.1


def test_ranks_that_are_dropped_are_dropped_for_a_whole_picture() -> None:
    layer = layer_of("3x3")
    made = adapted("lora", layer, Dropouts(rank=0.999))
    made.training = True
    x = input_of(layer, batch=8)
    torch.manual_seed(0)
    with torch.no_grad():
        change = layer(x) - applied(layer, x, layer.weight, layer.bias)
    assert float(change.abs().max()) == 0


def test_a_layer_that_is_dropped_is_the_base() -> None:
    layer = layer_of("linear")
    made = adapted("lora", layer, Dropouts(module=0.5))
    made.training = True
    x = input_of(layer)
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = [layer(x) for _ in range(200)]
    base = F.linear(x, layer.weight, layer.bias)
    share = sum(torch.equal(output, base) for output in outputs) / len(outputs)
    assert 0.35 < share < 0.65


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_norm_of_the_change_is_kept_below_the_limit(kind: str, name: str) -> None:
    layer = layer_of(name)
    made = adapted(kind, layer)
    factors = {name: factor.detach().double() for name, factor in made.factors.items()}

    def norm() -> float:
        factors = {name: factor.detach().double() for name, factor in made.factors.items()}
        formula = _lora if kind == "dora" else FORMULAS[kind]  # the magnitudes are not what is limited
        weight = layer.weight.double()
        return float((formula(factors, weight) - weight).norm())

    before = norm()
    assert not made.limit_norm(before * 1.01)
    assert all(torch.equal(factors[name].float(), factor) for name, factor in made.factors.items())
    assert made.limit_norm(before / 3)
    assert norm() <= before / 3 * 1.001
    assert norm() > before / 4


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_what_was_trained_goes_on_in_another_layer(kind: str, name: str) -> None:
    layer, other = layer_of(name), layer_of(name)
    x = input_of(layer)
    made = adapted(kind, layer)
    fresh = KINDS[kind](other)
    fresh.load({name: tensor.clone() for name, tensor in made.tensors().items()}, "layer")
    fresh.attach()
    assert torch.equal(layer(x), other(x))


def test_tensors_of_another_rank_or_alpha_are_refused_by_name() -> None:
    made = LoraLayer(layer_of("linear"), NONE, rank=4, alpha=3)
    other = LoraLayer(layer_of("linear"), NONE, rank=8, alpha=3)
    with pytest.raises(AdapterMismatch, match=r"to_q has \[8, 12\] as lora_down, and this training has \[4, 12\]"):
        made.load(other.tensors(), "to_q")
    other = LoraLayer(layer_of("linear"), NONE, rank=4, alpha=8)
    with pytest.raises(AdapterMismatch, match="to_q was trained with alpha 8, and this training has 3"):
        made.load(other.tensors(), "to_q")
    with pytest.raises(AdapterMismatch, match="to_q has nothing as lora_down"):
        made.load(LohaLayer(layer_of("linear"), NONE, rank=4, alpha=3).tensors(), "to_q")


@given(size=st.integers(1, 3000), factor=st.one_of(st.just(-1), st.integers(1, 64)))
def test_sizes_are_split_into_whole_factors(size: int, factor: int) -> None:
    small, large = split_size(size, factor)
    assert small * large == size
    assert small <= large
    if factor > 0 and size % factor:
        assert small <= factor


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [(320, -1, (16, 20)), (640, -1, (20, 32)), (768, -1, (24, 32)), (1280, -1, (32, 40)), (320, 4, (4, 80)),
     (768, 8, (8, 96)), (2560, 8, (8, 320)), (10240, 16, (16, 640))],
)  # fmt: skip
def test_sizes_are_split_as_lycoris_splits_them(size: int, factor: int, expected: tuple[int, int]) -> None:
    assert split_size(size, factor) == expected


def test_a_lora_keeps_its_input_and_a_rank_wide_value_for_the_way_back() -> None:
    """And no weight-sized or output-sized value: what a training needs of memory."""
    layer = nn.Linear(256, 512).requires_grad_(False)
    LoraLayer(layer, NONE, rank=4, alpha=4).attach()
    x = torch.randn(100, 256, requires_grad=True)
    own = {layer.weight.data_ptr(), x.data_ptr()}
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    assert sum(kept) == 4 * (256 + 512 + 100)
    assert math.prod(layer.weight.shape) > sum(kept)

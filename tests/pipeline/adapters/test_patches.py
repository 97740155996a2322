"""Merged weights: exact, in place, and gone without a trace."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from webui.pipeline.adapters.deltas import is_low_rank
from webui.pipeline.adapters.patches import Patch, PatchedWeights
from webui.pipeline.adapters.targets import AdapterGroup

RANK = 2


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.conv = nn.Conv2d(4, 6, 3)
        self.point = nn.Conv2d(6, 4, 1, bias=False)
        self.norm = nn.GroupNorm(2, 6)
        self.untouched = nn.Linear(3, 3)


SHAPES = {name: tuple(value.shape) for name, value in Tiny().state_dict().items()}


class MemorySource:
    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights: Mapping[str, Tensor] = weights
        self.num_reads = 0

    def tensor(self, name: str) -> Tensor:
        self.num_reads += 1
        return self.weights[name]


def make(dtype: torch.dtype = torch.float32, file_dtype: torch.dtype = torch.float32) -> tuple[Tiny, MemorySource]:
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(shape, generator=generator).to(file_dtype) for name, shape in SHAPES.items()}
    module = Tiny().requires_grad_(False)
    module.load_state_dict({name: value.to(dtype).clone() for name, value in weights.items()}, assign=True)
    return module.to(memory_format=torch.channels_last), MemorySource(weights)  # type: ignore[call-overload]


def lora(path: str, seed: int, *, scale: float = 0.5, dtype: torch.dtype = torch.float32) -> AdapterGroup:
    generator = torch.Generator().manual_seed(seed)
    out, *inputs = SHAPES[f"{path}.weight"]
    down_shape = (RANK, *inputs)
    up_shape = (out, RANK, 1, 1) if len(inputs) == 3 else (out, RANK)
    return AdapterGroup.of(
        path,
        {
            "lora_up": torch.randn(up_shape, generator=generator).to(dtype),
            "lora_down": torch.randn(down_shape, generator=generator).to(dtype),
            "alpha": torch.tensor(scale * RANK),
        },
    )


def full(path: str, seed: int) -> AdapterGroup:
    generator = torch.Generator().manual_seed(seed)
    return AdapterGroup.of(
        path,
        {
            "diff": torch.randn(SHAPES[f"{path}.weight"], generator=generator),
            "diff_b": torch.randn(SHAPES[f"{path}.bias"], generator=generator),
        },
    )


def norm(seed: int) -> AdapterGroup:
    generator = torch.Generator().manual_seed(seed)
    return AdapterGroup.of("norm", {key: torch.randn(6, generator=generator) for key in ("w_norm", "b_norm")})


GROUPS = {
    "linear": [lora("linear", 1), lora("linear", 2, dtype=torch.float16), full("linear", 3)],
    "conv": [lora("conv", 4), full("conv", 5), lora("conv", 6)],
    "point": [lora("point", 7), lora("point", 8, dtype=torch.bfloat16)],
    "norm": [norm(9), norm(10)],
}
MULTIPLIERS = (1.0, 0.6, -0.5)


def patch(path: str, which: int, multiplier: float) -> Patch:
    return patch_of(GROUPS[path][which], (path, which, multiplier), multiplier)


def patch_of(group: AdapterGroup, key: object, multiplier: float = 1.0) -> Patch:
    return Patch(key=key, group=group, multiplier=multiplier, is_plain=is_low_rank(group))


def expected(source: MemorySource, recipes: Mapping[str, list[Patch]]) -> dict[str, Tensor]:
    """The same in float64, from the definitions."""
    weights = {name: value.double() for name, value in source.weights.items()}
    for path, recipe in recipes.items():
        for change in recipe:
            tensors = {name: value.double() for name, value in change.group.tensors.items()}
            weight, bias = weights[f"{path}.weight"], weights.get(f"{path}.bias")
            if "lora_up" in tensors:
                delta = 0.5 * (tensors["lora_up"].flatten(1) @ tensors["lora_down"].flatten(1)).view(weight.shape)
            else:
                delta = tensors["diff"] if "diff" in tensors else tensors["w_norm"]
                bias += change.multiplier * (tensors["diff_b"] if "diff_b" in tensors else tensors["b_norm"])  # type: ignore[operator]
            weight += change.multiplier * delta
    return weights


STACK = {
    "linear": [patch("linear", 0, 0.6), patch("linear", 1, 1.0), patch("linear", 2, -0.5)],
    "conv": [patch("conv", 0, 1.0), patch("conv", 1, 0.6), patch("conv", 2, -0.5)],
    "point": [patch("point", 0, 1.0), patch("point", 1, -0.5)],
    "norm": [patch("norm", 0, 0.6)],
}


def equal(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Bit for bit, so that signed zeros count."""
    return all(
        value.float().numpy().tobytes() == weights[name].to(value.dtype).float().numpy().tobytes()
        for name, value in module.state_dict().items()
    )


def test_a_stack_is_exact_and_gone_when_removed() -> None:
    module, source = make()
    patches = PatchedWeights(module, source)
    patches.apply(STACK)
    for name, value in expected(source, STACK).items():
        error = (module.state_dict()[name].double() - value).norm() / value.norm()
        assert error < 1e-6, name
    patches.remove()
    assert equal(module, source.weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("file_dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype, file_dtype: torch.dtype) -> None:
    module, source = make(dtype, file_dtype)
    patches = PatchedWeights(module, source)
    patches.apply(STACK)
    for name, value in expected(source, STACK).items():
        got, nearest = module.state_dict()[name], value.to(dtype)
        # A sum that falls between two numbers may be off by its own float32 error before it is rounded.
        spacing = torch.maximum(value.abs(), torch.tensor(1e-2, dtype=torch.float64)) * torch.finfo(dtype).eps
        assert ((got.double() - value).abs() <= spacing * 0.51).all(), name
        assert (got == nearest).double().mean() > 0.99, name
    patches.remove()
    assert equal(module, source.weights)


def test_weights_keep_their_storage_and_layout() -> None:
    module, source = make()
    before = {name: (value.data_ptr(), value.stride()) for name, value in module.state_dict().items()}
    patches = PatchedWeights(module, source)
    patches.apply(STACK)
    patches.remove()
    assert {name: (value.data_ptr(), value.stride()) for name, value in module.state_dict().items()} == before
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_same_stack_again_is_no_work_and_a_change_touches_only_what_changed() -> None:
    module, source = make()
    patches = PatchedWeights(module, source)
    patches.apply(STACK)
    writes, reads = patches.num_writes, source.num_reads
    assert writes == 4
    patches.apply({path: list(recipe) for path, recipe in STACK.items()})
    assert (patches.num_writes, source.num_reads) == (writes, reads)
    patches.apply({**STACK, "conv": STACK["conv"][:2]})
    assert patches.num_writes == writes + 1
    patches.apply({path: recipe for path, recipe in STACK.items() if path != "norm"})
    assert patches.num_writes == writes + 3, "conv back, and norm gone"


def test_a_convolution_that_the_file_has_as_a_matrix_keeps_its_shape() -> None:
    module, source = make()
    source.weights = {**source.weights, "point.weight": source.weights["point.weight"].flatten(1)}
    patches = PatchedWeights(module, source)
    patches.apply(STACK)
    wanted = expected(make()[1], STACK)["point.weight"]
    assert torch.allclose(module.point.weight.double(), wanted, atol=1e-6)
    patches.remove()
    assert torch.equal(module.point.weight.flatten(1), source.weights["point.weight"])


def test_a_first_convolution_with_more_channels_is_changed_in_those_that_the_adapter_knows() -> None:
    module = nn.Module()
    module.conv_in = nn.Conv2d(9, 6, 3).requires_grad_(False)
    weight = module.conv_in.weight.clone()
    group = lora("conv", 4)
    patches = PatchedWeights(module, MemorySource({"conv_in.weight": weight, "conv_in.bias": module.conv_in.bias}))
    patches.apply({"conv_in": [patch_of(group, "a", 0.6)]})
    known = 0.6 * 0.5 * (group.tensors["lora_up"].flatten(1) @ group.tensors["lora_down"].flatten(1)).view(6, 4, 3, 3)
    assert torch.allclose(module.conv_in.weight[:, :4], weight[:, :4] + known, atol=1e-6)
    assert torch.equal(module.conv_in.weight[:, 4:], weight[:, 4:])


def test_a_module_that_is_its_files_memory_map_leaves_the_map_as_it_was(tmp_path: Path) -> None:
    weights = make()[1].weights
    save_file(dict(weights), tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        mapped = MemorySource({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    module = Tiny().requires_grad_(False)
    module.load_state_dict(mapped.weights, assign=True)
    patches = PatchedWeights(module, mapped)
    patches.apply(STACK)
    assert not equal(module, weights)
    assert all(torch.equal(mapped.weights[name], value) for name, value in weights.items())
    assert module.untouched.weight.data_ptr() == mapped.weights["untouched.weight"].data_ptr()
    patches.remove()
    assert equal(module, weights)


def test_weights_made_in_inference_mode_can_be_changed_outside_of_it() -> None:
    with torch.inference_mode():
        module, source = make()
    patches = PatchedWeights(module, source)
    patches.apply(STACK)
    patches.remove()
    assert equal(module, source.weights)


def test_an_error_in_the_middle_is_mended_by_the_next_stack() -> None:
    module, source = make()
    patches = PatchedWeights(module, source)
    patches.apply({"linear": STACK["linear"], "conv": STACK["conv"]})
    broken = AdapterGroup.of("point", {"lora_up": torch.zeros(4, 2), "lora_down": torch.zeros(3, 99)})
    with pytest.raises(ValueError, match="do not fit"):
        patches.apply({"point": [patch_of(broken, "broken")], "norm": STACK["norm"]})
    patches.apply({"norm": STACK["norm"]})
    for name, value in expected(source, {"norm": STACK["norm"]}).items():
        assert torch.allclose(module.state_dict()[name].double(), value, atol=1e-6), name
    patches.remove()
    assert equal(module, source.weights)


RECIPES = st.fixed_dictionaries(
    {},
    optional={
        path: st.lists(
            st.builds(patch, st.just(path), st.integers(0, len(groups) - 1), st.sampled_from(MULTIPLIERS)), max_size=3
        )
        for path, groups in GROUPS.items()
    },
)


@settings(max_examples=40)
@given(stacks=st.lists(RECIPES, min_size=25, max_size=25), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_thousand_switches_leave_nothing_behind(stacks: list[dict[str, list[Patch]]], dtype: torch.dtype) -> None:
    module, source = make(dtype)
    patches = PatchedWeights(module, source)
    for stack in stacks:
        patches.apply(stack)
    alone, _ = make(dtype)
    PatchedWeights(alone, source).apply(stacks[-1])
    assert equal(module, alone.state_dict()), "the last stack, as if there had been no other"
    patches.remove()
    assert equal(module, source.weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_prepared_stacks_are_switched_without_a_merge(dtype: torch.dtype) -> None:
    module, source = make(dtype)
    patches = PatchedWeights(module, source)
    other = {**STACK, "conv": [patch("conv", 2, 1.0)]}
    other.pop("norm")
    patches.apply(STACK)
    merged = {name: value.clone() for name, value in module.state_dict().items()}
    assert patches.prepare([STACK, other], max_bytes=1_000_000)
    for _ in range(3):
        reads = source.num_reads
        patches.apply(other)
        patches.apply(STACK)
        assert source.num_reads == reads
        assert equal(module, merged)
    patches.forget_prepared()
    patches.remove()
    assert equal(module, source.weights)


def test_what_has_no_room_is_not_prepared_but_switched_all_the_same() -> None:
    module, source = make()
    patches = PatchedWeights(module, source)
    assert not patches.prepare([STACK, {}], max_bytes=1000)
    patches.apply(STACK)
    patches.apply({})
    assert equal(module, source.weights)

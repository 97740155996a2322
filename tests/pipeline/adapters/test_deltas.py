"""The change of a weight by every type of adapter, held against float64 formulas of the papers."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from tests.adapter_files import ONLY_CONVOLUTIONS, VARIANTS, WITHOUT_ALPHA, Shape, fits, tensors_for
from tests.pipeline.adapters.oracles import TRAINED, trained_weight
from webui.pipeline.adapters import deltas
from webui.pipeline.adapters.adapter_types import ADAPTER_TYPES, ALWAYS_OPTIONAL, NUM_AXES, AdapterType, adapter_type
from webui.pipeline.adapters.reading import split_key
from webui.pipeline.adapters.targets import AdapterGroup, BadFactors

SHAPES: dict[str, Shape] = {"linear": (16, 12), "1x1": (16, 12, 1, 1), "3x3": (16, 12, 3, 3), "norm": (16,)}
STRENGTHS = (1.0, 0.6, -0.5)


def group_of(tensors: dict[str, Tensor], prefix: str = "lora_unet_x") -> AdapterGroup:
    """A group as the reader would make it from keys with these ends."""
    split = {end: split_key(f"{prefix}.{end}") for end in tensors}
    return AdapterGroup.of(prefix, {name[1]: tensors[end] for end, name in split.items() if name})


def error_of_change(found: Tensor, expected: np.ndarray, weight: Tensor) -> float:
    """Relative to the size of the change, which is stricter than to the size of the weight."""
    before = weight.double().numpy()
    return float(np.linalg.norm(found.double().numpy() - expected) / np.linalg.norm(expected - before))


CASES = [(variant, layer) for variant in VARIANTS for layer in SHAPES if fits(variant, SHAPES[layer])]


@pytest.mark.parametrize(("variant", "layer"), CASES)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_change_is_what_the_papers_say(variant: str, layer: str, strength: float) -> None:
    shape = SHAPES[layer]
    tensors = tensors_for(variant, shape, rank=4, alpha=3.0, seed=1)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 0.5
    before = weight.double().numpy()
    expected = before + strength * (trained_weight(variant, tensors, weight) - before)
    group = group_of(tensors)
    assert deltas.problem_with_weight(group, shape) == ""
    assert error_of_change(deltas.patched(group, weight, strength), expected, weight) <= 1e-5
    exact = deltas.patched(group_of(in_double(tensors)), weight.double(), strength)
    assert error_of_change(exact, expected, weight) <= 1e-12


def in_double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def test_every_type_and_every_key_of_it_has_an_oracle() -> None:
    tried: dict[str, set[str]] = {}
    for variant, layer in CASES:
        shapes = group_of(tensors_for(variant, SHAPES[layer])).shapes
        row = adapter_type(shapes)
        assert row is not None
        tried.setdefault(row.id, set()).update(shapes)
    assert TRAINED.keys() == VARIANTS.keys()
    assert tried.keys() == {row.id for row in ADAPTER_TYPES} - {"bias"}
    for row in ADAPTER_TYPES:
        known_elsewhere = {"scale", "lora_magnitude_vector"} | ALWAYS_OPTIONAL
        missing = frozenset().union(*row.keys, row.optional) - tried.get(row.id, set()) - known_elsewhere
        assert not missing, f"nothing tries {missing} of {row.id}"


@given(
    variant=st.sampled_from(
        ["lora", "loha", "lokr-whole", "lokr-second-factored", "lokr-factored", "glora", "dora-out"]
    ),
    shape=st.one_of(
        st.tuples(st.integers(1, 24), st.integers(1, 24)),
        st.tuples(st.integers(1, 12), st.integers(5, 12), st.sampled_from([1, 3]), st.sampled_from([1, 3])),
    ),
    rank=st.integers(1, 9),
    alpha=st.floats(0.1, 64),
    strength=st.floats(-2, 2).filter(lambda m: abs(m) > 0.01),
    seed=st.integers(0, 1000),
)
def test_any_size_rank_and_alpha_follows_the_papers(
    variant: str, shape: Shape, rank: int, alpha: float, strength: float, seed: int
) -> None:
    tensors = in_double(tensors_for(variant, shape, rank=rank, alpha=alpha, seed=seed))
    if variant == "glora":
        tensors["alpha"] = torch.tensor(alpha, dtype=torch.float64)
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    before = weight.numpy()
    expected = before + strength * (trained_weight(variant, tensors, weight) - before)
    found = deltas.patched(group_of(tensors), weight, strength).numpy()
    scale = np.abs(expected - before).max() + np.abs(before).max()
    assert np.abs(found - expected).max() <= 1e-9 * scale


@given(
    size=st.sampled_from([2, 4, 6, 8]),
    stages=st.integers(1, 4),
    odd=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_butterflies_of_any_depth_follow_the_paper_and_only_turn(size: int, stages: int, odd: int, seed: int) -> None:
    blocks = (
        torch.randn(stages, odd * 2 ** (stages - 1), size, size, generator=torch.Generator().manual_seed(seed)) * 0.3
    )
    tensors = in_double({"oft_blocks": blocks, "alpha": torch.tensor(0.0)})
    weight = torch.randn(blocks.shape[1] * size, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = deltas.patched(group_of(tensors), weight, 1.0)
    assert np.abs(found.numpy() - trained_weight("boft", tensors, weight)).max() <= 1e-10
    assert torch.allclose(found.T @ found, weight.T @ weight)


def test_strength_zero_is_no_effect_for_any_type() -> None:
    for variant, layer in CASES:
        weight = torch.randn(SHAPES[layer])
        assert torch.equal(deltas.patched(group_of(tensors_for(variant, SHAPES[layer])), weight, 0.0), weight), variant


def test_the_given_weight_stays_as_it_is() -> None:
    for variant, layer in CASES:
        weight = torch.randn(SHAPES[layer])
        copy = weight.clone()
        deltas.patched(group_of(tensors_for(variant, SHAPES[layer])), weight, 0.7)
        assert torch.equal(weight, copy), variant


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("weight_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_half_precision_file_is_computed_in_float32(dtype: torch.dtype, weight_dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in tensors_for("lora", (16, 12)).items()}
    exact = {name: tensor.double() for name, tensor in stored.items()}
    weight = torch.randn(16, 12).to(weight_dtype)
    found = deltas.patched(group_of(stored), weight, 0.6)
    expected = weight.double().numpy() + 0.6 * (trained_weight("lora", exact, weight) - weight.double().numpy())
    assert found.dtype == torch.float32
    assert error_of_change(found, expected, weight) <= 1e-5


# alpha ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "strength"),
    [(None, 1.0), (0.0, 1.0), (2.0, 0.5), (4.0, 1.0), (92.3, 92.3 / 4), (-1.0, -0.25)],
)
def test_alpha_divided_by_rank_scales_and_none_or_zero_means_rank(alpha: float | None, strength: float) -> None:
    tensors = tensors_for("lora", (16, 12), rank=4, alpha=None)
    plain = tensors["lora_up.weight"] @ tensors["lora_down.weight"]
    if alpha is not None:
        tensors["alpha"] = torch.tensor(alpha)
    found = deltas.patched(group_of(tensors), torch.zeros(16, 12), 1.0)
    assert torch.allclose(found, plain * strength, rtol=1e-5)


@pytest.mark.parametrize("alpha", [torch.tensor(2), torch.tensor([2.0]), torch.tensor(2.0, dtype=torch.bfloat16)])
def test_alpha_may_be_a_whole_number_or_a_vector_of_one(alpha: Tensor) -> None:
    tensors = tensors_for("lora", (16, 12), rank=4, alpha=None)
    found = deltas.patched(group_of({**tensors, "alpha": alpha}), torch.zeros(16, 12), 1.0)
    assert torch.allclose(found, 0.5 * tensors["lora_up.weight"] @ tensors["lora_down.weight"])


def test_a_scale_of_its_own_replaces_alpha_and_rank() -> None:
    tensors = tensors_for("lora", (16, 12), rank=4, alpha=3.0)
    found = deltas.patched(group_of({**tensors, "scale": torch.tensor(0.3)}), torch.zeros(16, 12), 1.0)
    assert torch.allclose(found, 0.3 * tensors["lora_up.weight"] @ tensors["lora_down.weight"])


def test_alpha_means_nothing_to_a_lokr_of_two_whole_factors() -> None:
    tensors = tensors_for("lokr-whole", (16, 12), alpha=None)
    one, other = (
        deltas.patched(group_of({**tensors, "alpha": torch.tensor(alpha)}), torch.zeros(16, 12), 1.0)
        for alpha in (1e10, 0.1)
    )
    assert torch.equal(one, other)


# Low rank ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "layer"), CASES)
def test_the_fast_path_for_low_rank_is_the_same_change(variant: str, layer: str) -> None:
    shape = SHAPES[layer]
    group = group_of(tensors_for(variant, shape, rank=4, alpha=3.0))
    found = deltas.low_rank(group, shape)
    assert (found is not None) == (variant in {"lora", "lora-tucker"}) == deltas.is_low_rank(group)
    if found is not None:
        assert found.up.shape == (16, 4) and found.down.shape == (4, math.prod(shape[1:]))
        change = found.scale * (found.up @ found.down)
        assert torch.allclose(change.reshape(shape), deltas.patched(group, torch.zeros(shape), 1.0), atol=1e-6)


# Shapes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - ONLY_CONVOLUTIONS - {"norm"}))
@pytest.mark.parametrize(("made_for", "used_on"), [("linear", "1x1"), ("1x1", "linear")])
def test_a_linear_layer_and_a_1x1_convolution_take_each_others_adapters(
    variant: str, made_for: str, used_on: str
) -> None:
    group = group_of(tensors_for(variant, SHAPES[made_for], rank=4, alpha=3.0))
    weight = torch.randn(SHAPES[made_for])
    there = deltas.patched(group, weight.reshape(SHAPES[used_on]), 0.6)
    assert there.shape == SHAPES[used_on]
    assert torch.allclose(there.flatten(), deltas.patched(group, weight, 0.6).flatten(), atol=1e-6)


@pytest.mark.parametrize("channels", [8, 9])
@pytest.mark.parametrize(
    "variant", ["lora", "lora-tucker", "loha", "lokr-whole", "dora-out", "dora-in", "full", "glora"]
)
def test_an_adapter_of_four_input_channels_leaves_the_others_of_an_inpainting_model_alone(
    variant: str, channels: int
) -> None:
    group = group_of(tensors_for(variant, (16, 4, 3, 3), rank=4, alpha=3.0))
    weight = torch.randn(16, channels, 3, 3)
    assert deltas.problem_with_weight(group, (16, channels, 3, 3)) == ""
    found = deltas.patched(group, weight, 0.6)
    assert torch.equal(found[:, 4:], weight[:, 4:])
    assert torch.allclose(found[:, :4], deltas.patched(group, weight[:, :4].clone(), 0.6), atol=1e-6)
    factors = deltas.low_rank(group, (16, channels, 3, 3))
    if factors is not None:
        change = 0.6 * factors.scale * (factors.up @ factors.down).reshape(weight.shape)
        assert torch.allclose(weight + change, found, atol=1e-6)


@pytest.mark.parametrize(("variant", "layer"), [case for case in CASES if case[0] != "oft-input-shared"])
def test_a_weight_of_another_size_is_refused_in_words(variant: str, layer: str) -> None:
    other = tuple(2 * n if axis < 2 else n for axis, n in enumerate(SHAPES[layer]))
    group = group_of(tensors_for(variant, SHAPES[layer]))
    assert "this one is" in deltas.problem_with_weight(group, other)
    with pytest.raises(BadFactors, match=r"is for a weight of"):
        deltas.patched(group, torch.randn(other), 1.0)


SIZES = st.sampled_from([0, 1, 2, 3, 4, 9])
ANY_SHAPE = st.lists(SIZES, max_size=5).map(tuple)
KEY_SETS = [(row, keys) for row in ADAPTER_TYPES for keys in row.keys]


@given(data=st.data(), chosen=st.sampled_from(KEY_SETS))
def test_tensors_of_any_shape_are_applied_or_refused_in_words(
    data: st.DataObject, chosen: tuple[AdapterType, frozenset[str]]
) -> None:
    row, keys = chosen
    more = data.draw(st.sets(st.sampled_from(sorted(row.optional | ALWAYS_OPTIONAL)), max_size=2))
    wild = data.draw(st.sampled_from(["", "", "", *sorted(keys | more)]))
    shapes = {name: data.draw(ANY_SHAPE if name == wild else near(name), label=name) for name in sorted(keys | more)}
    weight = torch.ones(data.draw(st.sampled_from([(4, 4), (4, 4, 1, 1), (4, 4, 3, 3), (4, 9, 3, 3), (4,)])))
    group = AdapterGroup.of("x", {name: torch.full(shape, 0.1) for name, shape in shapes.items()})
    problem = deltas.problem_with_weight(group, tuple(weight.shape))
    if problem:
        with pytest.raises(BadFactors):
            deltas.patched(group, weight, 0.5)
    else:
        assert deltas.problem_of_group(group) == ""
        assert deltas.patched(group, weight, 0.5).shape == weight.shape
        deltas.bias_patched(group, torch.ones(4), 0.5)
        deltas.low_rank(group, tuple(weight.shape))


def near(name: str) -> st.SearchStrategy[Shape]:
    """Shapes with a right number of axes and few lengths, so that many fit each other."""
    return st.sampled_from(NUM_AXES[name]).flatmap(
        lambda count: st.tuples(*(st.sampled_from([4, 4, 2] if axis < 2 else [1, 3]) for axis in range(count)))
    )


# DoRA ----------------------------------------------------------------------------------------------------------------


def test_the_axis_of_magnitudes_is_told_by_their_shape_and_pefts_are_per_output() -> None:
    weight = torch.randn(12, 12, 1, 1)
    plain = tensors_for("lora", (12, 12, 1, 1))
    sizes = 1 + torch.rand(12)
    columns = deltas.patched(group_of({**plain, "dora_scale": sizes.reshape(1, 12, 1, 1)}), weight, 1.0)
    rows = deltas.patched(group_of({**plain, "dora_scale": sizes.reshape(12, 1, 1, 1)}), weight, 1.0)
    peft = deltas.patched(group_of({**plain, "lora_magnitude_vector": sizes.reshape(1, 12, 1, 1)}), weight, 1.0)
    assert torch.allclose(columns.norm(dim=0).flatten(), sizes, atol=1e-5)
    assert torch.allclose(rows.norm(dim=1).flatten(), sizes, atol=1e-5)
    assert torch.equal(peft, rows)


def test_a_row_of_zeros_stays_zero_under_dora() -> None:
    tensors = tensors_for("dora-out", (16, 12))
    tensors["lora_up.weight"][3] = 0
    weight = torch.randn(16, 12)
    weight[3] = 0
    assert deltas.patched(group_of(tensors), weight, 1.0)[3].tolist() == [0.0] * 12


def test_magnitudes_of_a_wrong_length_are_refused_in_words() -> None:
    tensors = {**tensors_for("lora", (16, 12)), "dora_scale": torch.ones(7, 1)}
    problem = deltas.problem_with_weight(group_of(tensors), (16, 12))
    assert problem == "dora_scale [7, 1] is neither per output nor per input of a weight [16, 12]"


# OFT -----------------------------------------------------------------------------------------------------------------


def test_an_alpha_of_zero_is_no_limit_to_lycoris_and_no_turning_to_kohya() -> None:
    tensors = tensors_for("oft", (16, 12))
    weight = torch.randn(16, 12)
    lycoris = deltas.patched(group_of(tensors, "lora_unet_x"), weight, 1.0)
    kohya = deltas.patched(group_of(tensors, "oft_unet_x"), weight, 1.0)
    assert not torch.allclose(lycoris, weight, atol=0.01)
    assert torch.allclose(kohya, weight, atol=1e-6)


def test_a_rotation_keeps_the_angles_between_columns() -> None:
    weight = torch.randn(16, 12)
    turned = deltas.patched(group_of(tensors_for("oft", (16, 12))), weight, 1.0)
    assert torch.allclose(turned.T @ turned, weight.T @ weight, atol=1e-4)


def test_turned_inputs_of_a_kernel_are_refused_in_words() -> None:
    group = group_of(tensors_for("oft-input", (16, 12)))
    problem = deltas.problem_with_weight(group, (16, 12, 3, 3))
    assert problem == "turned inputs of a convolution [16, 12, 3, 3] are no change of its weight"


# Bias ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "name"), [("full", "diff_b"), ("norm", "b_norm")])
def test_a_change_of_bias_is_added_at_its_strength(variant: str, name: str) -> None:
    tensors = tensors_for(variant, (16,) if variant == "norm" else (16, 12))
    group = group_of(tensors)
    bias = torch.randn(16)
    assert deltas.changes_bias(group)
    assert torch.allclose(deltas.bias_patched(group, bias, -0.5), bias - 0.5 * tensors[name])


def test_a_lora_may_bring_a_bias_and_a_bias_may_come_alone() -> None:
    bias = {"diff_b": torch.randn(16)}
    both = group_of({**tensors_for("lora", (16, 12)), **bias})
    alone = group_of(bias)
    plain = group_of(tensors_for("lora", (16, 12)))
    assert deltas.is_low_rank(both) and deltas.changes_bias(both) and deltas.changes_weight(both)
    assert deltas.changes_bias(alone) and not deltas.changes_weight(alone)
    assert not deltas.changes_bias(plain)


def test_alpha_is_not_read_by_types_without_one() -> None:
    for variant in WITHOUT_ALPHA:
        shape = (16,) if variant == "norm" else (16, 12)
        tensors = tensors_for(variant, shape)
        weight = torch.randn(shape)
        plain = deltas.patched(group_of(tensors), weight, 1.0)
        assert torch.equal(deltas.patched(group_of({**tensors, "alpha": torch.tensor(0.1)}), weight, 1.0), plain)

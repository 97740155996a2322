"""Each type's two functions: which weight a group of tensors fits, and its change of that weight at strength 1.

`x_extent(group, weight_shape)` is (out, inputs times kernel) of the weight that fits, repeating what the group leaves
open; `x_delta(group, weight)` has the weight's order, flattened or not.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from webui.pipeline.adapters import formulas
from webui.pipeline.adapters.targets import AdapterGroup, BadFactors, Shape

KOHYA_OFT_PREFIX = "oft_"
"""kohya's own trainer of OFT names modules like this; LyCORIS, with the same keys after it, does not."""


def numbers(group: AdapterGroup, name: str, like: Tensor) -> Tensor:
    return group.tensors[name].to(device=like.device, dtype=like.dtype)


def scale_of(group: AdapterGroup, rank: int) -> float:
    """alpha / rank; 1 without an alpha and, as kohya has it, with an alpha of 0. A `scale` overrides both."""
    if "scale" in group.shapes:
        return float(group.tensors["scale"])
    alpha = float(group.tensors["alpha"]) if "alpha" in group.shapes else 0.0
    return alpha / rank if alpha else 1.0


# LoRA, LoCon, Tucker --------------------------------------------------------------------------------------------------


def lora_factors(group: AdapterGroup, like: Tensor) -> tuple[Tensor, Tensor]:
    """`up` (out, rank) and `down` (rank, inputs times kernel), with a Tucker core drawn into `down`."""
    down = numbers(group, "lora_down", like)
    if "lora_mid" in group.shapes:
        down = formulas.tucker_down(numbers(group, "lora_mid", like), down.flatten(1))
    return numbers(group, "lora_up", like).flatten(1), down.flatten(1)


def lora_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    return group.shapes["lora_up"][0], math.prod(group.shapes["lora_down"][1:]) * _kernel(group.shapes.get("lora_mid"))


def lora_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    up, down = lora_factors(group, weight)
    return scale_of(group, down.shape[0]) * (up @ down)


def _kernel(core: Shape | None) -> int:
    return math.prod(core[2:]) if core else 1


# LoHa -----------------------------------------------------------------------------------------------------------------


def loha_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    return group.shapes["hada_w1_a"][0], math.prod(group.shapes["hada_w1_b"][1:])


def loha_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    a1, b1, a2, b2 = (numbers(group, f"hada_{name}", weight) for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    return scale_of(group, b1.shape[0]) * ((a1 @ b1.flatten(1)) * (a2 @ b2.flatten(1)))


def loha_tucker_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    shapes = group.shapes
    return shapes["hada_w1_a"][1], shapes["hada_w1_b"][1] * _kernel(shapes["hada_t1"])


def loha_tucker_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    halves = [
        formulas.tucker(*(numbers(group, f"hada_{name}", weight) for name in (f"t{i}", f"w{i}_a", f"w{i}_b")))
        for i in (1, 2)
    ]
    return scale_of(group, group.shapes["hada_w1_b"][0]) * halves[0] * halves[1]


# LoKr -----------------------------------------------------------------------------------------------------------------


def lokr_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    shapes = group.shapes
    rows, columns = shapes["lokr_w1"] if "lokr_w1" in shapes else (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
    if "lokr_t2" in shapes:
        second = shapes["lokr_w2_a"][1], shapes["lokr_w2_b"][1] * _kernel(shapes["lokr_t2"])
    elif "lokr_w2" in shapes:
        second = shapes["lokr_w2"][0], math.prod(shapes["lokr_w2"][1:])
    else:
        second = shapes["lokr_w2_a"][0], math.prod(shapes["lokr_w2_b"][1:])
    return rows * second[0], columns * second[1]


def lokr_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    def get(name: str) -> Tensor:
        return numbers(group, f"lokr_{name}", weight)

    shapes = group.shapes
    first = get("w1") if "lokr_w1" in shapes else get("w1_a") @ get("w1_b")
    if "lokr_t2" in shapes:
        second = formulas.tucker(get("t2"), get("w2_a"), get("w2_b"))
    else:
        second = get("w2") if "lokr_w2" in shapes else get("w2_a") @ get("w2_b").flatten(1)
    return _lokr_scale(group) * formulas.kronecker(first, second.flatten(1))


def _lokr_scale(group: AdapterGroup) -> float:
    """alpha / rank of the factored half. Two whole halves have no rank, and their alpha means nothing."""
    for name in ("lokr_w1_b", "lokr_w2_b"):
        if name in group.shapes:
            return scale_of(group, group.shapes[name][0])
    return float(group.tensors["scale"]) if "scale" in group.shapes else 1.0


# IA3 ------------------------------------------------------------------------------------------------------------------


def _ia3_is_on_input(group: AdapterGroup) -> bool:
    return bool(group.tensors["on_input"].item())


def ia3_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    count = math.prod(group.shapes["weight"])
    return (weight[0], count * math.prod(weight[2:])) if _ia3_is_on_input(group) else (count, math.prod(weight[1:]))


def ia3_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    axis = 1 if _ia3_is_on_input(group) else 0
    factors = numbers(group, "weight", weight).flatten()
    return weight * factors.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])


# OFT, BOFT ------------------------------------------------------------------------------------------------------------


def oft_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    *_, count, size, _ = group.shapes["oft_blocks"]
    return count * size, math.prod(weight[1:])


def boft_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    stages, count, size, _ = group.shapes["oft_blocks"]
    if size % 2 or count % 2 ** (stages - 1):
        raise BadFactors(f"oft_blocks {list(group.shapes['oft_blocks'])} cannot be a butterfly")
    return oft_extent(group, weight)


def _max_norm(group: AdapterGroup, out_features: int) -> float | None:
    """The limit that training kept: alpha times rows. An alpha of 0 is "none" to LyCORIS and "no turning" to kohya."""
    alpha = float(group.tensors["alpha"]) if "alpha" in group.shapes else 0.0
    if alpha or ("alpha" in group.shapes and group.prefix.startswith(KOHYA_OFT_PREFIX)):
        return alpha * out_features
    return None


def oft_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    rotations = formulas.cayley(numbers(group, "oft_blocks", weight), _max_norm(group, weight.shape[0]))
    return _rescaled(group, formulas.rotated(rotations, weight)) - weight


def boft_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    rotations = formulas.cayley(numbers(group, "oft_blocks", weight), _max_norm(group, weight.shape[0]))
    return _rescaled(group, formulas.butterfly(rotations, weight)) - weight


def oft_input_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    count, entries = group.shapes["oft_R"]
    size = math.isqrt(2 * entries) + 1
    if size * (size - 1) != 2 * entries:
        raise BadFactors(f"oft_R {[count, entries]} has no skew matrices: {entries} is no triangular number")
    if math.prod(weight[2:]) > 1:
        # PEFT turns overlapping patches and sums them up: no change of weight does that.
        raise BadFactors(f"turned inputs of a convolution {list(weight)} are no change of its weight")
    is_shared = count == 1 and weight[1] % size == 0
    return weight[0], weight[1] if is_shared else count * size


def oft_input_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    rotations = formulas.neumann(numbers(group, "oft_R", weight))
    return formulas.rotated_inputs(rotations, weight) - weight


def _rescaled(group: AdapterGroup, weight: Tensor) -> Tensor:
    if "rescale" not in group.shapes:
        return weight
    return weight * numbers(group, "rescale", weight).reshape(-1, *(1 for _ in weight.shape[1:]))


# GLoRA ----------------------------------------------------------------------------------------------------------------


def _glora_is_old(shapes: Mapping[str, Shape]) -> bool:
    """LyCORIS before 3 had the roles of 1 and 2 the other way round. Raises BadFactors if it is neither."""
    (a1, a2, b1, b2) = (shapes[name] for name in ("a1", "a2", "b1", "b2"))
    if b1[1] == b2[0] == a1[1] == a2[0] and math.prod(b1[2:]) == 1:
        return False
    if b2[1] == b1[0] == a2[1] == a1[0] and math.prod(b2[2:]) == 1:
        return True
    raise BadFactors(f"a1 {list(a1)}, a2 {list(a2)}, b1 {list(b1)} and b2 {list(b2)} do not fit each other")


def _glora_parts(group: AdapterGroup) -> tuple[str, str, str, str]:
    """Names of the factors in the order: up and down of the input side, up and down of the sum."""
    return ("a2", "a1", "b2", "b1") if _glora_is_old(group.shapes) else ("a1", "a2", "b1", "b2")


def glora_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    a_up, _, b_up, b_down = (group.shapes[name] for name in _glora_parts(group))
    inputs = math.prod(b_down[1:])
    if a_up[0] * math.prod(weight[2:]) != inputs:
        raise BadFactors(f"it is for {a_up[0]} and {inputs} inputs of a weight, this one is {list(weight)}")
    return b_up[0], inputs


def glora_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    a_up, a_down, b_up, b_down = (numbers(group, name, weight).flatten(1) for name in _glora_parts(group))
    turned = torch.einsum("oi...,ij->oj...", weight, a_up @ a_down)
    return scale_of(group, a_down.shape[0]) * ((b_up @ b_down).reshape(weight.shape) + turned)


# Whole differences ----------------------------------------------------------------------------------------------------


def diff_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    return group.shapes["diff"][0], math.prod(group.shapes["diff"][1:])


def diff_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    return numbers(group, "diff", weight)


def norm_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    return group.shapes["w_norm"][0], math.prod(group.shapes["w_norm"][1:])


def norm_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    return numbers(group, "w_norm", weight)


def no_extent(group: AdapterGroup, weight: Shape) -> tuple[int, int]:
    return weight[0], math.prod(weight[1:])


def no_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight)

"""What an adapter does to a weight: the one place that merging, extracting and exporting ask.

One rule for strength holds for all types: W' = W + m * delta(W), where delta(W) is what the adapter, as it was trained,
adds to the weight W that it is applied to. So 0 is no effect, 1 is the training, and all else lies on the straight line
through both. Nothing here changes a tensor that it is given. The reasons: docs/decisions/0009.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.pipeline.adapters import formulas
from webui.pipeline.adapters.adapter_types import (
    ADAPTER_TYPES,
    ALWAYS_OPTIONAL,
    BIAS_KEYS,
    LOW_RANK_TYPES,
    MAGNITUDES,
    NUM_AXES,
    SINGLE_NUMBERS,
    WITHOUT_KERNEL,
    adapter_type,
)
from webui.pipeline.adapters.factors import lora_factors, numbers, scale_of
from webui.pipeline.adapters.targets import AdapterGroup, BadFactors, Shape

LATENT_CHANNELS = 4
"""Inputs of a plain U-Net's first convolution. Inpainting and editing networks have more behind these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """delta = `scale` * `up` @ `down`, flattened: `up` (out, rank), `down` (rank, inputs times kernel)."""

    up: Tensor
    down: Tensor
    scale: float


def problem_of_group(group: AdapterGroup) -> str:
    """What is wrong with a group whatever it is applied to, in words; "" if it is whole. Reads no tensor."""
    row = adapter_type(group.shapes)
    if row is None:
        return _why_no_type(set(group.shapes))
    for name, shape in group.shapes.items():
        if len(shape) not in NUM_AXES[name] or 0 in shape or (name in SINGLE_NUMBERS and math.prod(shape) != 1):
            return f"{name} has the shape {list(shape)}"
        if math.prod(shape[2:]) > 1 and (
            name in WITHOUT_KERNEL or (name == "lora_down" and "lora_mid" in group.shapes)
        ):
            return f"{name} {list(shape)} has a kernel, which belongs to another factor"
    for (left, left_axis), (right, right_axis) in row.equal:
        if left not in group.shapes or right not in group.shapes:
            continue
        a, b = group.shapes[left], group.shapes[right]
        if a[left_axis] != b[right_axis]:
            return f"{left} {list(a)} and {right} {list(b)} do not fit each other"
    return ""


def problem_with_weight(group: AdapterGroup, weight_shape: Shape) -> str:
    """Why `group` cannot be applied to a weight of this shape, in words; "" if it can."""
    try:
        _trained_shape(group, weight_shape)
    except BadFactors as error:
        return str(error)
    return ""


def patched(group: AdapterGroup, weight: Tensor, multiplier: float) -> Tensor:
    """`weight` with the adapter at `multiplier`, a new tensor of its shape in float32 (float64 if `weight` is).

    Raises BadFactors if `problem_with_weight` has words, UnsupportedModel if a tensor cannot be read or is not finite.
    """
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    shape = _trained_shape(group, tuple(weight.shape))
    trained = exact[:, : shape[1]] if weight.ndim > 1 else exact
    delta = _full_delta(group, trained)
    if trained.shape == exact.shape:
        return torch.add(exact, delta, alpha=multiplier)
    result = exact.clone()
    result[:, : trained.shape[1]].add_(delta, alpha=multiplier)
    return result


def bias_patched(group: AdapterGroup, bias: Tensor, multiplier: float) -> Tensor:
    """`bias` (out,) with the adapter's change at `multiplier`, in float32 or better. See `changes_bias`."""
    exact = bias.to(torch.promote_types(bias.dtype, torch.float32))
    for name in BIAS_KEYS:
        if name in group.shapes:
            exact = torch.add(exact, numbers(group, name, exact).reshape(exact.shape), alpha=multiplier)
    return exact


def changes_bias(group: AdapterGroup) -> bool:
    """Whether there is anything for `bias_patched` to do."""
    return any(name in group.shapes for name in BIAS_KEYS)


def changes_weight(group: AdapterGroup) -> bool:
    """Whether there is anything for `patched` to do: false for a group with a change of bias alone."""
    return any(name not in ALWAYS_OPTIONAL for name in group.shapes)


def low_rank(
    group: AdapterGroup, weight_shape: Shape, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> LowRank | None:
    """The two factors of a plain LoRA, LoCon or Tucker LoCon, for merging several at once; None for all other types.

    Raises as `patched` does. `down` has as many columns as a weight of `weight_shape`, flattened.
    """
    if not is_low_rank(group):
        return None
    trained = _trained_shape(group, weight_shape)
    like = torch.empty((), dtype=dtype, device=device)
    up, down = lora_factors(group, like)
    missing = math.prod(weight_shape[1:]) - math.prod(trained[1:])
    # The channels that the adapter does not know come last, so zeros behind it are the right place in the flat order.
    return LowRank(
        up=up,
        down=torch.nn.functional.pad(down, (0, missing)) if missing else down,
        scale=scale_of(group, down.shape[0]),
    )


def is_low_rank(group: AdapterGroup) -> bool:
    """Whether `low_rank` has an answer."""
    row = adapter_type(group.shapes)
    return row is not None and row.id in LOW_RANK_TYPES and not magnitudes_of(group)


def magnitudes_of(group: AdapterGroup) -> tuple[str, ...]:
    """The name of a DoRA's magnitudes, if it is one."""
    return tuple(name for name in MAGNITUDES if name in group.shapes)


def _full_delta(group: AdapterGroup, weight: Tensor) -> Tensor:
    row = adapter_type(group.shapes)
    if row is None:
        raise BadFactors(problem_of_group(group))
    delta = row.delta(group, weight).reshape(weight.shape)
    for name in magnitudes_of(group):
        per_output = _magnitude_is_per_output(name, group.shapes[name], tuple(weight.shape))
        delta = formulas.with_magnitude(weight, delta, numbers(group, name, weight), per_output=per_output)
    return delta


def _magnitude_is_per_output(name: str, shape: Shape, weight_shape: Shape) -> bool:
    """PEFT's magnitudes are per output. A `dora_scale` is per output as (out, 1, ...) and per input as (1, in, ...).

    A square convolution's (1, channels, 1, 1) reads as per input. Raises BadFactors if it is neither.
    """
    count = math.prod(shape)
    inputs = weight_shape[1] if len(weight_shape) > 1 else 1
    if name == "dora_scale" and len(shape) > 1 and shape[0] == 1 and count == inputs:
        return False
    if count == weight_shape[0]:
        return True
    if name == "dora_scale" and count == inputs:
        return False
    raise BadFactors(f"{name} {list(shape)} is neither per output nor per input of a weight {list(weight_shape)}")


def _trained_shape(group: AdapterGroup, shape: Shape) -> Shape:
    """The shape of the weight that `group` was made for: `shape`, or fewer input channels of a first convolution.

    Raises BadFactors if it is neither.
    """
    problem = problem_of_group(group)
    row = adapter_type(group.shapes)
    if row is None or problem:
        raise BadFactors(problem)
    found = row.extent(group, shape)
    for candidate in (shape, (shape[0], LATENT_CHANNELS, *shape[2:])):
        if found == (shape[0], math.prod(candidate[1:])) and (candidate == shape or _has_extra_channels(shape)):
            _check_vectors(group, candidate)
            return candidate
    raise BadFactors(f"it is for a weight of {found[0]} x {found[1]}, this one is {list(shape)}")


def _check_vectors(group: AdapterGroup, shape: Shape) -> None:
    """Raises BadFactors for vectors that are not as long as a weight of `shape` has outputs (or inputs)."""
    for name in magnitudes_of(group):
        _magnitude_is_per_output(name, group.shapes[name], shape)
    for name in ("rescale", *BIAS_KEYS):
        if name in group.shapes and math.prod(group.shapes[name]) != shape[0]:
            raise BadFactors(f"{name} {list(group.shapes[name])} is not one value per output of a weight {list(shape)}")


def _has_extra_channels(shape: Shape) -> bool:
    return len(shape) == 4 and LATENT_CHANNELS < shape[1] <= 3 * LATENT_CHANNELS


def _why_no_type(names: set[str]) -> str:
    known = frozenset().union(*(keys | row.optional for row in ADAPTER_TYPES for keys in row.keys)) | ALWAYS_OPTIONAL
    if unknown := sorted(names - known):
        return f"nothing known here has the key {', '.join(unknown)}"
    core = names - ALWAYS_OPTIONAL
    for row in ADAPTER_TYPES:
        for keys in row.keys:
            if core and core - row.optional < keys and core & keys:
                return f"of a {row.label}, {', '.join(sorted(keys - names))} is missing"
    return f"{', '.join(sorted(core or names))} alone make no adapter"

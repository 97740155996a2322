"""Merges checkpoints: a weighted sum, or the difference of two added to a third, evenly or block by block."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.families import AdapterBase
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.layouts import ComponentName, original_weights
from webui.pipeline.tools.checkpoints import CheckpointParts, Derive, Part

MergeMethod = Literal["weighted_sum", "add_difference"]
BASE = "BASE"
"""The block of everything outside the U-Net."""

_BLOCK = re.compile(r"^model\.diffusion_model\.(?P<side>input_blocks|middle_block|output_blocks)\.(?P<number>\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRecipe:
    """weighted_sum: A * (1 - m) + B * m. add_difference: A + (B - C) * m.

    `blocks` overrides the multiplier m for single blocks: IN00, IN01, ..., M00, OUT00, ... of the U-Net in the original
    layout's order, BASE for the text encoders and the autoencoder. The time embedding counts to the first block and the
    output layers to the last, as in the field's block-weighted merges.
    """

    method: MergeMethod
    multiplier: float
    blocks: Mapping[str, float] = field(default_factory=dict)

    def multiplier_of(self, block: str) -> float:
        return self.blocks.get(block, self.multiplier)


def merge(a: CheckpointParts, b: CheckpointParts, c: CheckpointParts | None, recipe: MergeRecipe) -> CheckpointParts:
    """`a` with its weights merged with those of `b`; nothing is computed until they are written.

    An inpainting or editing model as `a` keeps the inputs that `b` has not. Components that `b` lacks stay those of
    `a`. Raises InvalidRequest for a `c` that is missing or too many or a block that is not there, UnsupportedModel for
    models that do not fit each other.
    """
    if (c is None) != (recipe.method == "weighted_sum"):
        wanted = "needs a third checkpoint" if c is None else "takes two checkpoints, not three"
        raise InvalidRequest("method", f"'{recipe.method}' {wanted}.")
    block_of = unet_blocks(a.components["unet"].source, a.adapter_base)
    if unknown := sorted(recipe.blocks.keys() - set(block_of.values()) - {BASE}):
        raise InvalidRequest(
            "blocks", f"There is no block {', '.join(unknown)}.", hint=f"It has {', '.join(blocks_in_order(block_of))}."
        )
    others = [b] if c is None else [b, c]
    components: dict[ComponentName, Part] = {}
    for component, part in a.components.items():
        sources = [other.components[component].source for other in others if component in other.components]
        if len(sources) < len(others):
            components[component] = part
            continue
        for source in sources:
            _refuse_misfit(component, part.source, source)
        components[component] = replace(part, derive=_merged(recipe, sources, block_of if component == "unet" else {}))
    return replace(a, components=components)


def unet_blocks(unet: ComponentSource, adapter_base: AdapterBase) -> dict[str, str]:
    """The block of every weight of the U-Net: {"conv_in.weight": "IN00", "mid_block...": "M00", ...}."""
    weights = original_weights("unet", unet.config, adapter_base)
    numbers = [int(match["number"]) for weight in weights if (match := _BLOCK.match(weight.original))]
    last = f"OUT{max(numbers):02}" if numbers else BASE
    return {weight.name: _block_of(weight.original, last) for weight in weights}


def blocks_in_order(block_of: Mapping[str, str]) -> list[str]:
    """BASE, IN00, ..., M00, OUT00, ..."""
    order = {"IN": 1, "M0": 2, "OU": 3}
    return [BASE, *sorted(set(block_of.values()) - {BASE}, key=lambda block: (order[block[:2]], block))]


def _block_of(original: str, last: str) -> str:
    match = _BLOCK.match(original)
    if match is None:
        return last if original.startswith("model.diffusion_model.out.") else "IN00"
    if match["side"] == "middle_block":
        return "M00"
    return f"{'IN' if match['side'] == 'input_blocks' else 'OUT'}{int(match['number']):02}"


def _merged(recipe: MergeRecipe, sources: list[ComponentSource], block_of: Mapping[str, str]) -> Derive:
    def derive(name: str, tensor: Tensor) -> Tensor:
        m = recipe.multiplier_of(block_of.get(name, BASE))
        if m == 0 or not tensor.is_floating_point():
            return tensor
        b, *c = (source.tensor(name).float() for source in sources)
        result = tensor.float().clone()
        shared = result if result.shape == b.shape else result[:, : b.shape[1]]
        if c:
            shared.add_(b - c[0], alpha=m)
        else:
            torch.lerp(shared, b, m, out=shared)
        return result

    return derive


def _refuse_misfit(component: ComponentName, a: ComponentSource, b: ComponentSource) -> None:
    if set(a.names()) != set(b.names()):
        one = sorted(set(a.names()) ^ set(b.names()))[0]
        raise UnsupportedModel(
            b.path, f"its {component} has another structure than the first checkpoint's ('{one}' is in one only)",
            hint="Merge checkpoints of the same family.",
        )  # fmt: skip
    for name in a.names():
        ours, theirs = a.info(name).shape, b.info(name).shape
        fewer_inputs = (
            name == "conv_in.weight" and ours[0] == theirs[0] and ours[2:] == theirs[2:] and ours[1] > theirs[1]
        )
        if ours != theirs and not fewer_inputs:
            raise UnsupportedModel(
                b.path, f"its {component} '{name}' is {list(theirs)}, the first checkpoint's is {list(ours)}",
                hint="Merge checkpoints of the same family; an inpainting model goes first.",
            )  # fmt: skip

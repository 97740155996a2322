"""Bakes adapters into a checkpoint: the same change of every weight as in a prompt, written down for good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from webui.errors import AdapterMismatch
from webui.pipeline.adapters.deltas import (
    bias_patched,
    changes_bias,
    changes_weight,
    patched,
    problem_with_weight,
)
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.reading import AdapterFile
from webui.pipeline.adapters.targets import AdaptedComponent, AdapterGroup
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.tools.checkpoints import CheckpointParts, Derive, Part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedAdapter:
    """An adapter with its weights, as in `<lora:name:text_encoder_weight:unet_weight>`."""

    file: AdapterFile
    unet_weight: float
    text_encoder_weight: float

    def weight_for(self, component: AdaptedComponent) -> float:
        return self.unet_weight if component == "unet" else self.text_encoder_weight


Change = tuple[AdapterGroup, float]


def bake(parts: CheckpointParts, adapters: Sequence[WeightedAdapter]) -> CheckpointParts:
    """`parts` with all `adapters` in it, one after the other; nothing is computed until it is written.

    Raises AdapterMismatch if an adapter changes nothing in this checkpoint or a layer has another shape.
    """
    modules: dict[str, tuple[str, ...]] = {
        name: module_paths(part.source.names()) for name, part in parts.components.items()
    }
    names = TargetNames(modules, parts.components["unet"].source.config)
    changes: dict[str, dict[str, list[Change]]] = {}
    for adapter in adapters:
        _add_changes(changes, adapter, names, parts)
    return replace(
        parts,
        components={
            name: Part(part.source, _baked(part.derive, changes[name])) if name in changes else part
            for name, part in parts.components.items()
        },
    )


def _add_changes(
    changes: dict[str, dict[str, list[Change]]], adapter: WeightedAdapter, names: TargetNames, parts: CheckpointParts
) -> None:
    matched = 0
    for prefix, group in adapter.file.groups.items():
        target = names.find(prefix)
        if target is None:
            continue
        source = parts.components[target.component].source
        if problem := _problem(group, source, target.path):
            raise AdapterMismatch(
                f"'{adapter.file.name}' does not fit this checkpoint: at {target.path}, {problem}.",
                hint="It was made for a model of another family.",
            )
        weight = adapter.weight_for(target.component)
        changes.setdefault(target.component, {}).setdefault(target.path, []).append((group, weight))
        matched += 1
    if not matched:
        raise AdapterMismatch(
            f"None of the {len(adapter.file.groups)} layers of '{adapter.file.name}' is in this checkpoint.",
            hint="It was made for a model of another family.",
        )


def _problem(group: AdapterGroup, source: ComponentSource, path: str) -> str:
    return problem_with_weight(group, source.info(f"{path}.weight").shape) if changes_weight(group) else ""


def _baked(before: Derive, changes: Mapping[str, Sequence[Change]]) -> Derive:
    def derive(name: str, tensor: Tensor) -> Tensor:
        value = before(name, tensor)
        module, _, kind = name.rpartition(".")
        for group, weight in changes.get(module, ()):
            if kind == "weight" and changes_weight(group):
                value = patched(group, value, weight)
            elif kind == "bias" and changes_bias(group):
                value = bias_patched(group, value, weight)
        return value

    return derive

"""The adapters on one model: which of its layers each one changes, and making it so.

Everything is checked before anything is touched: an adapter that is not for this model is refused by name. What is
applied is kept with the networks (see `patches`), so a stack that is there already costs nothing.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from webui.errors import AdapterMismatch
from webui.library.cards import BASE_LABELS
from webui.library.families import Family
from webui.pipeline.adapters.blocks import block_of, network_shape
from webui.pipeline.adapters.deltas import changes_bias, is_low_rank, problem_with_weight
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.patches import Patch, PatchedWeights, Recipes
from webui.pipeline.adapters.reading import AdapterFile
from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS, AdapterGroup, Target
from webui.prompt.blocks import NetworkShape
from webui.prompt.tags import LoraTag

REMEMBERED_MATCHES = 64
CUSTOM = "sd-custom"


class AdaptedPart(Protocol):
    """A component of the model: its network, and the state of what is merged into it."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def patches(self) -> PatchedWeights: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActiveAdapter:
    """An adapter file as a tag asks for it. `key` tells the file's content; `base` is what it says it was made for."""

    tag: LoraTag
    file: AdapterFile
    key: Hashable
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The layers that an adapter changes here, and whether each is of low rank; `num_modules` are in its file."""

    targets: tuple[tuple[Target, AdapterGroup, bool], ...]
    num_modules: int

    @property
    def num_matched(self) -> int:
        return len(self.targets)


class AdapterStack:
    """For one model; used by the thread of the device's lane only."""

    def __init__(self, components: Mapping[str, AdaptedPart], family: Family, unet_config: Mapping[str, Any]) -> None:
        self._parts: dict[str, AdaptedPart] = {
            name: components[name] for name in ADAPTED_COMPONENTS if name in components
        }
        self._family = family
        self._config = unet_config
        self._names: TargetNames | None = None
        self._matches: dict[Hashable, Match] = {}

    @property
    def text_components(self) -> tuple[str, ...]:
        return tuple(name for name in self._parts if name != "unet")

    def text_widths(self) -> dict[str, int]:
        """Width of what enters each text encoder, by component."""
        return {name: int(self.module(name).config.hidden_size) for name in self.text_components}

    def module(self, component: str) -> Any:
        return self._parts[component].module

    def match(self, adapter: ActiveAdapter) -> Match:
        """Where the adapter's layers go. Raises AdapterMismatch if it is for another kind of model. Reads no weight."""
        match = self._matches.get(adapter.key)
        if match is None:
            self._refuse_other_base(adapter)
            match = self._match(adapter)
            if len(self._matches) >= REMEMBERED_MATCHES:
                self._matches.pop(next(iter(self._matches)))
            self._matches[adapter.key] = match
        return match

    def recipes(self, adapters: Sequence[ActiveAdapter]) -> dict[str, Recipes]:
        """By component, what `adapters`, in this order, do to each layer. Raises AdapterMismatch."""
        recipes: dict[str, dict[str, list[Patch]]] = {name: {} for name in self._parts}
        for adapter in adapters:
            for target, group, is_plain in self.match(adapter).targets:
                multiplier = self._multiplier(adapter.tag, target)
                if multiplier != 0:
                    patch = Patch(
                        key=(adapter.key, group.prefix, multiplier, adapter.tag.max_rank),
                        group=group,
                        multiplier=multiplier,
                        is_plain=is_plain,
                        max_rank=adapter.tag.max_rank,
                    )
                    recipes[target.component].setdefault(target.path, []).append(patch)
        return dict(recipes)

    def apply(self, recipes: Mapping[str, Recipes], components: Iterable[str] | None = None) -> None:
        """Makes the networks be what `recipes` say; those of `components`, or all."""
        for name in components if components is not None else self._parts:
            self._parts[name].patches.apply(recipes[name])

    def prepare(self, stacks: Sequence[Mapping[str, Recipes]], component: str, *, max_bytes: int) -> None:
        """Merges what differs between `stacks` ahead, if there is room, until `forget_prepared`."""
        self._parts[component].patches.prepare([recipes[component] for recipes in stacks], max_bytes=max_bytes)

    def forget_prepared(self) -> None:
        for part in self._parts.values():
            part.patches.forget_prepared()

    def state(self, components: Iterable[str]) -> Hashable:
        """Equal for equal weights of `components`."""
        return tuple(self._parts[name].patches.state for name in components)

    def problem_of_block_weights(self, tag: LoraTag) -> str:
        """Why `lbw=` of the tag says nothing about this model, in words; "" if it does or there is none."""
        if tag.block_weights is None or tag.block_weights.of(self._shape) is not None:
            return ""
        counts = "12 or 20" if self._shape == "sdxl" else "17 or 26"
        return f"its block weights are for another network than {self._family.label}'s, which takes {counts}"

    @property
    def _shape(self) -> NetworkShape:
        return network_shape(len(self._config["block_out_channels"]))

    def _multiplier(self, tag: LoraTag, target: Target) -> float:
        weight = tag.unet_weight if target.component == "unet" else tag.text_encoder_weight
        weights = tag.block_weights.of(self._shape) if tag.block_weights is not None else None
        if weights is None:
            return weight
        layers = self._config["layers_per_block"]
        block = block_of(target, layers if isinstance(layers, int) else layers[0])
        return weight * weights.get(block, 1.0) if block is not None else weight

    def _match(self, adapter: ActiveAdapter) -> Match:
        names = self._target_names()
        found = [(names.find(prefix), group) for prefix, group in adapter.file.groups.items()]
        targets = tuple((target, group) for target, group in found if target is not None)
        for target, group in targets:
            problem = self._problem(target, group)
            if problem:
                self._refuse(
                    adapter, f"does not fit this checkpoint ({self._family.label}): layer '{group.prefix}', {problem}"
                )
        if adapter.file.groups and not targets:
            self._refuse(
                adapter,
                f"does not fit this checkpoint ({self._family.label}): it has none of the {adapter.file.num_modules} "
                "layers that the LoRA changes",
            )
        return Match(
            targets=tuple((target, group, is_low_rank(group)) for target, group in targets),
            num_modules=adapter.file.num_modules,
        )

    def _problem(self, target: Target, group: AdapterGroup) -> str:
        module = self._parts[target.component].module.get_submodule(target.path)
        if changes_bias(group) and getattr(module, "bias", None) is None:
            return f"{target.path} has no bias, which it changes"
        weight = module.weight
        return problem_with_weight(group, tuple(weight.shape)) if isinstance(weight, Tensor) else ""

    def _target_names(self) -> TargetNames:
        if self._names is None:
            modules = {name: module_paths(part.module.state_dict()) for name, part in self._parts.items()}
            self._names = TargetNames(modules, self._config)
        return self._names

    def _refuse_other_base(self, adapter: ActiveAdapter) -> None:
        base = self._family.adapter_base
        if adapter.base and adapter.base != base and CUSTOM not in (adapter.base, base):
            theirs = BASE_LABELS.get(adapter.base, adapter.base)
            self._refuse(adapter, f"was made for {theirs}, and the checkpoint is {self._family.label}")

    def _refuse(self, adapter: ActiveAdapter, reason: str) -> None:
        raise AdapterMismatch(
            f"LoRA '{adapter.tag.name}' {reason}.",
            hint=f"Choose a checkpoint that it was made for, or remove <lora:{adapter.tag.name}:...> from the prompt.",
        )

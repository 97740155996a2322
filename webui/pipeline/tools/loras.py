"""New LoRA files from old ones or from checkpoints: resize, merge, extract."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.architecture import component_config, family_components
from webui.library.families import FAMILIES, AdapterBase
from webui.pipeline.adapters.deltas import LowRank, low_rank
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.reading import AdapterFile
from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS, AdapterGroup, Shape, Target
from webui.pipeline.adapters.writing import KohyaNames
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.layouts import ComponentName, Config, original_weights
from webui.pipeline.tools.baking import WeightedAdapter
from webui.pipeline.tools.checkpoints import CheckpointParts
from webui.pipeline.tools.low_rank import RankChoice, approximate, concatenate, recompress

Modules = dict[Target, Mapping[str, Tensor]]
"""What `write_adapter` takes."""
Progress = Callable[[int, int], None]
"""(layers done, layers in all); may raise to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """For linear layers and 1 x 1 convolutions, and for larger convolutions; None leaves those out."""

    linear: RankChoice
    conv: RankChoice | None

    def choice_for(self, shape: Shape) -> RankChoice | None:
        return self.conv if len(shape) == 4 and shape[2:] != (1, 1) else self.linear


class AdapterNaming:
    """Which module an adapter's keys mean in a model, and how kohya calls it."""

    def __init__(self, base: AdapterBase, modules: Mapping[str, Iterable[str]], unet_config: Config) -> None:
        self.base = base
        self.kohya = KohyaNames(base, unet_config)
        self._names = TargetNames(modules, unet_config)

    @classmethod
    def of_base(cls, base: AdapterBase) -> "AdapterNaming":
        """The modules of ordinary models of a base. Raises InvalidRequest for models of their own size."""
        family = next((row.id for row in FAMILIES.values() if row.adapter_base == base and base != "sd-custom"), None)
        if family is None:
            raise InvalidRequest("base", f"The layers of models of the kind '{base}' are not known.")
        configs: dict[ComponentName, Config] = {
            name: component_config(family, name)
            for name in ADAPTED_COMPONENTS
            if name == "unet" or name in family_components(family)
        }
        modules = {
            str(name): module_paths(weight.name for weight in original_weights(name, config, base))
            for name, config in configs.items()
        }
        return cls(base, modules, configs["unet"])

    @classmethod
    def of_checkpoint(cls, parts: CheckpointParts) -> "AdapterNaming":
        """The modules of one checkpoint, of whatever size."""
        modules = {str(name): module_paths(part.source.names()) for name, part in parts.components.items()}
        return cls(parts.adapter_base, modules, parts.components["unet"].source.config)

    def find(self, prefix: str) -> Target | None:
        return self._names.find(prefix)


def resize(
    file: AdapterFile, naming: AdapterNaming, ranks: Ranks, *, progress: Progress = lambda done, total: None
) -> Modules:
    """`file` with the ranks of `ranks`, each layer the best possible.

    A convolution that `ranks` has no rank for is left out. Raises UnsupportedModel for layers that are no LoRA, or that
    no model of the base has.
    """
    whole = WeightedAdapter(file=file, unet_weight=1.0, text_encoder_weight=1.0)
    return merge([whole], naming, ranks, progress=progress)


def merge(
    adapters: Sequence[WeightedAdapter],
    naming: AdapterNaming,
    ranks: Ranks | None,
    *,
    progress: Progress = lambda done, total: None,
) -> Modules:
    """The weighted sum of LoRAs as one: exact with the ranks added up if `ranks` is None, else the best of its ranks.

    Raises UnsupportedModel for layers that are no LoRA, or that no model of the base has.
    """
    layers: dict[Target, list[tuple[LowRank, float, Shape]]] = {}
    for adapter in adapters:
        for target, group in _targets(adapter.file, naming):
            factors, shape = _low_rank(adapter.file, group)
            layers.setdefault(target, []).append((factors, adapter.weight_for(target.component), shape))
    modules: Modules = {}
    for done, (target, parts) in enumerate(layers.items()):
        shape = parts[0][2]
        if any(other != shape for _, _, other in parts):
            path = adapters[-1].file.path
            raise UnsupportedModel(path, f"its layer {target.path} has another shape than in the others")
        joined = concatenate([(factors, weight) for factors, weight, _ in parts])
        choice = None if ranks is None else ranks.choice_for(shape)
        if ranks is None or choice is not None:
            modules[target] = lora_tensors(joined if choice is None else recompress(joined, choice), shape)
        progress(done + 1, len(layers))
    return modules


def extract(
    base: CheckpointParts,
    tuned: CheckpointParts,
    ranks: Ranks,
    *,
    min_difference: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> Modules:
    """The LoRA that, applied to `base`, is closest to `tuned`: per layer, the best of its rank (Eckart & Young 1936).

    Covers attention and feed-forward layers, and the convolutions of the U-Net where `ranks.conv` is given. A text
    encoder of which no value differs by more than `min_difference` is left out. Raises UnsupportedModel for checkpoints
    of different structure, InvalidRequest if nothing differs.
    """
    modules: Modules = {}
    layers = [
        (name, path) for name in ADAPTED_COMPONENTS if name in base.components
        for path in _extractable(name, base, tuned, ranks, min_difference)
    ]  # fmt: skip
    for done, (name, path) in enumerate(layers):
        before, after = (parts.components[name].tensor(f"{path}.weight") for parts in (base, tuned))
        difference = after.float() - before.float()
        choice = ranks.choice_for(tuple(difference.shape))
        if choice is not None and difference.any():
            factors = approximate(difference.flatten(1), choice)
            modules[Target(name, path)] = lora_tensors(factors, tuple(difference.shape))
        progress(done + 1, len(layers))
    if not modules:
        raise InvalidRequest("tuned", "The two checkpoints do not differ in any layer that a LoRA can change.")
    return modules


def lora_tensors(factors: LowRank, shape: Shape) -> dict[str, Tensor]:
    """`factors` as a LoRA's tensors for a weight of `shape`, with alpha = rank."""
    rank = factors.up.shape[1]
    up, down = factors.up * factors.scale, factors.down
    if len(shape) == 4:
        up, down = up.reshape(shape[0], rank, 1, 1), down.reshape(rank, *shape[1:])
    return {"lora_up": up.contiguous(), "lora_down": down.contiguous(), "alpha": torch.tensor(float(rank))}


def _targets(file: AdapterFile, naming: AdapterNaming) -> Iterator[tuple[Target, AdapterGroup]]:
    for prefix, group in file.groups.items():
        target = naming.find(prefix)
        if target is None:
            raise UnsupportedModel(file.path, f"its layer '{prefix}' is in no model of this family")
        yield target, group


def _low_rank(file: AdapterFile, group: AdapterGroup) -> tuple[LowRank, Shape]:
    shape = _weight_shape(group.shapes)
    factors = low_rank(group, shape) if shape is not None else None
    if factors is None or shape is None:
        raise UnsupportedModel(
            file.path,
            f"its layer '{group.prefix}' is no LoRA ({', '.join(group.shapes)})",
            hint="Other types can be baked into a checkpoint, from which a LoRA can be extracted.",
        )
    return factors, shape


def _weight_shape(shapes: Mapping[str, Shape]) -> Shape | None:
    """The shape of the weight that a LoRA, LoCon or Tucker LoCon was trained for."""
    if not {"lora_up", "lora_down"} <= shapes.keys():
        return None
    kernel = shapes.get("lora_mid", shapes["lora_down"])[2:]
    return (shapes["lora_up"][0], shapes["lora_down"][1], *kernel)


def _extractable(
    name: ComponentName, base: CheckpointParts, tuned: CheckpointParts, ranks: Ranks, min_difference: float
) -> Iterable[str]:
    before = base.components[name].source
    after = tuned.components[name].source if name in tuned.components else None
    if after is None:
        return []
    for weight in before.names():
        if weight not in after.names() or before.info(weight).shape != after.info(weight).shape:
            raise UnsupportedModel(after.path, f"its {name} has no '{weight}' of the first checkpoint's shape")
    paths = [path for path in module_paths(before.names()) if _is_extractable(name, path, before, ranks)]
    if name != "unet" and not _differs(paths, before, after, min_difference):
        return []
    return paths


def _is_extractable(name: ComponentName, path: str, source: ComponentSource, ranks: Ranks) -> bool:
    shape = source.info(f"{path}.weight").shape
    if name != "unet":
        return len(shape) == 2 and ".layers." in path
    return len(shape) in (2, 4) and (".attentions." in path or ranks.conv is not None)


def _differs(paths: Iterable[str], before: ComponentSource, after: ComponentSource, limit: float) -> bool:
    names = [f"{path}.weight" for path in paths]
    return any(float((after.tensor(n).float() - before.tensor(n).float()).abs().max()) > limit for n in names)

"""Small models of the families with live networks on them, and what they compute."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.model_files import Sizes, info_of, load_network, sizes_of, write_original_layout
from webui.library.families import FAMILIES, AdapterBase
from webui.pipeline.adapters.reading import read_adapter
from webui.pipeline.adapters.stack import ActiveAdapter, AdapterStack
from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS
from webui.pipeline.components import Component
from webui.pipeline.sources import CheckpointSource, open_checkpoint
from webui.prompt.tags import LoraTag
from webui.training.networks.trainable import Trainable

MODERATE = 0.2
"""Spread of values that a network is given in place of training, so that no error hides."""


def few_blocks(family: str) -> Sizes:
    """Every kind of layer that the family has, few of each."""
    sizes = sizes_of(family)
    text = tuple(replace(part, layers=2) for part in sizes.text)
    return replace(sizes, channels=(32, 64), depths=(0, 1) if family == "sdxl" else (1, 0), middle_depth=1,
                   layers_per_block=1, text=text)  # fmt: skip


@dataclass
class SmallModel:
    """The networks of a small single file of a family, in float32."""

    family: str
    source: CheckpointSource
    components: dict[str, Component] = field(default_factory=dict)

    @classmethod
    def write(cls, path: Path, family: str) -> "SmallModel":
        write_original_layout(path, family, vae=False, sizes=few_blocks(family))
        return cls.of(open_checkpoint(info_of(path, family)))

    @classmethod
    def of(cls, source: CheckpointSource) -> "SmallModel":
        model = cls(source.info.family, source)
        for name in ADAPTED_COMPONENTS:
            if (part := source.component(name)) is not None:
                module = load_network(part, torch.float32)
                model.components[name] = Component(name=name, module=module, source=part, dtype=torch.float32)
        return model

    @property
    def base(self) -> AdapterBase:
        return FAMILIES[self.family].adapter_base

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {name: component.module for name, component in self.components.items()}

    def answers(self) -> dict[str, Tensor]:
        """What each network gives for a fixed input; gradients flow where they can."""
        return answers_of(self.modules)

    def with_file(self, path: Path, weight: float = 1.0) -> dict[str, Tensor]:
        """The answers with the adapter file merged by the program's own engine, which is then removed again."""
        stack = AdapterStack(self.components, FAMILIES[self.family], self.modules["unet"].config)  # type: ignore[arg-type]
        tag = LoraTag(name=path.stem, unet_weight=weight, text_encoder_weight=weight)
        adapter = ActiveAdapter(tag=tag, file=read_adapter(path), key=object())
        match = stack.match(adapter)
        assert match.num_matched == match.num_modules, "the engine does not find all layers of the file"
        recipes = stack.recipes([adapter])
        try:
            stack.apply(recipes)
            with torch.no_grad():
                return self.answers()
        finally:
            for component in self.components.values():
                component.patches.remove()


def answers_of(modules: Mapping[str, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    unet = modules["unet"]
    config = unet.config
    added = None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": random(2, pooled), "time_ids": random(2, 6).abs()}
    answers = {
        "unet": unet(
            random(2, config.in_channels, 8, 8), 300, random(2, 77, config.cross_attention_dim), added_cond_kwargs=added
        ).sample
    }
    tokens = torch.arange(2 * 77).reshape(2, 77)
    for name in ("text_encoder", "text_encoder_2"):
        if name in modules:
            answers[name] = modules[name](tokens, output_hidden_states=True).hidden_states[-1]
    return answers


def randomise(network: Trainable, *, seed: int = 0, spread: float = MODERATE) -> None:
    """Moves all parameters by random values, as much training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in network.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


def largest_difference(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> float:
    """Over all networks, relative to how far the expected answer is from the base's."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - expected[name]).norm() / (expected[name] - base[name]).norm().clamp_min(1e-6))
        for name in found
    )


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """To the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def snapshot(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{c}.{name}": value.clone() for c, module in modules.items() for name, value in module.state_dict().items()
    }


def all_parameters(network: Trainable) -> Iterable[nn.Parameter]:
    return [parameter for _, parameter in network.named_parameters()]

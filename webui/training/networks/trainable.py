"""What the loop and the measuring know of whatever is trained."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from webui.errors import AdapterMismatch
from webui.pipeline.adapters.embeddings import EmbeddingTable
from webui.pipeline.adapters.targets import Target

Part = Literal["unet", "text_encoder", "embedding"]
"""Parameters with a learning rate of their own. Both text encoders of SDXL are one part."""

PARTS: tuple[Part, ...] = ("unet", "text_encoder", "embedding")

Tensors = Mapping[Target, Mapping[str, Tensor]]


class Trainable(Protocol):
    """An adapter, an embedding, both, or a whole model. Parameters are float32 and lie where the model does."""

    @property
    def num_layers(self) -> int:
        """Layers of the model that it changes."""

    @property
    def embeddings(self) -> EmbeddingTable | None:
        """New words for prompts, with live vectors: what is encoded with them leads back to them."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that is trained, in a fixed order, by names that stay the same from run to run."""

    def parameter_groups(self) -> Mapping[Part, list[nn.Parameter]]:
        """The same by part; only parts that are there."""

    def train(self, mode: bool = True) -> None:
        """Whether dropouts apply. A new one does not train yet."""

    def eval(self) -> None: ...

    def scaled(self, weight: float) -> AbstractContextManager[None]:
        """Inside, the model is base + `weight` * (trained - base), as a file at that weight makes it; 0 is the base to
        the bit. For measuring and sampling: no gradients, no dropouts, no steps."""

    def after_step(self) -> int:
        """Keeps to the limit on norms; returns how many layers had come to it."""

    def vectors(self, component: str) -> nn.Parameter:
        """The new word for a text encoder, (vectors, width). Raises KeyError without one."""

    def tensors(self) -> Tensors:
        """The adapter as a file has it, detached; empty where there is none."""

    def load_tensors(self, tensors: Tensors) -> None:
        """Goes on from `tensors`. Raises AdapterMismatch for those of another network."""

    def state(self) -> dict[str, Tensor]:
        """Views of all parameters by name."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises AdapterMismatch, naming what differs."""

    def write(self, folder: Path, name: str, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Files, the main one first, each whole or not there at all. Raises StorageError."""

    def detach(self) -> None:
        """The model as it was before, to the bit."""


def grouped(parameters: Iterator[tuple[str, nn.Parameter]]) -> dict[Part, list[nn.Parameter]]:
    """By part, told by what names begin with."""
    groups: dict[Part, list[nn.Parameter]] = {part: [] for part in PARTS}
    for name, parameter in parameters:
        groups[next(part for part in PARTS if name.startswith(part))].append(parameter)
    return {part: group for part, group in groups.items() if group}


def refuse_layers(tensors: Tensors) -> None:
    """For what has no adapter: raises AdapterMismatch unless `tensors` are none."""
    if tensors:
        raise AdapterMismatch(
            f"This training has no adapter, and an adapter for {len(tensors)} layers was given to it.",
            hint="Continue with the method that it was trained with.",
        )


def copied_into(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Puts the values of `state` into `parameters`. Raises AdapterMismatch before anything is changed."""
    names = sorted(parameters.keys() ^ state.keys())
    names += [name for name in parameters if name in state and parameters[name].shape != state[name].shape]
    if names:
        raise AdapterMismatch(
            f"What was trained does not fit this network: {names[0]} differs, and {len(names) - 1} more.",
            hint="Use the network settings that it was trained with.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])

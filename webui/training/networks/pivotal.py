"""Pivotal tuning: a new word, and an adapter that learns with it. Roich et al. 2021, arXiv:2106.05744.

When the word stops moving is the loop's to say, by its learning rate.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from webui.pipeline.adapters.embeddings import EmbeddingTable
from webui.training.networks.adapter import AdapterNetwork
from webui.training.networks.embedding import EmbeddingNetwork
from webui.training.networks.trainable import Part, Tensors, copied_into, grouped


class PivotalNetwork:
    """An adapter and a word as one. See `Trainable`."""

    def __init__(self, adapter: AdapterNetwork, word: EmbeddingNetwork) -> None:
        self._adapter = adapter
        self._word = word
        self.embeddings: EmbeddingTable | None = word.embeddings

    @property
    def num_layers(self) -> int:
        return self._adapter.num_layers

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self._adapter.named_parameters()
        yield from self._word.named_parameters()

    def parameter_groups(self) -> Mapping[Part, list[nn.Parameter]]:
        return grouped(self.named_parameters())

    def train(self, mode: bool = True) -> None:
        self._adapter.train(mode)

    def eval(self) -> None:
        self.train(False)

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._adapter.scaled(weight))
            stack.enter_context(self._word.scaled(weight))
            yield

    def after_step(self) -> int:
        return self._adapter.after_step()

    def vectors(self, component: str) -> nn.Parameter:
        return self._word.vectors(component)

    def tensors(self) -> Tensors:
        return self._adapter.tensors()

    def load_tensors(self, tensors: Tensors) -> None:
        self._adapter.load_tensors(tensors)

    def state(self) -> dict[str, Tensor]:
        return {**self._adapter.state(), **self._word.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        copied_into(dict(self.named_parameters()), state)

    def write(self, folder: Path, name: str, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """The word goes into the adapter's file, and beside it for programs that do not look for it there."""
        bundled = {self._word.name: self._word.parts()}
        adapter = self._adapter.write(folder, name, dtype=dtype, metadata=metadata, bundled=bundled)
        return (*adapter, *self._word.write(folder, name, dtype=dtype, metadata=metadata))

    def detach(self) -> None:
        self._word.detach()
        self._adapter.detach()

"""Textual inversion: a new word whose vectors are all that moves. Gal et al. 2022, arXiv:2208.01618.

The vectors enter the text encoders where those of a finished embedding do, by the code that generates pictures, so a
prompt means the same in training and afterwards.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from webui.pipeline.adapters.embeddings import ENCODER_OF, Embedding, EmbeddingTable
from webui.pipeline.adapters.writing import write_embedding
from webui.pipeline.text_encoding import ClipEncoder
from webui.training.networks.freezing import Frozen
from webui.training.networks.trainable import Part, Tensors, copied_into, grouped, refuse_layers

NEW_WORD_SPREAD = 0.5
"""Of vectors that start from no word, as a share of the spread of the vocabulary's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewEmbedding:
    """A word that is to be learnt: `name` in prompts, and its first vectors (vectors, width) by text encoder."""

    name: str
    start: Mapping[str, Tensor]


def new_embedding(encoders: Mapping[str, ClipEncoder], name: str, word: str, num_vectors: int) -> NewEmbedding:
    """A word `name` of `num_vectors` vectors that starts as `word`, over and over; without one, near nothing.

    `encoders` by component name. Random vectors come from torch's global generator.
    """
    return NewEmbedding(
        name=name,
        start={component: _first_vectors(encoder, word, num_vectors) for component, encoder in encoders.items()},
    )


def _first_vectors(encoder: ClipEncoder, word: str, num_vectors: int) -> Tensor:
    vocabulary: Tensor = encoder.model.get_input_embeddings().weight.detach()  # type: ignore[operator]
    ids = encoder.tokenizer.encode(word)
    if not ids:
        spread = vocabulary.float().std().cpu() * NEW_WORD_SPREAD
        return torch.randn(num_vectors, vocabulary.shape[1]) * spread
    return vocabulary[[ids[i % len(ids)] for i in range(num_vectors)]].float().cpu()


class EmbeddingNetwork:
    """The new word alone. See `Trainable`."""

    num_layers = 0

    def __init__(self, modules: Mapping[str, nn.Module], embedding: NewEmbedding) -> None:
        self._frozen = Frozen(modules.values())
        self._name = embedding.name
        self._start = {
            component: vectors.to(next(modules[component].parameters()).device, torch.float32)
            for component, vectors in embedding.start.items()
        }
        self._vectors = {component: nn.Parameter(vectors.clone()) for component, vectors in self._start.items()}
        self._part_of = ENCODER_OF[frozenset(self._vectors)]
        live = {self._part_of[component]: vectors for component, vectors in self._vectors.items()}
        self.embeddings: EmbeddingTable | None = EmbeddingTable(
            [Embedding(name=self._name, key=f"training:{self._name}", parts=live)], tuple(self._vectors)
        )

    @property
    def name(self) -> str:
        return self._name

    def parts(self) -> dict[str, Tensor]:
        """The vectors under the names that files have them by."""
        return {self._part_of[component]: vectors.detach() for component, vectors in self._vectors.items()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for component, vectors in self._vectors.items():
            yield f"embedding.{component}.{self._name}", vectors

    def parameter_groups(self) -> Mapping[Part, list[nn.Parameter]]:
        return grouped(self.named_parameters())

    def train(self, mode: bool = True) -> None:
        """There are no dropouts."""

    def eval(self) -> None:
        """There are no dropouts."""

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        """Without a word there is none to weigh: 0 is what it started from, all else is the word as it is."""
        with torch.no_grad():
            if weight != 0:
                yield
                return
            trained = {component: vectors.clone() for component, vectors in self._vectors.items()}
            for component, vectors in self._vectors.items():
                vectors.copy_(self._start[component])
            try:
                yield
            finally:
                for component, vectors in self._vectors.items():
                    vectors.copy_(trained[component])

    def after_step(self) -> int:
        return 0

    def vectors(self, component: str) -> nn.Parameter:
        return self._vectors[component]

    def tensors(self) -> Tensors:
        return {}

    def load_tensors(self, tensors: Tensors) -> None:
        refuse_layers(tensors)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        copied_into(dict(self.named_parameters()), state)

    def write(self, folder: Path, name: str, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """The file has the name of the word, which is how prompts find it."""
        path = folder / f"{self._name}.safetensors"
        write_embedding(path, self.parts(), dtype=dtype, metadata={"ss_output_name": name, **metadata})
        return (path,)

    def detach(self) -> None:
        self._frozen.thaw()

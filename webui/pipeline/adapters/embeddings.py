"""Textual inversions: vectors that stand in a prompt as words do.

Files are read without running what they contain, in every form the field has: kohya's, A1111's, diffusers', SDXL's
pairs, picture cards, and those bundled in LoRA files. Source: Gal et al. 2022, arXiv:2208.01618.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.images.carried_data import read_carried_data
from webui.library.old_files import PICKLE_SUFFIXES
from webui.library.scan import PICTURES
from webui.pipeline.pickles import read_content
from webui.prompt.chunks import CHUNK_TOKENS, Chunk, EmbeddingNames, KnownEmbedding

Parts = Mapping[str, Tensor]
"""Vectors by the encoder they are for: "*" is SD's only one, "clip_l" SDXL's first and "clip_g" its second."""

ENCODER_OF: Mapping[frozenset[str], Mapping[str, str]] = MappingProxyType(
    {
        frozenset({"text_encoder"}): MappingProxyType({"text_encoder": "*"}),
        frozenset({"text_encoder", "text_encoder_2"}): MappingProxyType(
            {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
        ),
        frozenset({"text_encoder_2"}): MappingProxyType({"text_encoder_2": "clip_g"}),
    }
)
"""Text encoders that a model has -> the part that each one takes: SD, SDXL, its refiner."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """`parts`: (vectors, width) float32 each, as many vectors in each. `key` tells its content from all others'."""

    name: str
    key: str
    parts: Parts

    @property
    def num_vectors(self) -> int:
        return len(next(iter(self.parts.values())))

    def problem_with(self, widths: Mapping[str, int]) -> str:
        """Why it does not fit text encoders of these widths (by component name), in words; "" if it does."""
        if self.num_vectors > CHUNK_TOKENS:
            return f"it has {self.num_vectors} vectors, and a prompt's chunk has room for {CHUNK_TOKENS}"
        wanted = {part: widths[component] for component, part in ENCODER_OF[frozenset(widths)].items()}
        if any(part not in self.parts or self.parts[part].shape[1] != width for part, width in wanted.items()):
            mine = {part: vectors.shape[1] for part, vectors in self.parts.items()}
            return f"it has vectors of width {_words(mine)}, and this checkpoint takes {_words(wanted)}"
        return ""


def _words(widths: Mapping[str, int]) -> str:
    return " and ".join(str(width) for width in widths.values())


def read_embedding(path: Path, name: str = "") -> Embedding:
    """The textual inversion in a file, called `name` or as the file. Raises UnsupportedModel with the reason."""
    suffix = path.suffix.lower()
    try:
        stamp = path.stat()
        if suffix in PICTURES:
            content: object = read_carried_data(path)
        elif suffix in PICKLE_SUFFIXES:
            content = read_content(path)
        else:
            content = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UnsupportedModel(path, f"it cannot be read ({error})") from error
    parts = _parts_of(path, content)
    return Embedding(name=name or path.stem, key=f"{path}:{stamp.st_size}:{stamp.st_mtime_ns}", parts=parts)


def bundled_embedding(path: Path, name: str, key: str, parts: Parts) -> Embedding:
    """One that came along in the LoRA file `path`. Raises UnsupportedModel if its vectors cannot be used."""
    return Embedding(name=name, key=f"{key}:{name}", parts=_checked(path, parts))


def _parts_of(path: Path, content: object) -> Parts:
    if not isinstance(content, Mapping):
        raise UnsupportedModel(path, f"it holds a {type(content).__name__} instead of named vectors")
    if "string_to_param" in content:
        nested = getattr(content["string_to_param"], "_parameters", content["string_to_param"])
        return _checked(path, {"*": _only(path, nested if isinstance(nested, Mapping) else {})})
    tensors = {str(name).removeprefix("string_to_param."): value for name, value in content.items()}
    pair: dict[str, object] = {part: tensors[part] for part in ("clip_l", "clip_g") if part in tensors}
    if "clip_g" in pair:
        return _checked(path, pair)
    return _checked(path, {"*": _only(path, tensors)})


def _only(path: Path, tensors: Mapping[str, object]) -> object:
    """The one entry of vectors, whatever its name: "*", "emb_params", "<token>"."""
    found = [value for value in tensors.values() if isinstance(value, Tensor | np.ndarray)]
    if len(found) != 1:
        reason = f"it holds {len(found)} sets of vectors, and a textual inversion is one"
        raise UnsupportedModel(path, reason if found else "there is no textual inversion in it")
    return found[0]


def _checked(path: Path, parts: Mapping[str, object]) -> Parts:
    """`parts` as (vectors, width) float32."""
    checked: dict[str, Tensor] = {}
    for part, value in parts.items():
        if not isinstance(value, Tensor | np.ndarray):
            raise UnsupportedModel(path, f"its part {part} is a {type(value).__name__} instead of vectors")
        tensor = torch.as_tensor(value).detach().float()
        tensor = tensor[None] if tensor.ndim == 1 else tensor
        if tensor.ndim != 2 or not tensor.numel():
            raise UnsupportedModel(path, f"its vectors have the shape {list(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise UnsupportedModel(
                path,
                "it has values that are NaN or infinite",
                hint="Its training went wrong; use an earlier version of it.",
            )
        checked[part] = tensor.clone()
    if len({len(tensor) for tensor in checked.values()}) != 1:
        raise UnsupportedModel(path, f"its parts have {' and '.join(str(len(t)) for t in checked.values())} vectors")
    return checked


class EmbeddingTable:
    """The textual inversions that one prompt may name, for one model."""

    def __init__(self, embeddings: Iterable[Embedding], components: Sequence[str]) -> None:
        """`embeddings` fit the model (see `Embedding.problem_with`), whose text encoders are `components`."""
        kept: dict[str, Embedding] = {}
        for embedding in embeddings:
            kept.setdefault(embedding.name, embedding)
        self.embeddings = tuple(kept.values())
        self.names = EmbeddingNames(
            {name: KnownEmbedding(embedding.key, embedding.num_vectors) for name, embedding in kept.items()}
        )
        part_of = ENCODER_OF[frozenset(components)]
        self._vectors = {
            component: {embedding.key: embedding.parts[part_of[component]] for embedding in self.embeddings}
            for component in components
        }

    def insert(self, component: str, chunk: Chunk, embedded: Tensor) -> Tensor:
        """`embedded` (1, 77, width) with the vectors of the chunk's textual inversions in their places."""
        if not chunk.embeddings:
            return embedded
        replaced = embedded.clone()
        for use in chunk.embeddings:
            rows = slice(1 + use.start, 1 + use.start + use.num_vectors)
            replaced[0, rows] = self._vectors[component][use.key].to(replaced)
        return replaced

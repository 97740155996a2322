"""A prompt of any length as chunks of 75 tokens, each with one weight per token.

A textual inversion that is known is found in the text by its name and takes as many tokens as it has vectors. Only its
key is kept here; the vectors are put in where the text is encoded.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from webui.prompt.grammar import ParsedPrompt

CHUNK_TOKENS = 75
"""Tokens of text in a chunk; start and end mark make it 77, CLIP's context."""
COMMA_BACKTRACK = 20
"""A phrase after a comma moves to the next chunk as a whole if it has at most this many tokens."""
PLACEHOLDER_ID = 0
"""Stands where the vectors of a textual inversion go; an id that every vocabulary has and that is no end mark."""


class PromptTokenizer(Protocol):
    comma_id: int | None

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class KnownEmbedding:
    """A textual inversion of `num_vectors` vectors, 1 to 75. `key` tells its content from all others'."""

    key: str
    num_vectors: int


class EmbeddingNames:
    """Finds known textual inversions in a text: whole words, whatever the case, the longest name first."""

    def __init__(self, known: Mapping[str, KnownEmbedding]) -> None:
        """`known` by name; the first of names that differ in case alone counts."""
        self._known: dict[str, KnownEmbedding] = {}
        for name, embedding in known.items():
            if name:
                self._known.setdefault(name.lower(), embedding)
        self._lengths = sorted({len(name) for name in self._known}, reverse=True)

    def split(self, text: str) -> Iterator[str | KnownEmbedding]:
        """`text` in order: pieces of plain text, and the textual inversions between them."""
        start = place = 0
        while place < len(text):
            end = self._match(text, place)
            if end is None:
                place += 1
                continue
            if start < place:
                yield text[start:place]
            yield self._known[text[place:end].lower()]
            start = place = end
        if start < len(text):
            yield text[start:]

    def _match(self, text: str, start: int) -> int | None:
        if _inside_word(text, start):
            return None
        for length in self._lengths:
            end = start + length
            if end <= len(text) and text[start:end].lower() in self._known and not _inside_word(text, end):
                return end
        return None


def _inside_word(text: str, place: int) -> bool:
    """Whether the characters before and at `place` belong to one word."""
    pair = text[max(place - 1, 0) : place + 1]
    return len(pair) == 2 and all(character.isalnum() or character == "_" for character in pair)


NO_EMBEDDINGS = EmbeddingNames({})


@dataclass(frozen=True, slots=True)
class EmbeddingUse:
    """The textual inversion `key` at the chunk's tokens `start` up to `start + num_vectors`."""

    start: int
    key: str
    num_vectors: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """At most 75 token ids and as many weights, without start, end and padding.

    At the tokens of `embeddings`, in order, the ids are `PLACEHOLDER_ID`.
    """

    token_ids: tuple[int, ...]
    weights: tuple[float, ...]
    embeddings: tuple[EmbeddingUse, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Unit:
    """What a chunk may not tear apart: one token, or all vectors of a textual inversion."""

    token_id: int
    weight: float
    size: int = 1
    key: str = ""


def chunk_prompt(
    prompt: ParsedPrompt, tokenizer: PromptTokenizer, embeddings: EmbeddingNames = NO_EMBEDDINGS
) -> tuple[Chunk, ...]:
    """At least one chunk; every section starts a new one. An empty section at the end adds none."""
    chunks: list[Chunk] = []
    for section in prompt.sections[:-1] if len(prompt.sections) > 1 and not prompt.sections[-1] else prompt.sections:
        units = [unit for piece in section for unit in _units(piece.text, piece.weight, tokenizer, embeddings)]
        chunks.extend(_split(units, tokenizer.comma_id))
    return tuple(chunks)


def count_tokens(
    prompt: ParsedPrompt, tokenizer: PromptTokenizer, embeddings: EmbeddingNames = NO_EMBEDDINGS
) -> tuple[int, int]:
    """(tokens used, tokens until the next chunk starts): 12, 75 for a short prompt. A BREAK fills its chunk."""
    chunks = chunk_prompt(prompt, tokenizer, embeddings)
    return CHUNK_TOKENS * (len(chunks) - 1) + len(chunks[-1].token_ids), CHUNK_TOKENS * len(chunks)


def _units(text: str, weight: float, tokenizer: PromptTokenizer, embeddings: EmbeddingNames) -> Iterator[_Unit]:
    for part in embeddings.split(text):
        if isinstance(part, KnownEmbedding):
            yield _Unit(PLACEHOLDER_ID, weight, size=part.num_vectors, key=part.key)
        else:
            yield from (_Unit(token, weight) for token in tokenizer.encode(part))


def _split(units: Sequence[_Unit], comma_id: int | None) -> list[Chunk]:
    chunks = []
    start = 0
    while (end := _full_at(units, start)) < len(units):
        end = _break_point(units, start, end, comma_id)
        chunks.append(_chunk(units[start:end]))
        start = end
    chunks.append(_chunk(units[start:]))
    return chunks


def _full_at(units: Sequence[_Unit], start: int) -> int:
    """The first unit from `start` on that has no room in a chunk any more."""
    size = 0
    for place in range(start, len(units)):
        size += units[place].size
        if size > CHUNK_TOKENS:
            return place
    return len(units)


def _break_point(units: Sequence[_Unit], start: int, end: int, comma_id: int | None) -> int:
    """`end`, or the place behind the last comma if the phrase there is short and goes on beyond `end`."""
    if _is_comma(units[end], comma_id):
        return end
    tokens = 0
    for place in range(end - 1, start - 1, -1):
        tokens += units[place].size
        if tokens > COMMA_BACKTRACK:
            break
        if _is_comma(units[place], comma_id):
            return place + 1
    return end


def _is_comma(unit: _Unit, comma_id: int | None) -> bool:
    return not unit.key and unit.token_id == comma_id


def _chunk(units: Iterable[_Unit]) -> Chunk:
    ids: list[int] = []
    weights: list[float] = []
    uses: list[EmbeddingUse] = []
    for unit in units:
        if unit.key:
            uses.append(EmbeddingUse(len(ids), unit.key, unit.size))
        ids += [unit.token_id] * unit.size
        weights += [unit.weight] * unit.size
    return Chunk(tuple(ids), tuple(weights), tuple(uses))


def neutral(chunk: Chunk) -> bool:
    """Whether no token of the chunk is weighted."""
    return all(math.isclose(weight, 1.0) for weight in chunk.weights)

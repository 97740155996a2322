"""A prompt of any length as chunks of 75 tokens, each with one weight per token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from webui.prompt.grammar import ParsedPrompt

CHUNK_TOKENS = 75
"""Tokens of text in a chunk; start and end mark make it 77, CLIP's context."""
COMMA_BACKTRACK = 20
"""A phrase after a comma moves to the next chunk as a whole if it has at most this many tokens."""


class PromptTokenizer(Protocol):
    comma_id: int | None

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """At most 75 token ids and as many weights, without start, end and padding."""

    token_ids: tuple[int, ...]
    weights: tuple[float, ...]


def chunk_prompt(prompt: ParsedPrompt, tokenizer: PromptTokenizer) -> tuple[Chunk, ...]:
    """At least one chunk; every section starts a new one. An empty section at the end adds none."""
    chunks: list[Chunk] = []
    for section in prompt.sections[:-1] if len(prompt.sections) > 1 and not prompt.sections[-1] else prompt.sections:
        tokens = [(token, piece.weight) for piece in section for token in tokenizer.encode(piece.text)]
        chunks.extend(_split(tokens, tokenizer.comma_id))
    return tuple(chunks)


def count_tokens(prompt: ParsedPrompt, tokenizer: PromptTokenizer) -> tuple[int, int]:
    """(tokens used, tokens until the next chunk starts): 12, 75 for a short prompt. A BREAK fills its chunk."""
    chunks = chunk_prompt(prompt, tokenizer)
    return CHUNK_TOKENS * (len(chunks) - 1) + len(chunks[-1].token_ids), CHUNK_TOKENS * len(chunks)


def _split(tokens: Sequence[tuple[int, float]], comma_id: int | None) -> list[Chunk]:
    chunks = []
    start = 0
    while len(tokens) - start > CHUNK_TOKENS:
        end = _break_point(tokens, start, start + CHUNK_TOKENS, comma_id)
        chunks.append(_chunk(tokens[start:end]))
        start = end
    chunks.append(_chunk(tokens[start:]))
    return chunks


def _break_point(tokens: Sequence[tuple[int, float]], start: int, end: int, comma_id: int | None) -> int:
    """`end`, or the place behind the last comma if the phrase there is short and goes on beyond `end`."""
    if tokens[end][0] == comma_id:
        return end
    for place in range(end - 1, max(start, end - COMMA_BACKTRACK) - 1, -1):
        if tokens[place][0] == comma_id:
            return place + 1
    return end


def _chunk(tokens: Sequence[tuple[int, float]]) -> Chunk:
    return Chunk(tuple(token for token, _ in tokens), tuple(weight for _, weight in tokens))


def neutral(chunk: Chunk) -> bool:
    """Whether no token of the chunk is weighted."""
    return all(math.isclose(weight, 1.0) for weight in chunk.weights)

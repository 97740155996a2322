"""What a prompt says: weighted text in sections, and the networks its tags name.

The syntax is the de-facto standard's: `(a)` x 1.1, `[a]` / 1.1, `(a:1.3)` x 1.3, nested as deep as one likes, with
`\\(`, `\\)`, `\\[`, `\\]` and `\\\\` as literal characters; `BREAK` starts a new section; `<lora:name:weight>` names an
adapter (see `tags`). What is not closed applies to the end, what was never opened is literal: no prompt is a syntax
error.
"""

import re
from dataclasses import dataclass, replace

from webui.prompt.tags import HypernetTag, LoraTag, TagProblem, read_tag

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1

_TAG = re.compile(r"<(\w+):([^>]+)>")
_TOKEN = re.compile(
    r"""
    \\[()\[\]\\]                      # an escaped character
    | \\                              # a lone backslash is dropped
    | \(|\[                           # openings
    | :\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)   # a weight closes a round bracket
    | \)|\]                           # closings
    | \s*\bBREAK\b\s*
    | [^\\()\[\]:B]+ | :              # text; B stands apart so that BREAK is seen
    | B
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class WeightedText:
    """`weight` multiplies the encoding of the tokens of `text`; 1 is neutral."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPrompt:
    """`sections` are separated by BREAK; a prompt has at least one, which may be empty. Tags are no part of the text.

    `loras` and `hypernets` are in the order of the prompt; `problems` are tags, or parts of them, that were not taken.
    """

    sections: tuple[tuple[WeightedText, ...], ...]
    loras: tuple[LoraTag, ...] = ()
    hypernets: tuple[HypernetTag, ...] = ()
    problems: tuple[TagProblem, ...] = ()


def parse_prompt(text: str) -> ParsedPrompt:
    """Reads a prompt. Never raises: whatever is typed means something."""
    tags: list[LoraTag | HypernetTag] = []
    problems: list[TagProblem] = []

    def take(match: re.Match[str]) -> str:
        tag, reasons = read_tag(match[1], match[2], position=match.start())
        if tag is not None:
            tags.append(tag)
        problems.extend(TagProblem(tag=match[0], position=match.start(), reason=reason) for reason in reasons)
        return ""

    bare = _TAG.sub(take, text)
    return ParsedPrompt(
        sections=_sections(bare),
        loras=tuple(tag for tag in tags if isinstance(tag, LoraTag)),
        hypernets=tuple(tag for tag in tags if isinstance(tag, HypernetTag)),
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text with its weight, or a section break where `text` is None."""

    text: str | None
    weight: float = 1.0


def _sections(text: str) -> tuple[tuple[WeightedText, ...], ...]:
    pieces: list[_Piece] = []
    open_round: list[int] = []
    open_square: list[int] = []

    def weigh_since(start: int, factor: float) -> None:
        pieces[start:] = [replace(piece, weight=piece.weight * factor) for piece in pieces[start:]]

    for match in _TOKEN.finditer(text):
        token = match[0]
        if len(token) == 2 and token[0] == "\\":
            pieces.append(_Piece(token[1]))
        elif token == "\\":
            continue
        elif token == "(":
            open_round.append(len(pieces))
        elif token == "[":
            open_square.append(len(pieces))
        elif token == ")" and open_round:
            weigh_since(open_round.pop(), ROUND_FACTOR)
        elif token == "]" and open_square:
            weigh_since(open_square.pop(), SQUARE_FACTOR)
        elif token[0] == ":" and token[-1] == ")" and open_round:
            weigh_since(open_round.pop(), float(token[1:-1]))
        elif token.strip() == "BREAK":
            pieces.append(_Piece(None))
        else:
            pieces.append(_Piece(token))
    for start in open_round:
        weigh_since(start, ROUND_FACTOR)
    for start in open_square:
        weigh_since(start, SQUARE_FACTOR)
    return _merge(pieces)


def _merge(pieces: list[_Piece]) -> tuple[tuple[WeightedText, ...], ...]:
    """Joins neighbours of equal weight and splits at breaks."""
    sections: list[list[WeightedText]] = [[]]
    for piece in pieces:
        section = sections[-1]
        if piece.text is None:
            sections.append([])
        elif section and section[-1].weight == piece.weight:
            section[-1] = WeightedText(section[-1].text + piece.text, piece.weight)
        else:
            section.append(WeightedText(piece.text, piece.weight))
    return tuple(tuple(section) for section in sections)

"""What a prompt says: weighted text in sections, and the networks its tags name.

The syntax is the de-facto standard's: `(a)` x 1.1, `[a]` / 1.1, `(a:1.3)` x 1.3, nested as deep as one likes, with
`\\(`, `\\)`, `\\[`, `\\]` and `\\\\` as literal characters; `BREAK` starts a new section; `<lora:name:weight>` names an
adapter. What is not closed applies to the end, what was never opened is literal: no prompt is a syntax error.
"""

import re
from dataclasses import dataclass, replace

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
class LoraTag:
    """`<lora:name:weight>`; text encoder and U-Net can be weighted apart."""

    name: str
    unet_weight: float
    text_encoder_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPrompt:
    """`sections` are separated by BREAK; a prompt has at least one, which may be empty."""

    sections: tuple[tuple[WeightedText, ...], ...]
    loras: tuple[LoraTag, ...] = ()
    unknown_tags: tuple[str, ...] = ()
    """Tags such as `<foo:bar>` that mean nothing here; they are not part of the text."""


def parse_prompt(text: str) -> ParsedPrompt:
    """Reads a prompt. Never raises: whatever is typed means something."""
    loras: list[LoraTag] = []
    unknown: list[str] = []

    def take(match: re.Match[str]) -> str:
        tag = _lora_tag(match[2]) if match[1].lower() in ("lora", "lyco") else None
        if tag is None:
            unknown.append(match[0])
        else:
            loras.append(tag)
        return ""

    bare = _TAG.sub(take, text)
    return ParsedPrompt(sections=_sections(bare), loras=tuple(loras), unknown_tags=tuple(unknown))


def _lora_tag(arguments: str) -> LoraTag | None:
    """`name:te:unet` with optional `te=` and `unet=`; None where a weight is not a number."""
    name, *rest = arguments.split(":")
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    positional = [part for part in rest if "=" not in part]
    try:
        text_encoder = float(named.get("te", positional[0] if positional else 1.0))
        unet = float(named.get("unet", positional[1] if len(positional) > 1 else text_encoder))
    except ValueError:
        return None
    return LoraTag(name=name.strip(), unet_weight=unet, text_encoder_weight=text_encoder)


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

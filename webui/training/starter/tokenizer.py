"""A byte-pair tokenizer in CLIP's file format, trained on the captions: a few hundred words, any Unicode by bytes."""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from webui.training.starter.captions import OPENINGS, PORTRAIT_OPENINGS
from webui.training.starter.concepts import CONCEPTS, HEAD_HAIR
from webui.training.starter.networks import MAX_TOKENS
from webui.training.starter.variants import TONE_CODES
from webui.training.starter.vocabulary import (
    BUILD_WORDS,
    COLOURS,
    DEGRADED_WORDS,
    PAIRS,
    PLACES,
    QUALITY_WORDS,
    SCENES,
    SIZE_WORDS,
    STYLE_WORDS,
)

TokenIds = npt.NDArray[np.int16]
Pair = tuple[str, str]

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"

# Words people write in prompts though no picture here shows them: one token each rather than a string of letters.
PROMPT_WORDS = """
the and with without of in on at by for from to into over under behind near very not no two three many one
photo photograph painting drawing sketch render artwork portrait style cinematic lighting dramatic soft light shadow
realistic anime cartoon watercolor oil digital art beautiful cute pretty happy sad smiling young old big small tiny
face head hair eyes hat beard glasses skin body hands full close up view front side looking sitting standing wearing
high low best worst quality masterpiece detailed sharp focus blurry bad ugly deformed cropped watermark text signature
sky cloud sun moon stars water sea ocean forest mountain city street room window table field grass sand ice rain
colorful bright dark vivid pastel simple plain empty background foreground bokeh 4k 8k hd
"""


def training_lines() -> list[str]:
    """Lines that hold every word a caption can use, each often enough to become one token."""
    return [*caption_lines(), *PROMPT_WORDS.split()]


def caption_lines() -> list[str]:
    """The same without those that no caption uses."""
    phrases = [word for concept in CONCEPTS for word in (*concept.words, *concept.hair)]
    phrases += [*HEAD_HAIR, "black hair", *COLOURS, "grey", *TONE_CODES, *PLACES, *SIZE_WORDS, *QUALITY_WORDS]
    phrases += [
        word for table in (STYLE_WORDS, BUILD_WORDS, DEGRADED_WORDS) for words in table.values() for word in words
    ]
    phrases += [phrase for scene in SCENES for phrase in (scene.name, *scene.phrases)]
    phrases += [relation.format("", "") for *_, relation in PAIRS]
    phrases += [*OPENINGS, *PORTRAIT_OPENINGS, "a", "an", "gradient background", "in front of", "with skin", ","]
    return phrases


def write_tokenizer(folder: Path, lines: Iterable[str]) -> CLIPTokenizer:
    """Train on `lines`, write vocab.json and merges.txt to `folder`, and load the result."""
    merges = _learn_merges(lines)
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    rows = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer written to `folder`."""
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=MAX_TOKENS)
    assert isinstance(tokenizer, CLIPTokenizer)
    return tokenizer


def encode(tokenizer: CLIPTokenizer, captions: list[str]) -> TokenIds:
    """(B, 77) int16, padded with the end token."""
    ids = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
    return np.asarray(ids, np.int16)


def _learn_merges(lines: Iterable[str]) -> list[Pair]:
    """Merge pairs, most frequent first and ties by spelling, until every word of `lines` is one token."""
    words = Counter(word for line in lines for word in split_words(line))
    spellings = {word: [*word[:-1], word[-1] + WORD_END] for word in words}
    merges: list[Pair] = []
    while True:
        pairs: Counter[Pair] = Counter()
        for word, parts in spellings.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = {word: _merge(parts, best) for word, parts in spellings.items()}


def split_words(line: str) -> list[str]:
    """The words of `line` in CLIP's byte letters, by CLIP's own rules."""
    rules = CLIPTokenizer().backend_tokenizer
    return [word for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(line))]


def _merge(parts: list[str], pair: Pair) -> list[str]:
    """`parts` with each occurrence of `pair` joined, from the left."""
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined

"""Tokens and chunks, against transformers' own CLIP tokenizer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from tests.models import write_tokenizer
from webui.errors import UnsupportedModel
from webui.prompt.chunks import (
    CHUNK_TOKENS,
    PLACEHOLDER_ID,
    EmbeddingNames,
    EmbeddingUse,
    KnownEmbedding,
    chunk_prompt,
    count_tokens,
)
from webui.prompt.grammar import parse_prompt
from webui.prompt.tokenizer import ClipTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ClipTokenizer:
    return ClipTokenizer(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


@given(text=st.text())
def test_tokens_are_those_of_transformers(text: str, tokenizer: ClipTokenizer, reference: CLIPTokenizer) -> None:
    assert tokenizer.encode(text) == reference(text, add_special_tokens=False).input_ids


@given(words=st.lists(st.sampled_from(["a", "red", ",", "(b:1.2)", "x"]), max_size=200))
def test_chunks_hold_every_token_in_order(words: list[str], tokenizer: ClipTokenizer) -> None:
    prompt = parse_prompt(" ".join(words))
    chunks = chunk_prompt(prompt, tokenizer)
    assert all(len(chunk.token_ids) <= CHUNK_TOKENS for chunk in chunks)
    expected = [token for piece in prompt.sections[0] for token in tokenizer.encode(piece.text)]
    assert [token for chunk in chunks for token in chunk.token_ids] == expected
    used, limit = count_tokens(prompt, tokenizer)
    assert limit - CHUNK_TOKENS <= used <= limit


def test_a_phrase_after_a_comma_is_not_torn_apart(tokenizer: ClipTokenizer) -> None:
    first, second = chunk_prompt(parse_prompt("a " * 68 + ", red red red red red red red red red"), tokenizer)
    assert len(first.token_ids) == 69
    assert first.token_ids[-1] == tokenizer.comma_id
    assert len(second.token_ids) == 9


def test_a_long_phrase_is_torn_where_the_chunk_is_full(tokenizer: ClipTokenizer) -> None:
    first, second = chunk_prompt(parse_prompt("a , " + "a " * 80), tokenizer)
    assert (len(first.token_ids), len(second.token_ids)) == (75, 7)


def test_break_fills_the_chunk(tokenizer: ClipTokenizer) -> None:
    assert count_tokens(parse_prompt("a BREAK a"), tokenizer) == (76, 150)


def test_counts_of_empty_and_full_prompts(tokenizer: ClipTokenizer) -> None:
    assert count_tokens(parse_prompt(""), tokenizer) == (0, 75)
    assert count_tokens(parse_prompt("a " * 75), tokenizer) == (75, 75)
    assert count_tokens(parse_prompt("a " * 76), tokenizer) == (76, 150)


EASY, BAD, LONG = KnownEmbedding("easy", 2), KnownEmbedding("bad", 3), KnownEmbedding("long", 75)
NAMES = EmbeddingNames({"EasyNegative": EASY, "bad hands-5": BAD, "bad": KnownEmbedding("short", 1), "long": LONG})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("easynegative", [EASY]),
        ("a EASYNEGATIVE, b", ["a ", EASY, ", b"]),
        ("easynegative2 xeasynegative easy_easynegative", ["easynegative2 xeasynegative easy_easynegative"]),
        ("Bad hands-5!", [BAD, "!"]),
        ("bad hands-50", [KnownEmbedding("short", 1), " hands-50"]),
        ("easynegative-easynegative", [EASY, "-", EASY]),
        ("", []),
    ],
)
def test_textual_inversions_are_found_as_whole_words_the_longest_first(text: str, expected: list[object]) -> None:
    assert list(NAMES.split(text)) == expected


@given(st.text())
def test_a_text_without_names_stays_whole(text: str) -> None:
    assert "".join(str(part) for part in EmbeddingNames({"\x00\x00": EASY}).split(text.replace("\x00", ""))) == (
        text.replace("\x00", "")
    )


def test_vectors_of_a_textual_inversion_count_as_tokens_with_its_weight(tokenizer: ClipTokenizer) -> None:
    (chunk,) = chunk_prompt(parse_prompt("a (easynegative:1.3) a bad"), tokenizer, NAMES)
    a = tokenizer.encode("a")[0]
    assert chunk.token_ids == (a, PLACEHOLDER_ID, PLACEHOLDER_ID, a, PLACEHOLDER_ID)
    assert chunk.weights == (1.0, 1.3, 1.3, 1.0, 1.0)
    assert chunk.embeddings == (EmbeddingUse(1, "easy", 2), EmbeddingUse(4, "short", 1))
    assert count_tokens(parse_prompt("a easynegative"), tokenizer, NAMES) == (3, 75)
    assert count_tokens(parse_prompt("a long"), tokenizer, NAMES) == (150, 150)


@given(words=st.lists(st.sampled_from(["a", "red", ",", "easynegative", "(bad hands-5:1.2)", "x"]), max_size=120))
def test_no_textual_inversion_is_cut_in_two(words: list[str], tokenizer: ClipTokenizer) -> None:
    chunks = chunk_prompt(parse_prompt(" ".join(words)), tokenizer, NAMES)
    sizes = {"easy": 2, "bad": 3}
    found = [use.key for chunk in chunks for use in chunk.embeddings]
    assert found == [
        {"easynegative": "easy", "(bad hands-5:1.2)": "bad"}[word]
        for word in words
        if word not in {"a", "red", ",", "x"}
    ]
    for chunk in chunks:
        assert len(chunk.token_ids) == len(chunk.weights) <= CHUNK_TOKENS
        for use in chunk.embeddings:
            assert use.num_vectors == sizes[use.key]
            assert set(chunk.token_ids[use.start : use.start + use.num_vectors]) == {PLACEHOLDER_ID}
            assert use.start + use.num_vectors <= len(chunk.token_ids)


def test_a_textual_inversion_without_room_moves_to_the_next_chunk(tokenizer: ClipTokenizer) -> None:
    first, second = chunk_prompt(parse_prompt("a " * 74 + "easynegative a"), tokenizer, NAMES)
    assert (len(first.token_ids), len(second.token_ids)) == (74, 3)
    assert second.embeddings == (EmbeddingUse(0, "easy", 2),)


def test_a_folder_without_a_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="vocabulary"):
        ClipTokenizer(tmp_path)

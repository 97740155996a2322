import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from webui.training.starter.captions import caption
from webui.training.starter.compose import Choices, sample_layout
from webui.training.starter.networks import MAX_TOKENS
from webui.training.starter.tokenizer import WORD_END, encode, training_lines, write_tokenizer
from webui.training.starter.variants import sprite_keys

# Letters that Python's and the tokenizer's Unicode tables may know in different versions are left out.
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cn", "Co", "Cc", "Cs", "Zs", "Zl", "Zp")) | st.just(" ")
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"), training_lines())


def _byte_of() -> dict[str, int]:
    """CLIP's and GPT-2's letter for each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + position): byte for position, byte in enumerate(others)}


def _text_of(tokens: list[str]) -> str:
    letters = "".join(token.removesuffix(WORD_END) for token in tokens)
    return bytes(_byte_of()[letter] for letter in letters).decode()


@given(text=TEXT)
def test_any_text_survives_up_to_case_and_spaces(tokenizer: CLIPTokenizer, text: str) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
    expected = "".join(letter.lower() for letter in unicodedata.normalize("NFC", text)).replace(" ", "")
    assert _text_of(tokens) == expected


def test_rows_are_77_tokens_framed_and_padded_with_the_end_token(tokenizer: CLIPTokenizer) -> None:
    rows = encode(tokenizer, ["", "a man", "dog " * 200])
    assert rows.shape == (3, MAX_TOKENS)
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    assert (rows[:, -1] == tokenizer.eos_token_id).all()
    assert (rows[0, 1:] == tokenizer.eos_token_id).all()


def test_every_word_of_a_caption_is_one_token(tokenizer: CLIPTokenizer) -> None:
    choices = Choices.of(sprite_keys())
    for seed in range(200):
        rng = np.random.default_rng(seed)
        text = caption(sample_layout(rng, choices), rng)
        words = text.replace(",", " , ").replace("3d", "3 d").replace("-", " - ").split()
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == len(words), text


def test_writing_twice_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_tokenizer(tmp_path / name, training_lines())
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

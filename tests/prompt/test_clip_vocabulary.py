"""The vocabulary that ships with the program gives CLIP's published token ids."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

import webui.library
from webui.prompt.tokenizer import ClipTokenizer

FOLDER = Path(webui.library.__file__).parent / "clip"


@pytest.fixture(scope="module")
def shipped() -> ClipTokenizer:
    return ClipTokenizer(FOLDER)


@pytest.fixture(scope="module")
def reference(shipped: ClipTokenizer, tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """transformers' tokenizer on the same merges, with the vocabulary written out as CLIP's releases have it."""
    lines = (FOLDER / "merges.txt").read_text("utf-8").splitlines()[1:]
    byte = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in byte] + [chr(256 + n) for n in range(68)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(line.split()) for line in lines)]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "merges.txt").write_bytes((FOLDER / "merges.txt").read_bytes())
    words = [*tokens, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(words)}))
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("hello world!", [3306, 1002, 256]),
        ("A photograph of an astronaut riding a horse", [320, 8853, 539, 550, 18376, 6765, 320, 4558]),
        ("", []),
    ],
)
def test_known_prompts_have_their_published_ids(text: str, ids: list[int], shipped: ClipTokenizer) -> None:
    assert shipped.encode(text) == ids


def test_marks_are_the_last_of_49408_tokens(shipped: ClipTokenizer) -> None:
    assert (shipped.start_id, shipped.end_id, shipped.comma_id) == (49406, 49407, 267)


@given(text=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60))
def test_any_text_has_the_ids_that_transformers_gives(
    text: str, shipped: ClipTokenizer, reference: CLIPTokenizer
) -> None:
    assert shipped.encode(text) == reference(text, add_special_tokens=False)["input_ids"]

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.training.config import Data
from webui.training.data.captions import (
    base_caption,
    caption_of,
    class_caption,
    prefixed,
    read_caption,
    replaced,
    tag_counts,
    tags_of,
    with_trigger,
    without_tag,
    write_caption,
)

TAGS = ["ohwx", "red hat", "smiling", "beach", "dog"]
CAPTION = ", ".join(TAGS)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)
tag_lists = st.lists(words, min_size=1, max_size=8, unique=True)


def data(**more: object) -> Data:
    return Data.model_validate({"photos": Path("photos"), "caption_dropout": 0.0, **more})


def test_placeholders_are_filled_in() -> None:
    told = data(trigger="ohwx", class_word="dog", caption="a drawing of {trigger}, a {class}")
    assert base_caption(None, told, "object") == "a drawing of ohwx, a dog"
    assert class_caption(None, told, "object") == "a drawing of, a dog"


def test_a_photo_without_a_caption_is_called_by_trigger_and_class() -> None:
    told = data(trigger="ohwx", class_word="person")
    assert base_caption(None, told, "person") == "photo of ohwx person"
    assert class_caption(None, told, "person") == "photo of person"
    assert base_caption(None, data(), "person") == ""


def test_a_photo_of_a_style_is_called_by_it() -> None:
    assert base_caption(None, data(trigger="inkwash"), "style") == "picture in the style of inkwash"
    assert class_caption(None, data(trigger="inkwash"), "style") == "picture"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog on a beach", "a ohwx dog on a beach"),
        ("dogs on a beach", "ohwx, dogs on a beach"),
        ("Dog, Dog house", "ohwx Dog, Dog house"),
        ("ohwx at night", "ohwx at night"),
        ("OHWX at night", "OHWX at night"),
        ("", "ohwx"),
    ],
)
def test_the_trigger_gets_into_each_caption_once(caption: str, expected: str) -> None:
    assert with_trigger(caption, "ohwx", "dog") == expected


def test_the_caption_of_a_class_picture_has_no_trigger() -> None:
    told = data(trigger="ohwx", class_word="dog")
    assert class_caption("ohwx dog on a beach", told, "object") == "dog on a beach"
    assert class_caption("ohwx, a dog", told, "object") == "a dog"


def test_captions_are_left_out_as_often_as_asked_for() -> None:
    told = data(caption_dropout=0.25)
    empty = sum(caption_of(CAPTION, told, seed=3, sample=i) == "" for i in range(4000))
    assert 0.22 < empty / 4000 < 0.28


def test_each_tag_is_left_out_as_often_as_asked_for_and_kept_ones_never() -> None:
    told = data(tag_dropout=0.4, keep_tags=2)
    seen = Counter(tag for i in range(3000) for tag in tags_of(caption_of(CAPTION, told, seed=1, sample=i)))
    assert seen["ohwx"] == seen["red hat"] == 3000
    assert all(0.56 < seen[tag] / 3000 < 0.64 for tag in TAGS[2:])


def test_shuffling_reaches_every_order_behind_the_kept_tags() -> None:
    told = data(shuffle_tags=True, keep_tags=2)
    orders = {tuple(tags_of(caption_of(CAPTION, told, seed=0, sample=i))) for i in range(200)}
    assert len(orders) == 6
    assert all(order[:2] == ("ohwx", "red hat") and set(order) == set(TAGS) for order in orders)


@given(tags=tag_lists, keep=st.integers(0, 8), seed=st.integers(0, 2**32 - 1), sample=st.integers(0, 10**6))
def test_a_caption_of_a_sample_is_always_the_same_and_made_of_its_tags(
    tags: list[str], keep: int, seed: int, sample: int
) -> None:
    told = data(shuffle_tags=True, tag_dropout=0.3, keep_tags=keep, caption_dropout=0.1)
    caption = caption_of(", ".join(tags), told, seed=seed, sample=sample)
    assert caption == caption_of(", ".join(tags), told, seed=seed, sample=sample)
    assert not caption or (tags_of(caption)[:keep] == tags[:keep] and set(tags_of(caption)) <= set(tags))


@given(tags=tag_lists)
def test_a_caption_is_left_as_it_is_written_where_nothing_is_asked_for(tags: list[str]) -> None:
    caption = "A sentence, with  its own  blanks; " + " ,".join(tags)
    assert caption_of(caption, data(), seed=0, sample=1) == caption


def test_tags_are_counted_once_a_caption_the_most_frequent_first() -> None:
    counts = tag_counts(["a, b, a", "b", None, "c, b"])
    assert list(counts.items()) == [("b", 3), ("a", 1), ("c", 1)]


def test_replacing_takes_whole_words_in_any_case() -> None:
    assert replaced("Man, woman, a man", "man", "person") == "person, woman, a person"
    assert replaced("man, woman", "man", "x", whole_words=False) == "x, wox"
    assert replaced("red hat, dog", "red hat", "") == "dog"
    assert replaced("cost", "cost", r"\1$") == r"\1$"
    assert replaced("a", "", "b") == "a"


def test_a_prefix_is_put_in_front_once() -> None:
    assert prefixed(prefixed("dog", "ohwx, "), "ohwx") == "ohwx, dog"
    assert prefixed("", "ohwx") == "ohwx"
    assert prefixed("ohwxy", "ohwx") == "ohwx, ohwxy"


def test_a_tag_is_taken_out_whole() -> None:
    assert without_tag("dog, Hat, hat rack", "hat") == "dog, hat rack"


@given(caption=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_a_caption_that_is_written_is_read_again(caption: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("captions")
    said = " ".join(caption.split()).strip(" ,")
    assert read_caption(write_caption(folder / "a.png", said)).replace(" ", "") == said.replace(" ", "") or ",," in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("café".encode(), "café"),
        (b"\xef\xbb\xbfhat\r\n", "hat"),
        ("café, hat".encode("utf-16"), "café, hat"),
        ("café".encode("cp1252"), "café"),
        (b"1girl\nsolo\n\nhat\n", "1girl, solo, hat"),
        (b"A dog.\nOn a beach.", "A dog. On a beach."),
        (b"", ""),
        (b"a\x00b", "ab"),
    ],
)
def test_captions_in_any_encoding_become_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_caption(tmp_path / "a.txt") == expected

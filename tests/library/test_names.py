"""Models are found by the names people give them, and every model has a name that finds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.library.names import Named, NameTable


def table(*entries: tuple[str, str]) -> NameTable[str]:
    return NameTable([Named(item=path, path=path, alias=alias) for path, alias in entries])


WORDS = st.text("abAB .-_é", min_size=1, max_size=6).filter(lambda word: word.strip() == word)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
ENTRIES = st.lists(st.tuples(PATHS, st.just("") | WORDS), unique_by=lambda entry: entry[0], max_size=12)


@given(ENTRIES)
def test_every_model_is_found_by_its_own_name_and_by_its_path(entries: list[tuple[str, str]]) -> None:
    names = table(*entries)
    for path, _ in entries:
        assert names.find(path) == path
        assert names.find(names.name_of(path)) == path
        assert names.find(f"{path}.safetensors") == path


@given(ENTRIES, st.data())
def test_what_a_name_finds_bears_it(entries: list[tuple[str, str]], data: st.DataObject) -> None:
    names = table(*entries)
    known = [word for path, alias in entries for word in (path, path.rpartition("/")[2], alias) if word]
    wanted = data.draw(st.sampled_from(known) if known else WORDS)
    found = names.find(wanted)
    aliases = dict(entries)
    if known:
        assert found is not None
        own = {found, found.rpartition("/")[2], aliases[found]}
        assert wanted in own


@given(ENTRIES, WORDS)
def test_an_unknown_name_finds_nothing_but_brings_names_that_exist(entries: list[tuple[str, str]], name: str) -> None:
    names = table(*entries)
    assert names.find(f"{name}?") is None
    assert all(names.find(match) is not None for match in names.close_matches(f"{name}?"))
    assert bool(names.close_matches(name)) == bool(entries)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("ink", "ink"),  # the file name before the alias of another
        ("styles/ink", "styles/ink"),
        ("styles\\ink", "styles/ink"),
        ("wash", "styles/wash"),
        ("washed", "styles/wash"),
        ("WASH", "styles/wash"),
        ("Washed", "styles/wash"),
        ("wash.safetensors", "styles/wash"),
        (" wash ", "styles/wash"),
        ("v1.5", "v1.5"),
        ("nothing", None),
    ],
)
def test_names_are_looked_up_in_order(asked: str, found: str | None) -> None:
    names = table(("styles/ink", ""), ("ink", ""), ("styles/wash", "washed"), ("other", "ink"), ("v1.5", ""))
    assert names.find(asked) == found


def test_exact_case_counts_before_any_case() -> None:
    names = table(("Ink", ""), ("ink", ""))
    assert (names.find("ink"), names.find("Ink"), names.find("INK")) == ("ink", "Ink", "Ink")


def test_close_matches_look_like_the_name() -> None:
    names = table(("styles/ink-wash", ""), ("zebra", ""), ("portrait", ""))
    assert names.close_matches("inkwash") == ["ink-wash"]
    assert names.close_matches("sub/Ink-Wahs.safetensors")[0] == "ink-wash"

"""Names from the network become names that any system takes, and never leave their folder."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidRequest
from webui.library.downloads import placing
from webui.library.downloads.placing import file_name, place_file, safe_name

FORBIDDEN = set('<>:"/\\|?*') | {chr(code) for code in range(32)}


@given(st.text(max_size=400))
def test_any_text_becomes_one_plain_file_name(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode()) <= 204
    assert not FORBIDDEN & set(name)
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert Path(name).name == name
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\Windows\\x.safetensors", "C__Windows_x.safetensors"),
        ("CON", "_CON"),
        ("nul.safetensors", "_nul.safetensors"),
        ("com1.tar.safetensors", "_com1.tar.safetensors"),
        (".hidden", "hidden"),
        ("a\u202ecod.exe", "a_cod.exe"),
        ("", "_"),
        ("...", "_"),
        ("Stil – Ö.safetensors", "Stil – Ö.safetensors"),
    ],
)
def test_tricky_names(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text(max_size=100), st.text(max_size=100), st.booleans())
def test_a_file_name_ends_with_what_the_file_is(wanted: str, announced: str, is_safetensors: bool) -> None:
    name = file_name(wanted, announced, is_safetensors=is_safetensors)
    assert name.endswith(".safetensors") is is_safetensors
    assert is_safetensors or Path(name).suffix.lower() in placing.PICKLE_SUFFIXES
    assert Path(name).name == name


def test_a_name_is_taken_only_once_even_where_links_are_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for body, expected in ((b"one", True), (b"one", False)):
        part = tmp_path / "x.part"
        part.write_bytes(body)
        sha256 = placing._sha256(part)
        assert place_file(part, tmp_path / "to" / "x.safetensors", sha256) is expected
        assert not part.exists()
    part.write_bytes(b"two")
    with pytest.raises(InvalidRequest, match="another"):
        place_file(part, tmp_path / "to" / "x.safetensors", placing._sha256(part))
    assert part.exists()
    assert (tmp_path / "to" / "x.safetensors").read_bytes() == b"one"


def test_a_card_of_the_users_own_stays(tmp_path: Path) -> None:
    model, sidecar = tmp_path / "x.safetensors", tmp_path / "x.json"
    model.write_bytes(b"")
    sidecar.write_text('{"notes": "mine"}')
    placing.write_card(model, {"notes": "theirs"})
    assert "mine" in sidecar.read_text()

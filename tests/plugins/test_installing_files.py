"""Files that are offered as an extension: what comes out of a folder or a zip, and what is refused whole."""

import contextlib
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.offers import link_entry, write_zip
from webui.errors import ExtensionError
from webui.plugins import installing_files
from webui.plugins.installing_files import copy_folder, digest_of, files_of, unpack


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_zip_comes_out_as_it_went_in(tmp_path: Path) -> None:
    content = {"extension.toml": "x", "a/b.py": b"\x00\xff" * 5000, "empty.txt": ""}
    unpack(write_zip(tmp_path / "x.zip", content), tmp_path / "out")
    assert names_in(tmp_path / "out") == set(content)
    assert (tmp_path / "out" / "a" / "b.py").read_bytes() == content["a/b.py"]
    assert dict(files_of(tmp_path / "out"))["a/b.py"] == 10_000


def test_a_folder_around_everything_is_left_out(tmp_path: Path) -> None:
    content = {"film-main/extension.toml": "x", "film-main/a/b.py": "y", "__MACOSX/film-main/._a": "z"}
    unpack(write_zip(tmp_path / "x.zip", content), tmp_path / "out")
    assert names_in(tmp_path / "out") == {"extension.toml", "a/b.py"}


def test_compiled_files_and_repositories_stay_behind(tmp_path: Path) -> None:
    content = {"extension.toml": "x", "__pycache__/a.pyc": "y", "sub/.git/config": "z", ".git/hooks/pre-commit": "z"}
    unpack(write_zip(tmp_path / "x.zip", content), tmp_path / "out")
    assert names_in(tmp_path / "out") == {"extension.toml"}
    source = tmp_path / "source"
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        archive.extractall(source)
    copy_folder(source, tmp_path / "copy")
    assert names_in(tmp_path / "copy") == {"extension.toml"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "a/../../evil.py",
        "/evil.py",
        "C:/evil.py",
        "c:evil.py",
        "a\\..\\evil.py",
        "nul.txt",
        "a/COM1",
        "ends.",
        "a /b.py",
        "what?.py",
        "x" * 300,
    ],
)
def test_a_name_that_could_lie_elsewhere_is_refused_with_the_whole_zip(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("extension.toml", "x")
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name
        opened.writestr(entry, "x")
    with pytest.raises(ExtensionError):
        unpack(archive, tmp_path / "in" / "out")
    assert names_in(tmp_path) == {"x.zip"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="abA./\\: \0", min_size=1, max_size=9), min_size=1, max_size=4))
def test_whatever_the_names_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for name in dict.fromkeys(names):
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name.replace("\0", "") or "x"
            archive.writestr(entry, "x")
    with contextlib.suppress(ExtensionError):
        unpack(folder / "x.zip", folder / "in" / "out")
    outside = [path for path in folder.rglob("*") if path.is_file() and (folder / "in" / "out") not in path.parents]
    assert outside == [folder / "x.zip"]


def test_links_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("extension.toml", "x")
        archive.writestr(link_entry("secrets"), "/etc")
    with pytest.raises(ExtensionError, match="'secrets' is a link"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    source = tmp_path / "source"
    source.mkdir()
    (source / "secrets").symlink_to(tmp_path)
    with pytest.raises(ExtensionError, match="'secrets' is a link"):
        copy_folder(source, tmp_path / "copy")


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "pipe")
    with pytest.raises(ExtensionError, match="neither a file nor a folder"):
        copy_folder(tmp_path / "source", tmp_path / "copy")


def test_too_much_is_refused_by_what_comes_out_and_not_by_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing_files, "MAX_BYTES", 1_000_000)
    bomb = write_zip(tmp_path / "x.zip", {"extension.toml": "x", "zeros": bytes(30_000_000)})
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ExtensionError, match="more than 1 MB"):
        unpack(bomb, tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 1_000_000
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "zeros").write_bytes(bytes(1_000_001))
    with pytest.raises(ExtensionError, match="more than 1 MB"):
        copy_folder(tmp_path / "source", tmp_path / "copy")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing_files, "MAX_FILES", 20)
    with pytest.raises(ExtensionError, match="more than 20 files"):
        unpack(write_zip(tmp_path / "x.zip", {f"{number}.py": "" for number in range(21)}), tmp_path / "out")


def test_two_files_that_some_disks_take_for_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtensionError, match=r"'A\.py' twice"):
        unpack(write_zip(tmp_path / "x.zip", {"a.py": "1", "A.py": "2"}), tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"no zip at all", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_zip_is_said_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ExtensionError, match="The zip file cannot be unpacked"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_a_damaged_zip_is_said_in_one_sentence(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a.py": os.urandom(4000)})
    data = bytearray(archive.read_bytes())
    data[1000] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(ExtensionError, match="The zip file cannot be unpacked"):
        unpack(archive, tmp_path / "out")


def test_a_digest_tells_folders_apart_by_names_and_bytes(tmp_path: Path) -> None:
    digests = set()
    for number, content in enumerate(({"a": "1"}, {"b": "1"}, {"a": "2"}, {"a": "1", "b": ""})):
        unpack(write_zip(tmp_path / "x.zip", content), tmp_path / str(number))
        digests.add(digest_of(tmp_path / str(number)))
    unpack(write_zip(tmp_path / "x.zip", {"a": "1", "__pycache__/a.pyc": "x"}), tmp_path / "again")
    assert len(digests) == 4
    assert digest_of(tmp_path / "again") in digests

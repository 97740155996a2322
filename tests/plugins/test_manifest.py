"""What extension.toml may say, and the one sentence that tells what is wrong with it."""

import re
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import webui
from webui.cli import command_table
from webui.errors import ExtensionError
from webui.plugins.command_names import command_names
from webui.plugins.manifest import TAKEN_COMMANDS, Manifest, ModelFile, check_compatible, read_manifest
from webui.settings import CHECKOUT

WHOLE = """
id = "grain"
title = "Film grain"
version = "1.2.0"
description = "Grain, as film has it."
requires-atelier = ">=0.1,<2"
dependencies = ["numpy>=2", "nothing-of-this-name; python_version < '3'"]

[commands]
grain = "put grain on a picture"

[[models]]
file = "face/thing.onnx"
url = "https://example.com/things.zip"
member = "a/b.onnx"
bytes = [16, 4096]
sha256 = "{sha256}"
size_bytes = 4080
licence = "MIT"
licence_url = "https://example.com/licence"
non_commercial = true
""".replace("{sha256}", "0123456789abcdef" * 4)


def write(folder: Path, text: str) -> Path:
    extension = folder / "grain"
    extension.mkdir()
    (extension / "extension.toml").write_text(text)
    return extension


def mistake(folder: Path, text: str) -> str:
    with pytest.raises(ExtensionError) as caught:
        read_manifest(write(folder, text))
    return str(caught.value)


def test_a_whole_manifest_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, WHOLE))
    assert (manifest.id, manifest.title, manifest.version) == ("grain", "Film grain", "1.2.0")
    assert dict(manifest.commands) == {"grain": "put grain on a picture"}
    (model,) = manifest.models
    assert (model.file, model.member, model.bytes) == ("face/thing.onnx", "a/b.onnx", (16, 4096))
    assert model.non_commercial
    assert not model.shipped
    check_compatible(manifest)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('id = "grain"', 'id = "other"', "'other'"),
        ('id = "grain"', 'id = "Grain"', "id"),
        ('title = "Film grain"', "", "title"),
        ('"1.2.0"', '"one"', "version"),
        ('">=0.1,<2"', '"new"', "requires-atelier"),
        ('"numpy>=2"', '"numpy 2 or so"', "dependencies.0"),
        ('description = "', 'descripton = "', "descripton"),
        ('grain = "put', 'serve = "put', "'serve'"),
        ('"face/thing.onnx"', '"../thing.onnx"', "models.0.file"),
        ('"face/thing.onnx"', '"/thing.onnx"', "models.0.file"),
        ('"face/thing.onnx"', "'C:\\thing.onnx'", "models.0.file"),
        ('"https://example.com/things.zip"', '"file:///etc/passwd"', "models.0.url"),
        ("0123", "wxyz", "models.0.sha256"),
        ("size_bytes = 4080", "", "models.0.size_bytes"),
        ("[commands]", "[commands", "not TOML"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_with_its_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in WHOLE
    sentence = mistake(tmp_path, WHOLE.replace(old, new, 1))
    assert told in sentence
    assert "\n" not in sentence


def test_a_folder_without_a_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExtensionError, match=re.escape("It has no extension.toml.")):
        read_manifest(tmp_path)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "extension.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExtensionError, match="not TOML"):
        read_manifest(tmp_path)


def test_brackets_without_end_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path, "models = " + "[" * 100_000)
    with pytest.raises(ExtensionError, match="not TOML"):
        read_manifest(folder)
    assert command_names([tmp_path], folder / "extension.toml") == {}


@given(st.text(alphabet=st.sampled_from("ab./\\:C*\0 \n"), max_size=12))
def test_a_model_file_never_leaves_the_folder_it_is_put_in(path: str) -> None:
    values = {
        "file": path, "url": "https://example.com/x", "sha256": "0" * 64, "size_bytes": 1, "licence": "MIT",
    }  # fmt: skip
    try:
        model = ModelFile.model_validate(values)
    except ValidationError:
        return
    base = CHECKOUT / "models"
    assert (base / model.file).resolve() != base
    assert (base / model.file).resolve().is_relative_to(base)
    windows = PureWindowsPath(r"C:\models") / model.file
    assert windows.is_relative_to(r"C:\models")
    assert ".." not in windows.parts


@given(st.one_of(st.binary(max_size=60), st.text(alphabet='id="[]{}.,\n1 -', max_size=60).map(str.encode)))
def test_whatever_a_manifest_holds_it_is_read_or_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "extension.toml").write_bytes(content)
        with pytest.raises(ExtensionError) as caught:
            read_manifest(Path(folder))
    assert str(caught.value).startswith("Its extension.toml is not ")


def manifest(**changes: object) -> Manifest:
    values = {"id": "grain", "title": "Grain", "version": "1", "requires-atelier": ">=0"}
    return Manifest.model_validate(values | changes)


def test_another_version_of_the_program_is_named_with_this_one() -> None:
    with pytest.raises(ExtensionError, match=f"Atelier >=7, and this is {re.escape(webui.__version__)}"):
        check_compatible(manifest(**{"requires-atelier": ">=7"}))


def test_missing_packages_are_named_with_the_command_that_gets_them() -> None:
    with pytest.raises(ExtensionError) as caught:
        check_compatible(manifest(dependencies=["numpy>=2", "no-such-package-here>=3", "pillow>=9999"]))
    assert "no-such-package-here>=3 (not installed)" in caught.value.message
    assert re.search(r"pillow>=9999 \([\d.]+ is installed\)", caught.value.message)
    assert 'pip install "no-such-package-here>=3" "pillow>=9999"' in caught.value.hint


def test_no_extension_can_take_a_command_of_the_program() -> None:
    assert {*command_table(), "test"} == TAKEN_COMMANDS

"""What extension.toml may say, and the one sentence that tells what is wrong with it."""

import re
from pathlib import Path

import pytest

import webui
from webui.cli import command_table
from webui.errors import ExtensionError
from webui.plugins.manifest import TAKEN_COMMANDS, Manifest, check_compatible, read_manifest

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

"""Readers of faces that extensions give: the first is taken, and what is wrong with one is told and stops nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.extension_files import load_host, settings_for, write_extension
from webui.errors import ExtensionError
from webui.plugins.host import PluginHost
from webui.plugins.training import faces_for_training

PIXELS = np.zeros((8, 8, 3), np.uint8)


def reading(answer: str, *, same_person: str = "0.4") -> str:
    """An extension whose reader's answer is `answer`."""
    return f"""\
import numpy as np

class Reader:
    same_person = {same_person}
    def read(self, pixels):
        return {answer}

@hookimpl
def face_reader():
    return Reader()
"""


ONE_FACE = reading("[SeenFace(box=(1.0, 2.0, 3.0, 4.0), embedding=None)]")
NONE = "@hookimpl\ndef face_reader(context):\n    return None\n"
RAISES = "@hookimpl\ndef face_reader():\n    raise OSError('the network is torn')\n"


def problems(host: PluginHost, id: str) -> str:
    return " ".join(host.extension(id).problems)


def test_the_first_extension_that_has_a_reader_gives_it(tmp_path: Path) -> None:
    for id, code in (("a", NONE), ("b", ONE_FACE), ("c", reading("[]"))):
        write_extension(tmp_path / "extensions", id, code)
    host = load_host(tmp_path)
    reader = host.face_reader()
    assert reader is not None
    assert reader.same_person == 0.4
    assert [face.box for face in reader.read(PIXELS)] == [(1.0, 2.0, 3.0, 4.0)]
    host.disable("b")
    reader = host.face_reader()
    assert reader is not None and list(reader.read(PIXELS)) == []
    host.disable("c")
    assert host.face_reader() is None
    assert host.why_no_faces() == "No extension that is switched on reads faces."


def test_one_that_raises_is_named_and_the_next_is_asked(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "a", RAISES)
    write_extension(tmp_path / "extensions", "b", ONE_FACE)
    host = load_host(tmp_path)
    assert host.face_reader() is not None
    assert "the network is torn" in problems(host, "a")
    assert host.extension("a").state == "on", "all else of it goes on"
    host.disable("b")
    assert host.face_reader() is None
    assert "A: " in host.why_no_faces() and "the network is torn" in host.why_no_faces()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("None", "no list of SeenFace"),
        ("[(1, 2, 3, 4)]", "no list of SeenFace"),
        ("[SeenFace(box=(0, 0, 1, 1), embedding=np.full(3, np.nan))]", "no row of numbers"),
        ("(_ for _ in ()).throw(SystemExit(3))", "SystemExit"),
    ],
)
def test_a_reader_that_fails_is_off_until_it_is_enabled_again(tmp_path: Path, answer: str, told: str) -> None:
    write_extension(tmp_path / "extensions", "a", reading(answer))
    host = load_host(tmp_path)
    reader = host.face_reader()
    assert reader is not None
    with pytest.raises(ExtensionError, match=told):
        reader.read(PIXELS)
    assert host.face_reader() is None
    assert told in problems(host, "a")
    host.enable("a")
    assert host.face_reader() is not None


def test_a_limit_that_is_no_number_is_a_fault(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "a", reading("[]", same_person="'high'"))
    host = load_host(tmp_path)
    assert host.face_reader() is None
    assert "could not convert" in problems(host, "a")


def test_training_goes_on_without_a_reader_that_fails_and_hears_of_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "extensions"
    write_extension(folder, "a", reading("1 / 0"))
    monkeypatch.setattr("webui.plugins.host.extension_folders", lambda settings: (folder,))
    told: list[str] = []
    with faces_for_training(settings_for(tmp_path), told.append) as faces:
        assert faces is not None and told == []
        assert [list(faces.read(PIXELS)) for _ in range(3)] == [[], [], []]
    (warning,) = told
    assert warning.startswith("Faces cannot be read: ZeroDivisionError")


@pytest.mark.parametrize(
    ("code", "why"), [(RAISES, "the network is torn"), ("import no_such_module", "no_such_module")]
)
def test_training_is_told_why_there_is_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    folder = tmp_path / "extensions"
    write_extension(folder, "a", code)
    monkeypatch.setattr("webui.plugins.host.extension_folders", lambda settings: (folder,))
    told: list[str] = []
    with faces_for_training(settings_for(tmp_path), told.append) as faces:
        assert faces is None
    (warning,) = told
    assert warning.startswith("Faces cannot be read: A: ") and why in warning
    told.clear()
    with faces_for_training(settings_for(tmp_path, extensions=False), told.append) as faces:
        assert faces is None
    assert "switched off" in told[0]

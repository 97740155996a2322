"""Whatever lies in the folders of models, the lists are made: a file that cannot be understood is one line in them."""

import base64
import json
import logging
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.library_files import write_lora
from tests.model_files import write_folder
from webui.library import cards, entries
from webui.library.catalog import Library
from webui.library.entries import look_into
from webui.library.scan import ROOMS, RoomKind

Write = Callable[[Path], object]


def zipped(path: Path, content: bytes, *, encrypted: bool = False, damaged: bool = False) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if damaged else zipfile.ZIP_STORED) as archive:
        archive.writestr("model/data.pkl", content)
    data = bytearray(path.read_bytes())
    if encrypted:
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    if damaged:
        begin = 30 + len("model/data.pkl")
        data[begin : begin + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)


def tensor_of(*size: int) -> bytes:
    """A pickle of {"a": a tensor of this size}."""
    storage = b"(" + b"".join(pickle.dumps(part, 2)[2:-1] for part in ("storage",))
    storage += b"ctorch\nFloatStorage\n" + b"".join(pickle.dumps(part, 2)[2:-1] for part in ("0", "cpu", 1)) + b"tQ"
    arguments = b"(" + storage + pickle.dumps(0, 2)[2:-1] + pickle.dumps(size, 2)[2:-1] + b"t"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def picture(path: Path, text: str, *, packed: bool = False) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", text, zip=packed)
    Image.new("RGB", (8, 8), "red").save(path, "PNG", pnginfo=info)


def card_of(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


FILES: dict[str, tuple[RoomKind, str, Write]] = {
    "an encrypted archive": ("checkpoint", "x.ckpt", lambda path: zipped(path, pickle.dumps({}, 2), encrypted=True)),
    "a damaged stream": ("checkpoint", "x.ckpt", lambda path: zipped(path, b"x" * 999, damaged=True)),
    "a shape of long numbers": ("checkpoint", "x.ckpt", lambda path: zipped(path, tensor_of(10**5000, 10**5000))),
    "a key of 5,000 digits": ("embedding", "x.pt", lambda path: zipped(path, pickle.dumps({10**5000: {1: 2}}, 2))),
    "a tensor under a long key": (
        "embedding", "x.pt", lambda path: zipped(path, tensor_of(4).replace(b"X\x01\x00\x00\x00a",
                                                                        pickle.dumps(10**5000, 2)[2:-1]))),
    "a long text in a picture": ("embedding", "x.png", lambda path: picture(path, "a" * 3_000_000, packed=True)),
    "a card with no tensor": (
        "embedding", "x.png", lambda path: picture(path, card_of('{"TORCHTENSOR": {"a": 1}}'))),
    "a card with a long number": (
        "embedding", "x.png", lambda path: picture(path, card_of(f'{{"TORCHTENSOR": [{"9" * 400}]}}'))),
    "a card that is a list": ("embedding", "x.png", lambda path: picture(path, card_of("[1]"))),
    "a picture that is cut off": (
        "embedding", "x.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + zlib.compress(b"x"))),
}  # fmt: skip


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library([tmp_path / "models"], tmp_path / "cache")
    yield library
    library.close()


def listed(library: Library) -> str:
    """All that the page is told, as it is sent."""
    files = [file for kind in ROOMS for file in library.files(kind)]
    told = [cards.card(file) | cards.details(file, library.checkpoint_of(file), None) for file in files]
    return json.dumps([told, [str(info) for info in library.checkpoints()]], ensure_ascii=False).encode().decode()


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_understood_is_one_line_of_the_list(
    case: str, library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, name, write = FILES[case]
    path = tmp_path / "models" / ROOMS[kind].folder / name
    path.parent.mkdir(parents=True)
    write(path)
    (file,) = library.files(kind) or [None]
    assert file is None or file.problem, "a picture without an embedding is a stray one and not listed"
    assert listed(library)
    assert not caplog.records, "what is foreseen is told by words of its own"


FOLDERS = {
    "channels without end": ("unet/config.json", '{"_class_name": "UNet2DConditionModel", "in_channels": Infinity}'),
    "a huge picture": ("atelier.json", '{"native_size": 1e300}'),
    "a size of 4,000 digits": ("atelier.json", f'{{"native_size": {"9" * 4000}}}'),
    "a scale without end": ("atelier.json", '{"guidance_scale": 1e999}'),
    "half a character": ("atelier.json", '{"title": "\\ud800"}'),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_with_impossible_numbers_is_one_line_of_the_list(
    case: str, library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, text = FOLDERS[case]
    folder = tmp_path / "models" / "checkpoints" / "x"
    write_folder(folder)
    (folder / name).write_text(text, encoding="utf-8")
    (info,) = library.checkpoints()
    assert "description cannot be read" in info.problem
    assert listed(library)
    assert not caplog.records


NOTES = [
    '{"preferred weight": %s}' % ("9" * 400),
    '{"notes": "\\ud800"}',
    '{"preferred weight": Infinity}',
    "[" * 10**5,
]


@pytest.mark.parametrize("notes", NOTES)
def test_notes_that_cannot_be_understood_add_nothing(notes: str, library: Library, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "models" / "loras" / "ink.safetensors")
    path.with_suffix(".json").write_text(notes, encoding="utf-8")
    (file,) = library.adapters()
    assert (file.problem, file.notes) == ("", entries.NOTHING_BESIDE)
    assert listed(library)


def test_words_of_the_training_that_are_half_characters_do_not_stop_the_list(library: Library, tmp_path: Path) -> None:
    notes = '{"a": {"\\ud800": 3, "ink": %s}}' % ("9" * 400)
    write_lora(tmp_path / "models" / "loras" / "ink.safetensors", ss_tag_frequency=notes, ss_dataset_dirs=notes)
    assert listed(library)


def test_a_name_that_is_no_unicode_is_left_out_and_logged_once(
    library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_lora(tmp_path / "models" / "loras" / "ink.safetensors")
    bad = os.fsencode(good.parent) + b"/\xff.safetensors"
    try:
        os.link(good, bad)
    except OSError:  # a disk that takes Unicode only
        return
    for _ in range(2):
        library.refresh()
        assert [file.name for file in library.adapters()] == ["ink"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_nobody_has_thought_of_is_logged_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by none")

    monkeypatch.setattr(entries, "read_header", fail)
    known = look_into(write_lora(tmp_path / "ink.safetensors"))
    assert known.facts.problems == ("it cannot be understood (by none)",)
    assert "ZeroDivisionError" in caplog.text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CONFIG_KEYS = ("_class_name", "in_channels", "cross_attention_dim", "block_out_channels", "sample_size",
               "projection_class_embeddings_input_dim", "addition_embed_type", "time_cond_proj_dim", "native_size",
               "guidance_scale", "title", "prediction_type", "unet")  # fmt: skip


@given(
    config=st.dictionaries(st.sampled_from(CONFIG_KEYS), VALUES),
    own=st.dictionaries(st.sampled_from(CONFIG_KEYS), VALUES),
    torn=st.binary(max_size=40),
    name=st.sampled_from(["x.safetensors", "x.pt", "x.png", "x.webp", "x.ckpt"]),
    magic=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x89PNG\r\n\x1a\n", b"\x02\0\0\0\0\0\0\0{"]),
)
def test_looking_never_raises(
    config: dict[str, object],
    own: dict[str, object],
    torn: bytes,
    name: str,
    magic: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    base = tmp_path_factory.getbasetemp() / "any"
    (base / "unet").mkdir(parents=True, exist_ok=True)
    (base / "model_index.json").write_text('{"unet": []}')
    (base / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"} | config))
    (base / "atelier.json").write_text(json.dumps(own))
    (base / name).write_bytes(magic + torn)
    for path in (base, base / name):
        problems = look_into(path).facts.problems
        assert problems
        assert "cannot be understood" not in problems[0]

"""Whatever lies in a models folder under the name of a model: a sentence says what it is, and nothing is raised."""

import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from tests.model_files import sizes_of, text_shapes, unet_shapes, vae_shapes, write_original_layout, write_sparse
from webui.errors import UnsupportedModel
from webui.library import header
from webui.library.header import read_header
from webui.library.identify import identify


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def nested(path: Path) -> Path:
    return with_header(path, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


def truncated(path: Path, keep: Callable[[int], int]) -> Path:
    write_original_layout(path, small=False)
    os.truncate(path, keep(path.stat().st_size))
    return path


def picture(path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(path, format="PNG")
    return path


def archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model.safetensors", b"weights")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def mixed_text_encoders(path: Path) -> Path:
    shapes = {f"{UNET}{name}": shape for name, shape in unet_shapes(sizes_of("sd15", small=False)).items()}
    return write_sparse(path, shapes | text_shapes(sizes_of("sd15", small=False)) | text_shapes(sizes_of("sdxl")))


def wrong_text_encoder(path: Path) -> Path:
    shapes = {f"{UNET}{name}": shape for name, shape in unet_shapes(sizes_of("sdxl", small=False)).items()}
    return write_sparse(path, shapes | text_shapes(sizes_of("sd15", small=False)))


def unet_without(path: Path, part: str) -> Path:
    shapes = {name: shape for name, shape in unet_shapes(sizes_of("sd15", small=False)).items() if part not in name}
    return write_sparse(path, {f"{UNET}{name}": shape for name, shape in shapes.items()})


def one_row(path: Path, **shapes: tuple[int, ...]) -> Path:
    return write_sparse(path, {name.replace("__", "."): shape for name, shape in shapes.items()})


def latents_of_16(path: Path) -> Path:
    return write_sparse(path, vae_shapes(sizes_of("sd15")) | {"decoder.conv_in.weight": (96, 16, 3, 3)})


UNET = "model.diffusion_model."
METADATA_ONLY = {"__metadata__": {"format": "pt"}}
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "a few bytes": (lambda path: path.write_bytes(b"abc"), "only 3 bytes"),
    "cut off inside its header": (lambda path: truncated(path, lambda size: 5000), "cut off inside its header"),
    "cut off inside its data": (lambda path: truncated(path, lambda size: size - 1), r"cut off: [\d,]+ of [\d,]+"),
    "bytes behind its data": (lambda path: with_header(path, {"a": tensor()}, b"12345678"), "4 bytes too many"),
    "an impossible length": (lambda path: path.write_bytes(struct.pack("<Q", 2**60) + b"{}"), "not a safetensors file"),
    "JSON garbage": (lambda path: with_header(path, b'{"a": '), "header is damaged"),
    "a list for a header": (lambda path: with_header(path, b'{"a": [1, 2]}'), "header is damaged"),
    "not UTF-8": (lambda path: with_header(path, b'{"\xff\xfe": 1}'), "header is damaged"),
    "an unknown type": (lambda path: with_header(path, {"a": tensor("F12")}, b"1234"), "unknown type 'F12'"),
    "a negative shape": (lambda path: with_header(path, {"a": tensor(shape=(-1, -1))}, b"1234"), "shape"),
    "a shape of fractions": (lambda path: with_header(path, {"a": tensor(shape=(0.5, 2))}, b"1234"), "shape"),
    "a shape of words": (lambda path: with_header(path, {"a": tensor(shape="12")}, b"1234"), "damaged"),
    "a shape of a thousand axes": (lambda path: with_header(path, {"a": tensor(shape=[1] * 1000)}, b"1234"), "shape"),
    "a shape whose product takes long": (
        lambda path: with_header(path, {"a": tensor(shape=[10**99] * 20_000)}, b"1234"), "shape of 20000 axes"),
    "an axis of more than any file": (
        lambda path: with_header(path, {"a": tensor(shape=[2**63, 0], offsets=(0, 0))}), "shape"),
    "offsets behind any file": (
        lambda path: with_header(path, {"a": tensor("U8", (2**63 - 1, 2), (0, 2**64 - 2))}), "does not fit"),
    "offsets against the shape": (lambda path: with_header(path, {"a": tensor(shape=(3,))}, b"1234"), "does not fit"),
    "negative offsets": (lambda path: with_header(path, {"a": tensor(offsets=(-4, 0))}), "does not fit"),
    "overlapping tensors": (
        lambda path: with_header(path, {"a": tensor(), "b": tensor(offsets=(2, 6))}, b"123456"), "overlap"),
    "holes between tensors": (
        lambda path: with_header(path, {"a": tensor(), "b": tensor(offsets=(8, 12))}, b"123456789012"), "holes"),
    "a name twice": (
        lambda path: with_header(path, b'{"a":%b,"a":%b}' % ((json.dumps(tensor()).encode(),) * 2), b"1234"), "twice"),
    "an entry without a shape": (lambda path: with_header(path, {"a": {"dtype": "F32"}}), "'shape' is missing"),
    "metadata that is not text": (lambda path: with_header(path, {"__metadata__": {"a": 1}}), "not all text"),
    "deeply nested JSON": (nested, "damaged"),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html><html>Please log in</html>"), "web page, not a model"),
    "a web page after blank lines": (lambda path: path.write_text("\n\n  <html>"), "web page, not a model"),
    "an answer of a server": (lambda path: path.write_text('{"error":"Unauthorized"}'), "message from a server"),
    "a git-lfs pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git-lfs pointer"),
    "a zip archive": (archive, "zip archive"),
    "a picture": (picture, "picture"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps({"a": list(range(100))})), "pickle"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), "never finished"),
    "a folder": (folder, "folder"),
    "no tensors": (lambda path: with_header(path, METADATA_ONLY), "no weights"),
    "tensors of nobody": (lambda path: one_row(path, a__b=(1,), c__d=(2,)), "no kind of model"),
    "half a U-Net": (lambda path: unet_without(path, "output_blocks"), "parts are missing"),
    "a U-Net without a middle": (lambda path: unet_without(path, "middle_block"), "parts are missing"),
    "a U-Net without some blocks": (lambda path: unet_without(path, "input_blocks.4."), "parts are missing"),
    "text encoders of two families": (mixed_text_encoders, "two families"),
    "the text encoder of another family": (wrong_text_encoder, "width 2048, but its text encoders give 768"),
    "an autoencoder for other latents": (latents_of_16, "16 channels"),
    "Flux": (lambda path: one_row(path, double_blocks__0__img_attn__qkv__weight=(9, 3)), "Flux"),
    "Stable Diffusion 3": (
        lambda path: write_sparse(path, {f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.bias": (4,)}),
        "Stable Diffusion 3"),
    "a ControlNet": (lambda path: one_row(path, control_model__time_embed__0__weight=(16, 3)), "ControlNet"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_usable_model_is_described(case: str, tmp_path: Path) -> None:
    write, sentence = BROKEN[case]
    path = tmp_path / "model.safetensors"
    write(path)
    facts = identify(path)
    assert facts.problems, "a file that cannot be used has a problem"
    assert re.search(sentence, facts.problems[0]), facts.problems[0]


def test_a_file_that_may_not_be_read_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_original_layout(tmp_path / "model.safetensors", small=False)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert identify(path).problems == ("it cannot be read (Permission denied)",)


def test_a_link_that_leads_nowhere_is_described(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.symlink_to(tmp_path / "gone.safetensors")
    assert "No such file" in identify(path).problems[0]


def test_a_huge_note_does_not_hide_what_the_file_is(tmp_path: Path) -> None:
    notes = {"ss_tag_frequency": json.dumps({"img": {f"tag {number}": number for number in range(100_000)}})}
    facts = identify(write_original_layout(tmp_path / "model.safetensors", small=False, metadata=notes))
    assert (facts.family, facts.problems) == ("sd15", ())


def test_safetensors_under_an_old_name_are_read(tmp_path: Path) -> None:
    assert identify(write_original_layout(tmp_path / "model.ckpt", small=False)).family == "sd15"


VALID = json.dumps(
    {"a": tensor(), "b.weight": tensor("F16", (2, 3), (4, 16)), "__metadata__": {"format": "pt"}}
).encode()


@given(
    edits=st.lists(st.tuples(st.integers(0, len(VALID) + 23), st.integers(0, 255)), max_size=4),
    length=st.integers(0, len(VALID) + 24),
)
def test_what_is_taken_opens_in_the_formats_own_reader(
    edits: list[tuple[int, int]], length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(struct.pack("<Q", len(VALID)) + VALID + bytes(16))
    for position, value in edits:
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content[:length] if length % 3 == 0 else content)
    identify(path)
    try:
        found = read_header(path)
    except UnsupportedModel:
        return
    with safe_open(path, framework="np") as opened:
        assert set(opened.keys()) == set(found.tensors)
        assert (opened.metadata() or {}) == found.metadata


def test_every_type_of_the_format_is_known() -> None:
    assert {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "U8", "BOOL"} <= set(header.BYTES_PER_VALUE)

"""Which of the user's files is what, by shapes alone, and what is wrong with the others."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from extensions.face_consistency.backends import catalog
from extensions.face_consistency.backends.catalog import FaceModel, MissingModel, Role, find_models, identify
from extensions.face_consistency.backends.onnx_file import NotReadable, read_graph, read_stored
from tests import onnx_files as files

NOTHING_FOUND = files.yolo_table([], num_labels=1)
KNOWN: list[tuple[Role, int | None, Callable[[Path], Path]]] = [
    ("detector", None, files.write_scrfd),
    ("detector", None, lambda path: files.write_scrfd(path, points=False)),
    ("detector", 320, lambda path: files.write_scrfd(path, side=320)),
    ("detector", None, lambda path: files.write_scrfd(path, batched=True)),
    ("embedder", 112, files.write_arcface),
    ("embedder", 160, lambda path: files.write_arcface(path, side=160)),
    ("gender_age", 96, files.write_gender_age),
    ("landmarks", 192, lambda path: files.write_row(path, side=192, length=212)),
    ("landmarks", 192, lambda path: files.write_row(path, side=192, length=3309)),
    ("sface", 112, lambda path: files.write_row(path, side=112, length=128)),
    ("yunet", 640, files.write_yunet),
    ("swapper", 128, files.write_swapper),
    ("swapper", 256, lambda path: files.write_swapper(path, side=256)),
    ("swapper", 512, lambda path: files.write_swapper(path, side=512, source_first=True, names=("a", "b", "c"))),
    ("restorer", 512, files.write_restorer),
    ("restorer", 256, lambda path: files.write_restorer(path, side=256)),
    ("restorer", 512, lambda path: files.write_restorer(path, weight="float", names=("x", "w"))),
    ("restorer", 512, lambda path: files.write_restorer(path, weight="double", weight_dims=())),
    ("restorer", 512, lambda path: files.write_restorer(path, weight="double", weight_first=True)),
    ("restorer", 512, lambda path: files.write_restorer(path, half=True)),
    ("objects", 640, lambda path: files.write_table(path, NOTHING_FOUND, labels=["face"])),
    ("objects", None, lambda path: files.write_table(path, NOTHING_FOUND, side=None)),
    ("objects", 320, lambda path: files.write_table(path, NOTHING_FOUND, side=None, notes={"imgsz": "[320, 320]"})),
    ("objects", 640, lambda path: files.write_table(path, np.zeros((300, 6)), labels=["face"])),
    ("objects", 640, lambda path: files.write_table(path, np.zeros((37, 64)), labels=["person"], mask_side=160)),
    ("safety", 320, lambda path: files.write_table(path, np.zeros((22, 64)), side=320)),
    ("safety", 320, lambda path: files.write_table(path, np.zeros((6, 64)), side=320, labels=["FACE", "X_EXPOSED"])),
]


@pytest.mark.parametrize(("role", "size_px", "write"), KNOWN)
def test_a_model_is_told_by_its_shapes(
    role: Role, size_px: int | None, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = identify(write(tmp_path / "some name.onnx"), "some name")
    assert (model.role, model.size_px, model.problem) == (role, size_px, "")


def test_a_pack_in_a_subfolder_and_a_file_beside_it_are_both_found(tmp_path: Path) -> None:
    files.write_insightface_pack(tmp_path / "face" / "buffalo_l")
    files.write_swapper(tmp_path / "face" / "inswapper_128.ONNX")
    (tmp_path / "face" / "README.md").write_text("# Face\n", "utf-8")
    found = find_models([tmp_path, tmp_path / "not there"])
    assert {entry.name: entry.role for entry in found.entries} == {
        "buffalo_l/2d106det": "landmarks",
        "buffalo_l/det_10g": "detector",
        "buffalo_l/genderage": "gender_age",
        "buffalo_l/w600k_r50": "embedder",
        "inswapper_128": "swapper",
    }
    assert not [entry.problem for entry in found.entries if entry.problem]


def test_the_first_folder_wins_where_names_are_equal(tmp_path: Path) -> None:
    files.write_restorer(tmp_path / "first" / "face" / "gfpgan.onnx", side=256)
    files.write_restorer(tmp_path / "second" / "face" / "gfpgan.onnx", side=512)
    found = find_models([tmp_path / "first", tmp_path / "second"])
    assert [entry.size_px for entry in found.entries] == [256]


def test_a_file_is_read_again_when_it_has_changed_or_could_not_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_restorer(tmp_path / "face" / "same.onnx")
    changed = files.write_restorer(tmp_path / "face" / "changed.onnx", side=256)
    (tmp_path / "face" / "broken.onnx").write_bytes(b"")
    before = find_models([tmp_path])
    files.write_swapper(changed)
    read: list[str] = []

    def counted(path: Path, name: str) -> FaceModel:
        read.append(name)
        return identify(path, name)

    monkeypatch.setattr(catalog, "identify", counted)
    after = find_models([tmp_path], before)
    assert read == ["broken", "changed"]
    assert [entry.role for entry in after.entries] == [None, "swapper", "restorer"]


def test_folders_that_lead_into_each_other_end(tmp_path: Path) -> None:
    files.write_restorer(tmp_path / "face" / "gfpgan.onnx")
    (tmp_path / "face" / "again").symlink_to(tmp_path / "face", target_is_directory=True)
    assert "gfpgan" in [entry.name for entry in find_models([tmp_path]).entries]


def test_a_model_is_found_by_name_also_without_its_folder_and_in_other_case(tmp_path: Path) -> None:
    files.write_insightface_pack(tmp_path / "face" / "buffalo_l")
    found = find_models([tmp_path])
    for name in ("", "buffalo_l/w600k_r50", "W600K_R50", "w600k_r50.onnx"):
        assert found.find("embedder", name).name == "buffalo_l/w600k_r50"


def test_the_embedder_that_inswapper_was_trained_with_is_the_default(tmp_path: Path) -> None:
    files.write_arcface(tmp_path / "face" / "antelopev2" / "glintr100.onnx")
    files.write_arcface(tmp_path / "face" / "buffalo_l" / "w600k_r50.onnx")
    assert find_models([tmp_path]).find("embedder").name == "buffalo_l/w600k_r50"


def test_a_missing_model_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match=r"no face swapper under models/face.*inswapper_128\.onnx"):
        find_models([tmp_path]).find("swapper")
    files.write_swapper(tmp_path / "face" / "inswapper_128.onnx")
    with pytest.raises(MissingModel, match=r"no face swapper named 'hyperswap'.*There is: inswapper_128"):
        find_models([tmp_path]).find("swapper", "hyperswap")


def test_a_broken_model_that_is_asked_for_by_name_says_why(tmp_path: Path) -> None:
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "inswapper_128.onnx").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(MissingModel, match=r"'inswapper_128' cannot be used: it is a web page"):
        find_models([tmp_path]).find("swapper", "inswapper_128")


def test_where_none_can_be_used_what_is_wrong_with_those_that_lie_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "inswapper_128.onnx").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(MissingModel, match=r"no face swapper under models/face.* inswapper_128: it is a web page"):
        find_models([tmp_path]).find("swapper")
    files.write_swapper(tmp_path / "face" / "simswap.onnx", has_map=False)
    with pytest.raises(MissingModel, match=r"swapper 'simswap' cannot be used: it lacks the 512x512 map"):
        find_models([tmp_path]).find("swapper")


WRONG: list[tuple[str, Callable[[Path], Path]]] = [
    ("it lacks the 512x512 map at its end", lambda path: files.write_swapper(path, has_map=False)),
    ("it swaps faces of 1x3x64x64; sizes 128, 256, 512", lambda path: files.write_swapper(path, side=64)),
    ("it takes ?x3x100x100 and gives ?x512, which is no kind", lambda path: files.write_arcface(path, side=100)),
    ("which is no kind of face model", lambda path: files.write_row(path, side=112, length=511)),
    ("which is no kind of face model", lambda path: files.write_row(path, side=96, length=4)),
    ("which is no kind of face model", lambda path: files.write_restorer(path, side=320)),
    ("which is no kind of face model", lambda path: files.write_restorer(path, weight="float", weight_dims=(2,))),
    ("only YOLOv8 and later", lambda path: files.write_table(path, np.zeros((640, 85)))),
]


@pytest.mark.parametrize(("problem", "write"), WRONG)
def test_a_model_of_the_wrong_shape_says_what_is_wrong(
    problem: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    assert problem in identify(write(tmp_path / "model.onnx"), "model").problem


OTHERS: list[tuple[bytes, str]] = [
    (b"", "it is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git-lfs pointer"),
    (b"\n\n<html>", "web page"),
    (b'{"error": 404}', "message from a server"),
    (b"PK\x03\x04....", "zip archive or a PyTorch model"),
    (b"\x80\x04\x95", "Python pickle"),
    (bytes(4096), "its download was never finished"),
    (b"GIF89a and so on", "not an ONNX file"),
    (b"\x08\x08", "there is no graph in it"),
]


@pytest.mark.parametrize(("data", "problem"), OTHERS)
def test_another_file_with_the_ending_says_what_it_is(data: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    model = identify(path, "model")
    assert problem in model.problem
    assert model.role is None


def test_a_file_that_is_gone_or_a_folder_is_an_entry_with_a_problem(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert "cannot be read" in identify(tmp_path / "gone.onnx", "gone").problem
    assert "cannot be read" in identify(tmp_path / "folder.onnx", "folder").problem


@given(share=st.floats(0, 0.999))
def test_a_file_cut_off_anywhere_is_never_usable(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "cut"
    whole = folder / "whole.onnx"
    if not whole.exists():
        files.write_gender_age(whole)
    data = whole.read_bytes()
    path = folder / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])
    assert identify(path, "cut").problem


@given(data=st.binary(max_size=400), at=st.integers(0, 1500))
def test_random_bytes_and_random_damage_never_raise(
    data: bytes, at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "noise"
    whole = folder / "whole.onnx"
    if not whole.exists():
        files.write_gender_age(whole)
    good = whole.read_bytes()
    path = folder / "noise.onnx"
    for noise in (data, good[:at] + data + good[at + len(data) :]):
        path.write_bytes(noise)
        assert isinstance(identify(path, "noise"), FaceModel)


def test_weights_beside_the_file_have_to_be_there_and_whole(tmp_path: Path) -> None:
    path = files.with_external_weights(files.write_arcface(tmp_path / "model.onnx"))
    assert identify(path, "model").problem == ""
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "'weights.bin' are cut off" in identify(path, "model").problem
    weights.unlink()
    assert "'weights.bin', which is missing beside it" in identify(path, "model").problem


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    path = files.with_external_weights(files.write_arcface(tmp_path / "model.onnx"))
    model = onnx.load(str(path), load_external_data=False)
    for stored in model.graph.initializer:
        for entry in stored.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    assert "outside its own folder" in identify(path, "model").problem


@pytest.mark.parametrize("role_size_write", KNOWN)
def test_what_is_read_is_what_onnx_itself_reads(
    role_size_write: tuple[Role, int | None, Callable[[Path], Path]], tmp_path: Path
) -> None:
    path = role_size_write[2](tmp_path / "model.onnx")
    graph, model = read_graph(path), onnx.load(str(path))
    for ours, theirs in ((graph.inputs, model.graph.input), (graph.outputs, model.graph.output)):
        assert [port.name for port in ours] == [port.name for port in theirs]
        for port, other in zip(ours, theirs, strict=True):
            tensor = other.type.tensor_type
            assert port.shape == tuple(dim.dim_value or None for dim in tensor.shape.dim)
            assert np.dtype(port.dtype) == helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    assert [node.op_type for node in graph.first_nodes] == [node.op_type for node in model.graph.node[:8]]
    assert dict(graph.notes) == {entry.key: entry.value for entry in model.metadata_props}
    if model.graph.initializer:
        last = onnx.numpy_helper.to_array(model.graph.initializer[-1])
        assert graph.last_stored is not None
        assert graph.last_stored.shape == last.shape
        if last.dtype.kind == "f":
            assert np.array_equal(read_stored(path, graph.last_stored), last.astype(np.float32))


def test_an_old_export_that_lists_its_weights_among_the_inputs_is_understood(tmp_path: Path) -> None:
    path = files.write_arcface(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    for stored in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(stored.name, stored.data_type, stored.dims))
    path.write_bytes(model.SerializeToString())
    assert identify(path, "model").role == "embedder"


def test_a_map_written_as_single_numbers_is_read_too(tmp_path: Path) -> None:
    path = files.write_swapper(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    last = model.graph.initializer[-1]
    values = onnx.numpy_helper.to_array(last)
    last.ClearField("raw_data")
    last.float_data.extend(values.reshape(-1).tolist())
    path.write_bytes(model.SerializeToString())
    stored = read_graph(path).last_stored
    assert stored is not None
    assert np.array_equal(read_stored(path, stored), values)


def test_a_map_that_is_no_map_of_floats_is_refused(tmp_path: Path) -> None:
    path = files.write_swapper(tmp_path / "model.onnx", map_dtype="int32")
    stored = read_graph(path).last_stored
    assert stored is not None
    with pytest.raises(NotReadable, match="stored in a way that isn't understood"):
        read_stored(path, stored)


def test_listing_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 600 MB, nearly all of it a hole."""
    path = files.write_swapper(tmp_path / "small.onnx")
    model = onnx.load(str(path))
    large = onnx.TensorProto(name="large", data_type=onnx.TensorProto.FLOAT, dims=[150_000_000])
    head, size = large.SerializeToString(), 600_000_000
    tensor = head + _key(9, 2) + _number(size)
    graph = model.graph.SerializeToString()
    part = _key(5, 2) + _number(len(tensor) + size) + tensor
    model.ClearField("graph")
    start = model.SerializeToString() + _key(7, 2) + _number(len(graph) + len(part) + size)
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(start + part)
        file.seek(size, 1)
        file.write(graph)
    num_read: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            num_read.append(super().readinto(buffer))
            return num_read[-1]

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Counted(path)))
    assert identify(path, "large").role == "swapper"
    assert path.stat().st_size > size
    assert sum(num_read) < 1_000_000


def _key(field: int, wire: int) -> bytes:
    return bytes([field << 3 | wire])


def _number(value: int) -> bytes:
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])

"""Saved faces: written when asked to, read back the same, ReActor's too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from extensions.face_consistency.face_models import FaceModelStore, SavedFace, combined, read_face
from webui.hooks import InvalidRequest, WebUIError

Embedding = NDArray[np.float32]


def an_embedding(size: int, seed: int = 0) -> Embedding:
    row = np.random.default_rng(seed).normal(0, 1, size)
    return (row / np.linalg.norm(row)).astype(np.float32)


def write_reactor(path: Path, **changes: Any) -> Path:
    """What ReActor writes: InsightFace's face, tensor by tensor."""
    random = np.random.default_rng(3)
    tensors = {
        "bbox": random.uniform(0, 500, 4).astype(np.float32),
        "kps": random.uniform(0, 500, (5, 2)).astype(np.float32),
        "det_score": np.array(0.87, np.float32),
        "landmark_3d_68": random.uniform(0, 500, (68, 3)).astype(np.float32),
        "pose": random.uniform(-20, 20, 3).astype(np.float32),
        "landmark_2d_106": random.uniform(0, 500, (106, 2)).astype(np.float32),
        "embedding": an_embedding(512, 9) * np.float32(22.4),
        "gender": np.array(1, np.int64),
        "age": np.array(44, np.int64),
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> FaceModelStore:
    return FaceModelStore(tmp_path / "faces", also=[tmp_path / "reactor"])


def test_looking_writes_nothing(store: FaceModelStore) -> None:
    assert store.list() == []
    assert not store.folder.exists()


def test_a_saved_face_is_read_back_the_same(store: FaceModelStore) -> None:
    saved = store.save(
        "Anna", sface=[an_embedding(128)], arcface=[an_embedding(512)], arcface_file="buffalo_l/w600k_r50"
    )
    again = store.read("Anna")
    assert again.sface is not None
    assert again.arcface is not None
    assert np.allclose(again.sface, an_embedding(128), atol=1e-6)
    assert np.allclose(again.arcface, an_embedding(512), atol=1e-6)
    assert (again.arcface_file, again.num_photos, again.method, again.is_reactor) == (
        "buffalo_l/w600k_r50",
        1,
        "mean",
        False,
    )
    assert again.created == saved.created != ""
    assert again.cannot_swap_message == again.cannot_compare_message == ""
    assert "warping needs a photo" in again.needs_pixels_message


def test_the_file_says_which_network_each_embedding_is_of(store: FaceModelStore) -> None:
    path = store.save("Anna", sface=[an_embedding(128)] * 3, arcface=[an_embedding(512)], arcface_file="w600k").path
    with safe_open(path, framework="np") as file:
        notes = file.metadata()
        assert set(file.keys()) == {"sface", "embedding"}
    assert json.loads(notes["backends"]) == {"sface": "SFace 2021dec", "embedding": "w600k"}
    assert (notes["format"], notes["format_version"], notes["num_photos"]) == ("atelier-face", "1", "3")


def test_only_the_owner_may_read_the_file_and_nothing_lies_beside_it(store: FaceModelStore) -> None:
    path = store.save("Anna", sface=[an_embedding(128)]).path
    assert path.stat().st_mode & 0o077 == 0
    assert [one.name for one in store.folder.iterdir()] == ["Anna.safetensors"]


@given(seed=st.integers(0, 1000), count=st.integers(1, 7), kind=st.sampled_from(["sface", "embedding"]))
def test_mean_and_median_lie_among_the_photos_and_have_length_one(seed: int, count: int, kind: str) -> None:
    size = {"sface": 128, "embedding": 512}[kind]
    center = an_embedding(size, seed)
    photos = [center + 0.05 * an_embedding(size, seed * 31 + index) for index in range(count)]
    mean = combined(kind, photos, "mean")
    median = combined(kind, photos, "median")
    units = np.stack([photo / np.linalg.norm(photo) for photo in photos])
    assert np.allclose(mean, units.mean(axis=0) / np.linalg.norm(units.mean(axis=0)), atol=1e-6)
    assert np.allclose(median, np.median(units, axis=0) / np.linalg.norm(np.median(units, axis=0)), atol=1e-6)
    assert min(float(one @ center) for one in (mean, median)) > 0.99


def test_the_median_bears_one_photo_of_somebody_else(store: FaceModelStore) -> None:
    photos = [an_embedding(128, 1)] * 4 + [an_embedding(128, 2)]
    similarity = {
        method: float(store.save(method, sface=photos, method=method).sface @ an_embedding(128, 1))  # type: ignore[operator, arg-type]
        for method in ("mean", "median")
    }
    assert similarity["mean"] < similarity["median"] == pytest.approx(1)


def test_reactors_file_can_be_swapped_in_but_likeness_to_it_not_measured(store: FaceModelStore) -> None:
    write_reactor(store.also[0] / "Old friend.safetensors")
    face = store.read("Old friend")
    assert face.arcface is not None
    assert np.allclose(face.arcface, an_embedding(512, 9), atol=1e-6)
    assert (face.gender, face.age, face.is_reactor, face.sface) == ("male", 44, True, None)
    assert face.cannot_swap_message == ""
    assert "is ReActor's and has no SFace numbers" in face.cannot_compare_message


def test_a_face_saved_without_arcface_says_why_it_cannot_be_swapped_in(store: FaceModelStore) -> None:
    assert (
        "no ArcFace network lay under models/face" in store.save("Anna", sface=[an_embedding(128)]).cannot_swap_message
    )


def test_the_list_has_both_folders_by_name_and_broken_files_with_their_problem(store: FaceModelStore) -> None:
    store.save("beta", sface=[an_embedding(128)])
    write_reactor(store.also[0] / "Alpha.safetensors")
    write_reactor(store.also[0] / "beta.safetensors")
    (store.folder / "cut.safetensors").write_bytes((store.folder / "beta.safetensors").read_bytes()[:-40])
    assert [(face.name, face.is_reactor, bool(face.problem)) for face in store.list()] == [
        ("Alpha", True, False), ("beta", False, False), ("cut", False, True),
    ]  # fmt: skip


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"embedding": None}, "it has no 'sface' of 128 numbers or 'embedding' of 512 numbers"),
    ({"embedding": np.ones(128, np.float32)}, "it has no"),
    ({"embedding": np.zeros(512, np.float32)}, "it has no"),
    ({"embedding": np.full(512, np.nan, np.float32)}, "it has no"),
    ({"landmark_3d_68": np.zeros(2_000_000, np.float32)}, "bytes, which is no saved face"),
]


@pytest.mark.parametrize(("changes", "problem"), BROKEN)
def test_a_file_without_a_usable_embedding_says_so(
    changes: dict[str, Any], problem: str, store: FaceModelStore
) -> None:
    write_reactor(store.also[0] / "bad.safetensors", **changes)
    assert problem in store.list()[0].problem
    with pytest.raises(InvalidRequest, match="The saved face 'bad' cannot be used"):
        store.read("bad")


@given(data=st.binary(max_size=300))
def test_other_bytes_never_raise(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(data)
    assert isinstance(read_face(path), SavedFace)
    assert read_face(path).problem


def test_a_file_of_a_later_version_is_refused(store: FaceModelStore) -> None:
    store.folder.mkdir()
    notes = {"format": "atelier-face", "format_version": "2"}
    save_file({"sface": an_embedding(128)}, store.folder / "new.safetensors", notes)
    assert store.list()[0].problem == "it has the format version 2, and only 1 is known"


@pytest.mark.parametrize(
    "notes", [{"backends": "["}, {"backends": "[1]"}, {"num_photos": "many"}, {"num_photos": "9" * 5000}]
)
def test_odd_notes_do_not_disturb(notes: dict[str, str], store: FaceModelStore) -> None:
    store.folder.mkdir()
    save_file({"sface": an_embedding(128)}, store.folder / "odd.safetensors", {"format": "atelier-face", **notes})
    assert store.read("odd").sface is not None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../evil",
        "a/b",
        "a\\b",
        ".hidden",
        "con",
        "LPT1",
        "nul.txt",
        "end.",
        "end ",
        "a\nb",
        "x" * 81,
        "a:b",
    ],
)
def test_a_name_that_is_no_plain_file_name_is_refused_and_nothing_is_written(name: str, store: FaceModelStore) -> None:
    with pytest.raises(InvalidRequest, match="cannot be named"):
        store.save(name, sface=[an_embedding(128)])
    with pytest.raises(InvalidRequest):
        store.delete(name)
    with pytest.raises(InvalidRequest):
        store.read(name)
    assert not store.folder.exists()


@pytest.mark.parametrize("name", ["Anna", "Jürgen M. (2024)", "小林", "v1.2", "a-b_c+d"])
def test_people_have_many_names(name: str, store: FaceModelStore) -> None:
    store.save(name, sface=[an_embedding(128)])
    assert [face.name for face in store.list()] == [name]
    assert store.read(name).name == name


def test_nothing_is_overwritten_unless_told_to(store: FaceModelStore) -> None:
    store.save("Anna", sface=[an_embedding(128, 1)])
    with pytest.raises(InvalidRequest, match="There already is a saved face named 'Anna'"):
        store.save("Anna", sface=[an_embedding(128, 2)])
    assert np.allclose(store.read("Anna").sface, an_embedding(128, 1), atol=1e-6)  # type: ignore[arg-type]
    store.save("Anna", sface=[an_embedding(128, 2)], replace=True)
    assert np.allclose(store.read("Anna").sface, an_embedding(128, 2), atol=1e-6)  # type: ignore[arg-type]


def test_a_deleted_face_is_gone_and_reactors_are_never_deleted(store: FaceModelStore) -> None:
    store.save("Anna", sface=[an_embedding(128)])
    theirs = write_reactor(store.also[0] / "Old friend.safetensors")
    store.delete("Anna")
    assert [face.name for face in store.list()] == ["Old friend"]
    assert list(store.folder.iterdir()) == []
    with pytest.raises(InvalidRequest, match="no saved face named 'Old friend' to delete"):
        store.delete("Old friend")
    assert theirs.exists()


def test_a_missing_face_names_those_that_are_there(store: FaceModelStore) -> None:
    with pytest.raises(InvalidRequest, match="None has been saved yet"):
        store.read("Anna")
    store.save("Anna", sface=[an_embedding(128)])
    with pytest.raises(InvalidRequest, match="There is: Anna"):
        store.read("Berta")


@pytest.mark.parametrize(
    ("sface", "arcface"),
    [
        ([], []),
        ([np.zeros(128, np.float32)], []),
        ([np.ones(127, np.float32)], []),
        ([an_embedding(128), -an_embedding(128)], []),
        ([an_embedding(128)], [np.full(512, np.inf, np.float32)]),
    ],
)
def test_what_is_no_face_is_not_saved(sface: list[Embedding], arcface: list[Embedding], store: FaceModelStore) -> None:
    with pytest.raises(InvalidRequest):
        store.save("Anna", sface=sface, arcface=arcface)
    assert not store.folder.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "faces").write_text("a file is in the way", "utf-8")
    with pytest.raises(WebUIError, match=r"could not be saved as 'Anna\.safetensors'"):
        FaceModelStore(tmp_path / "faces").save("Anna", sface=[an_embedding(128)])

"""Old weight files are listed without torch, and nothing that they ask for is run."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from tests.model_files import original_tensors, sizes_of
from webui.library import old_files
from webui.library.catalog import Library
from webui.library.header import TensorInfo
from webui.library.identify import identify
from webui.library.index import Hashes
from webui.library.old_files import Child, NotReadNow, read_old_header


class Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (Planted.target,)

    target = ""


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_checkpoint_is_of_its_family(zipped: bool, nested: bool, tmp_path: Path) -> None:
    tensors = original_tensors(sizes_of("sdxl"))
    content = {"state_dict": tensors, "global_step": 3} if nested else tensors
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    facts = identify(tmp_path / "model.ckpt")
    assert (facts.kind, facts.family, facts.dtype, facts.problems) == ("checkpoint", "sdxl", "F16", ())
    found = read_old_header(tmp_path / "model.ckpt").tensors
    assert {name: info.shape for name, info in found.items()} == {name: tuple(t.shape) for name, t in tensors.items()}


def test_types_and_parameters_are_known(tmp_path: Path) -> None:
    dtypes = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.uint8: "U8"}
    content = {
        name: torch.nn.Parameter(torch.zeros(2, 3, dtype=dtype), requires_grad=False) for dtype, name in dtypes.items()
    }
    torch.save(content, tmp_path / "a.pt")
    assert read_old_header(tmp_path / "a.pt").tensors == {name: TensorInfo(name, (2, 3)) for name in dtypes.values()}


def test_a_textual_inversion_is_one(tmp_path: Path) -> None:
    content = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(4, 768)}, "name": "x", "step": 3}
    torch.save(content, tmp_path / "x.pt")
    facts = identify(tmp_path / "x.pt")
    assert (facts.kind, facts.adapter_base) == ("embedding", "sd1")


def test_a_hypernetwork_is_one(tmp_path: Path) -> None:
    layer = {"linear.0.weight": torch.zeros(8, 768), "linear.0.bias": torch.zeros(8)}
    torch.save({768: (layer, layer), 320: (layer, layer), "layer_structure": [1, 2, 1]}, tmp_path / "x.pt")
    facts = identify(tmp_path / "x.pt")
    assert (facts.kind, facts.adapter_base) == ("hypernetwork", "sd1")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_file_asks_to_run_is_not_run(zipped: bool, tmp_path: Path) -> None:
    Planted.target = str(tmp_path / "planted")
    content = {"a.weight": torch.zeros(2), "b": Planted()}
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    assert set(read_old_header(tmp_path / "x.ckpt").tensors) == {"a.weight"}
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(50), b"\x80\x02" + bytes(50), pickle.dumps([1, 2]), b"\x80"])
def test_a_damaged_file_is_described(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    assert "damaged or cut off" in identify(tmp_path / "x.ckpt").problems[0]


def zipped_pickle(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content)
    return path


def shared_lists(path: Path) -> Path:
    """A list of lists of lists, each a thousand times the same, with a weight at the end."""
    torch.save({"a": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        plain = archive.read(name)
    head, tail = plain[:2], plain[2:-1]
    many = b"".join(b"r" + (10_000 + n).to_bytes(4, "little") + b"0(" +
                    (b"j" + (10_000 + n).to_bytes(4, "little")) * 1000 + b"l" for n in range(5))  # fmt: skip
    return zipped_pickle(path, head + tail + many + b".")


HOSTILE = {
    "a key whose hash takes for ever": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "a memo of 32 GB": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_hours_or_for_all_memory_is_described(
    case: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.ckpt"
    if zipped:
        zipped_pickle(path, HOSTILE[case])
    else:
        path.write_bytes(HOSTILE[case])
    child = Child(patience_s=1.0)
    monkeypatch.setattr(old_files, "_CHILD", child)
    assert "memory" in identify(path).problems[0]
    child.close()


def test_lists_that_hold_one_another_do_not_become_millions_of_names(tmp_path: Path) -> None:
    assert "more than 100,000 weights" in identify(shared_lists(tmp_path / "x.ckpt")).problems[0]


def test_after_a_file_that_ends_the_reader_the_next_one_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "good.pt")
    (tmp_path / "bad.pt").write_bytes(HOSTILE["a key whose hash takes for ever"])
    child = Child(patience_s=0.5)
    with pytest.raises(NotReadNow):
        child.ask(tmp_path / "bad.pt")
    child.patience_s = 60.0
    for _ in range(2):
        assert child.ask(tmp_path / "good.pt") == {"tensors": [["a", "F32", [2]]]}
        child.close()


def test_a_file_that_could_not_be_read_now_is_looked_at_again_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "embeddings" / "x.pt"
    path.parent.mkdir()
    torch.save({"string_to_param": {"*": torch.zeros(4, 768)}}, path)
    with monkeypatch.context() as patch:
        patch.setattr(old_files, "_CHILD", Child(("/no/such/program",)))
        library = Library([tmp_path], tmp_path / "cache")
        assert "cannot be started" in library.embeddings()[0].problem
        library._index.learn_hashes(library.embeddings()[0].stamp, Hashes(sha256="0", data_sha256=""))
    library.close()
    library = Library([tmp_path], tmp_path / "cache")
    assert library.embeddings()[0].problem == ""
    library.close()

"""Old weight files: read without running anything, refused with a clear reason."""

import os
import pickle
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.pipeline.pickles import read_pickle, read_pickle_header
from webui.pipeline.weight_files import open_weights


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {"a.weight": torch.randn(3, 2).half(), "b": torch.arange(4)}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_found_in_either_format(
    nested: bool, zipped: bool, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {"state_dict": weights, "epoch": 4} if nested else {**weights, "epoch": 4}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    found = read_pickle(tmp_path / "a.ckpt")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_the_header_tells_names_shapes_and_types(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.pt")
    tensors = read_pickle_header(tmp_path / "a.pt").tensors
    assert (tensors["a.weight"].dtype, tensors["a.weight"].shape) == ("F16", (3, 2))
    assert tensors["b"].dtype == "I64"


def test_what_training_tools_leave_in_their_files_does_no_harm(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pytorch_lightning.callbacks.model_checkpoint"
    tool = types.ModuleType(name)
    tool.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})  # type: ignore[attr-defined]
    with monkeypatch.context() as installed:
        for module in (name.split(".", maxsplit=1)[0], name.rpartition(".")[0]):
            installed.setitem(sys.modules, module, types.ModuleType(module))
        installed.setitem(sys.modules, name, tool)
        callbacks = {tool.ModelCheckpoint: {"best_model_score": np.float64(0.5)}}
        torch.save({"state_dict": weights, "callbacks": callbacks}, tmp_path / "a.ckpt")
    assert read_pickle(tmp_path / "a.ckpt").keys() == weights.keys()


def test_files_are_read_from_several_threads_at_once(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": weights, "best": np.float64(0.5)}, tmp_path / "a.ckpt")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read_pickle_header(tmp_path / "a.ckpt"), range(400)))
    assert all(header.tensors.keys() == weights.keys() for header in found)


class Program:
    """Would make a folder if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self._target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_a_program_in_it_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": Program(tmp_path / "ran")}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsupportedModel, match=r"more than weights.*mkdir.*safetensors"):
        read_pickle(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello world", pickle.dumps([1, 2]), b"\x80\x02garbage"])
def test_a_file_that_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModel, match=r"'a.ckpt' cannot be used"):
        read_pickle(path)


def test_a_file_that_is_cut_off_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:-100])
    with pytest.raises(UnsupportedModel, match="damaged or cut off"):
        read_pickle(tmp_path / "a.ckpt")


def test_an_opened_file_refuses_to_be_another_later(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.ckpt")
    file = open_weights(tmp_path / "a.ckpt")
    assert torch.equal(file.tensor("a.weight"), weights["a.weight"])
    file.close()
    torch.save({**weights, "more": torch.ones(1000)}, tmp_path / "a.ckpt")
    with pytest.raises(UnsupportedModel, match="changed"):
        file.tensor("a.weight")

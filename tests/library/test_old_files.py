"""Old weight files are listed without torch, and nothing that they ask for is run."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.model_files import original_tensors, sizes_of
from webui.library.header import TensorInfo
from webui.library.identify import identify
from webui.library.old_files import read_old_header


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

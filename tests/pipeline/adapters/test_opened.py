"""Adapter files that are kept open."""

from pathlib import Path

import pytest
import torch

from tests.adapter_files import write_adapter
from webui.errors import UnsupportedModel
from webui.pipeline.adapters.opened import AdapterFiles

MODULES = {("unet", f"block.{i}"): (16, 16) for i in range(4)}


def read_all(files: AdapterFiles, path: Path) -> list[torch.Tensor]:
    return [tensor for group in files.open(path)[0].groups.values() for tensor in group.tensors.values()]


def test_weights_are_read_once_and_let_go_when_there_are_too_many(tmp_path: Path) -> None:
    paths = [write_adapter(tmp_path / f"{i}.safetensors", MODULES, seed=i) for i in range(3)]
    size = sum(tensor.nbytes for tensor in read_all(AdapterFiles(), paths[0]))
    files = AdapterFiles(max_bytes=2 * size)
    first = read_all(files, paths[0])
    assert all(again is tensor for again, tensor in zip(read_all(files, paths[0]), first, strict=True))
    read_all(files, paths[1])
    read_all(files, paths[2])
    files.open(paths[2])
    assert files.kept_bytes == 2 * size
    again = read_all(files, paths[0])
    assert all(torch.equal(a, b) and a is not b for a, b in zip(again, first, strict=True))


def test_a_changed_file_is_another_adapter(tmp_path: Path) -> None:
    files = AdapterFiles()
    path = write_adapter(tmp_path / "a.safetensors", MODULES, seed=1)
    before, version = files.open(path)
    assert files.open(path) == (before, version)
    write_adapter(path, MODULES, seed=2, rank=8)
    after, other = files.open(path)
    assert other != version
    assert next(iter(after.groups.values())).shapes["lora_up"] == (16, 8)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"gone\.safetensors"):
        AdapterFiles().open(tmp_path / "gone.safetensors")

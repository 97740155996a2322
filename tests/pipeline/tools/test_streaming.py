"""Files written tensor by tensor: what safetensors reads back, and what is left behind when it goes wrong."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from webui.errors import StorageError
from webui.library.disk_space import RESERVE_BYTES
from webui.pipeline.tools.streaming import PlannedTensor, write_streaming

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]


def planned(name: str, value: torch.Tensor) -> PlannedTensor:
    return PlannedTensor(name=name, shape=tuple(value.shape), dtype=value.dtype, make=lambda: value)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)),
        max_size=6,
    ),
    st.dictionaries(st.text(max_size=6), st.text(max_size=12), max_size=3),
)
def test_safetensors_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    specs: dict[str, tuple[torch.dtype, list[int]]],
    metadata: dict[str, str],
) -> None:
    tensors = {name: (torch.randn(shape) * 50).to(dtype) for name, (dtype, shape) in specs.items()}
    path = tmp_path_factory.mktemp("streamed") / "model.safetensors"
    write_streaming(path, [planned(name, value) for name, value in tensors.items()], metadata)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)
    with safe_open(path, framework="pt") as file:
        assert (file.metadata() or {}) == metadata


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"model\.safetensors is there already"):
        write_streaming(path, [planned("a", torch.ones(2))], {})
    assert path.read_bytes() == b"mine"


def test_a_failure_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise RuntimeError("no more")

    tensors = [
        planned("a", torch.ones(4)),
        PlannedTensor(name="b", shape=(4,), dtype=torch.float32, make=fail),
    ]
    with pytest.raises(RuntimeError, match="no more"):
        write_streaming(tmp_path / "model.safetensors", tensors, {})
    assert list(tmp_path.iterdir()) == []


def test_only_one_tensor_is_alive_at_a_time(tmp_path: Path) -> None:
    alive = 0
    most = 0

    class Counted(torch.Tensor):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def make() -> torch.Tensor:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return torch.ones(8).as_subclass(Counted)

    names = [f"t{i}" for i in range(10)]
    write_streaming(
        tmp_path / "model.safetensors",
        [PlannedTensor(name=name, shape=(8,), dtype=torch.float32, make=make) for name in names],
        {},
    )
    assert most <= 2


def test_progress_counts_all_bytes_and_may_stop_the_work(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    tensors = [planned("a", torch.ones(4)), planned("b", torch.ones(8))]
    write_streaming(tmp_path / "a.safetensors", tensors, {}, report=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 48), (48, 48)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_streaming(tmp_path / "b.safetensors", tensors, {}, report=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_model_that_would_fill_the_disk_is_refused_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, RESERVE_BYTES + 10))
    write_streaming(tmp_path / "small.safetensors", [planned("a", torch.ones(2))], {})
    with pytest.raises(StorageError, match=r"0\.5 GB free; large\.safetensors needs 0\.5 GB"):
        write_streaming(tmp_path / "large.safetensors", [planned("a", torch.ones(3))], {})
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]

"""What a device says of itself."""

import sys
from pathlib import Path

import pytest

from tests.conftest import CPU
from webui.pipeline.device import container_free_bytes, is_out_of_memory


def test_memory_that_can_be_had_is_a_part_of_the_machines() -> None:
    assert 0 < CPU.free_bytes() < sys.maxsize


@pytest.mark.parametrize(("limit", "free"), [("1000", 1000 - 700 + 200), ("max", sys.maxsize)])
def test_a_containers_limit_counts_without_its_cached_files(tmp_path: Path, limit: str, free: int) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\nactive_file 0\n")
    assert container_free_bytes(tmp_path) == free


def test_without_a_container_there_is_no_limit(tmp_path: Path) -> None:
    assert container_free_bytes(tmp_path) == sys.maxsize


@pytest.mark.parametrize(
    ("words", "is_full"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_a_full_device_is_known_by_whichever_library_says_it(words: str, is_full: bool) -> None:
    assert is_out_of_memory(RuntimeError(words)) is is_full

"""Hashes are right, known after a while without anybody waiting, and never computed while the machine is busy."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.library_files import write_lora
from webui.library import hashes
from webui.library.catalog import Library, ModelFile
from webui.library.hashes import hash_file

PATIENCE_S = 30


def wait_until(condition: Callable[[], object]) -> None:
    waiting = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if condition():
            return
        waiting.wait(0.01)
    pytest.fail("It never came true.")


@given(st.binary(max_size=60), st.integers(1, 25))
def test_both_hashes_of_any_file_are_right(tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int) -> None:
    header = b'{"a":1}'
    path = tmp_path_factory.mktemp("hash") / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "CHUNK_BYTES", chunk)
        found = hash_file(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.data_sha256 == hashlib.sha256(data).hexdigest()


def test_an_old_file_has_one_hash(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"12345678 and more")
    assert hash_file(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert hash_file(path).data_sha256 == ""


def test_hashes_are_found_in_the_background_and_kept(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    library = Library([tmp_path], tmp_path / "cache")
    assert library.sha256_of(path) is None
    library.start_hashing(lambda: False)
    wait_until(lambda: library.sha256_of(path))
    library.close()
    again = Library([tmp_path], tmp_path / "cache")
    assert again.sha256_of(path) == expected
    assert again.hashes_of(again.find_adapter("ink")) is not None
    again.close()


def test_a_changed_file_has_no_hash_until_it_is_read_again(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    library = Library([tmp_path], tmp_path / "cache")
    library.start_hashing(lambda: False)
    wait_until(lambda: library.sha256_of(path))
    write_lora(path, rank=16)
    assert library.sha256_of(path) is None
    assert library.sha256_of(tmp_path / "nowhere") is None
    library.close()


def test_nothing_is_read_while_the_machine_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "PAUSE_S", 0.01)
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    busy = threading.Event()
    busy.set()
    asked = threading.Semaphore(0)

    def is_busy() -> bool:
        asked.release()
        return busy.is_set()

    library = Library([tmp_path], tmp_path / "cache")
    library.start_hashing(is_busy)
    for _ in range(5):
        assert asked.acquire(timeout=PATIENCE_S)
    assert library.sha256_of(path) is None
    busy.clear()
    wait_until(lambda: library.sha256_of(path))
    library.close()


def test_a_file_that_grows_is_not_read_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lora(tmp_path / "loras" / "ink.safetensors")
    waits: list[float] = []
    reads: list[Path] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return True

    def read_while_it_grows(file: Path, _: object) -> hashes.Hashes:
        reads.append(file)
        with path.open("ab") as growing:
            growing.write(b"more")
        return hashes.Hashes(sha256="of a part", data_sha256="")

    monkeypatch.setattr(hashes, "hash_file", read_while_it_grows)
    library = Library([tmp_path], tmp_path / "cache")
    (file,) = library.adapters()
    hasher = hashes.Hasher(library._index, lambda: [file.stamp], lambda: False)
    hasher._stop = Stop()
    hasher.start()
    wait_until(lambda: not hasher._thread.is_alive())
    assert (reads, waits) == ([path], [hashes.LOOK_AGAIN_S])
    assert library.hashes_of(file) is None
    library.close()


def test_the_program_ends_while_the_machine_is_busy(tmp_path: Path) -> None:
    write_lora(tmp_path / "loras" / "ink.safetensors")
    library = Library([tmp_path], tmp_path / "cache")
    library.start_hashing(lambda: True)
    library.close()
    assert "hashes of models" not in [thread.name for thread in threading.enumerate()]


def test_rows_of_deleted_files_go_but_those_of_a_missing_folder_stay(tmp_path: Path) -> None:
    ink, wash = (write_lora(tmp_path / "loras" / name / "x.safetensors") for name in ("ink", "wash"))
    gone = write_lora(tmp_path / "loras" / "gone.safetensors")
    library = Library([tmp_path], tmp_path / "cache")
    stamps: dict[Path, ModelFile] = {file.path: file for file in library.adapters()}
    gone.unlink()
    wash.parent.rename(tmp_path / "unplugged")
    library._index.forget_missing()
    (tmp_path / "unplugged").rename(wash.parent)
    known = {path: library._index.known(file.stamp) is not None for path, file in stamps.items()}
    assert known == {ink: True, wash: True, gone: False}
    library.close()

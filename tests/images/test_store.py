import errno
import multiprocessing
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from webui.errors import StorageError
from webui.images.store import HeldPictures, ImageStore, InputStore

# Long enough that a reader could catch it half written.
DATA = b"begin" + bytes(500_000) + b"end"

PROCESSES = multiprocessing.get_context("spawn")


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def save_many(outputs: Path, count: int, seed: int) -> list[str]:
    store = ImageStore(outputs)
    return [str(store.save(DATA, kind="txt2img", seed=seed, fmt="png")) for _ in range(count)]


def save_for_ever(outputs: Path) -> None:
    while True:
        save_many(outputs, 1, 7)


def put_many(inputs: Path, count: int) -> list[str]:
    return [InputStore(inputs).put(Image.new("RGB", (64, 64), (shade, 0, 0))) for shade in range(count)]


@pytest.mark.parametrize(("fmt", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
@pytest.mark.parametrize("kind", ["txt2img", "img2img", "extras"])
def test_pictures_are_filed_by_day_and_number(kind: str, fmt: str, extension: str, tmp_path: Path) -> None:
    days = [date.today()]
    path = ImageStore(tmp_path).save(b"data", kind=kind, seed=42, fmt=fmt)
    days.append(date.today())
    folders = [tmp_path / f"{kind}-images" / day.isoformat() for day in days]
    assert path in [folder / f"00001-42.{extension}" for folder in folders]
    assert path.read_bytes() == b"data"


def test_numbers_go_on_after_the_largest_there_is(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    first = store.save(b"1", kind="txt2img", seed=5, fmt="png")
    (first.parent / "00041-999.jpg").write_bytes(b"another program's")
    (first.parent / "notes 77.txt").write_bytes(b"no number")
    assert store.save(b"2", kind="txt2img", seed=5, fmt="webp").name == "00042-5.webp"
    assert store.save(b"3", kind="img2img", seed=5, fmt="png").name == "00001-5.png"
    (first.parent / "123456-1.png").write_bytes(b"many")
    assert store.save(b"4", kind="txt2img", seed=0, fmt="png").name == "123457-0.png"


def test_parallel_writers_in_threads_never_share_a_number(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = [path for saved in pool.map(lambda seed: save_many(tmp_path, 12, seed), range(8)) for path in saved]
    numbers = {int(Path(path).name[:5]) for path in paths}
    assert len(numbers) == 96  # a number that two writers reached for may be passed over
    assert sorted(map(Path, paths)) == visible(tmp_path)


def test_parallel_writers_in_processes_never_share_a_number_and_readers_see_whole_files(tmp_path: Path) -> None:
    sizes = set()
    with ProcessPoolExecutor(3, mp_context=PROCESSES) as pool:
        # The same seed in all: only the number tells the files apart.
        jobs = [pool.submit(save_many, tmp_path, 25, 7) for _ in range(3)]
        while not all(job.done() for job in jobs):
            sizes |= {path.stat().st_size for path in visible(tmp_path)}
        paths = [Path(path) for job in jobs for path in job.result()]
    assert len({int(path.name[:5]) for path in paths}) == 75
    assert sizes <= {len(DATA)}
    assert all(path.read_bytes() == DATA for path in paths)
    assert {path.suffix for path in paths[0].parent.iterdir()} == {".png"}


def test_a_killed_writer_leaves_whole_files_only_and_the_next_goes_on(tmp_path: Path) -> None:
    writer = PROCESSES.Process(target=save_for_ever, args=(tmp_path,))
    writer.start()
    while len(visible(tmp_path)) < 5:
        assert writer.is_alive()
    writer.kill()
    writer.join()
    left = visible(tmp_path)
    assert all(path.read_bytes() == DATA for path in left)
    path = ImageStore(tmp_path).save(b"next", kind="txt2img", seed=1, fmt="png")
    assert int(path.name[:5]) > max(int(old.name[:5]) for old in left)


def fail_with(code: int) -> object:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return fsync


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(StorageError, match=f"{re.escape(str(tmp_path))}.*the disk is full") as caught:
        ImageStore(tmp_path).save(DATA, kind="txt2img", seed=1, fmt="png")
    assert "Free some space" in caught.value.hint
    with pytest.raises(StorageError, match="the disk is full"):
        InputStore(tmp_path / "inputs").put(Image.new("L", (8, 8)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert ImageStore(tmp_path).save(DATA, kind="txt2img", seed=1, fmt="png").name == "00001-1.png"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """`folder` as one who may not write to it finds it: for the super-user that takes being someone else."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no read-only folders.")
def test_a_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    with read_only(tmp_path):
        with pytest.raises(StorageError, match="is not writable") as caught:
            ImageStore(tmp_path).save(b"", kind="txt2img", seed=1, fmt="png")
        with pytest.raises(StorageError, match="is not writable"):
            InputStore(tmp_path / "inputs").put(Image.new("L", (8, 8)))
    assert "permissions" in caught.value.hint


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_bytes(b"")
    with pytest.raises(StorageError, match="a file is in the place of a folder"):
        ImageStore(tmp_path / "outputs").save(b"", kind="txt2img", seed=1, fmt="png")
    (tmp_path / "txt2img-images").write_bytes(b"")
    with pytest.raises(StorageError, match="a file is in the place of a folder"):
        ImageStore(tmp_path).save(b"", kind="txt2img", seed=1, fmt="png")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_input_comes_back_pixel_by_pixel(mode: str, tmp_path: Path) -> None:
    channels = len(mode) if mode != "L" else 1
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, channels), dtype=np.uint8)
    image = Image.fromarray(pixels.squeeze())
    name = InputStore(tmp_path).put(image)
    again = InputStore(tmp_path).get(name)
    assert (again.mode, again.size, again.tobytes()) == (mode, image.size, image.tobytes())


def test_equal_pictures_are_kept_once_and_different_ones_apart(tmp_path: Path) -> None:
    store = InputStore(tmp_path)
    name = store.put(Image.new("L", (8, 4), 7))
    written = (tmp_path / f"{name}.png").stat().st_mtime_ns
    assert store.put(Image.new("L", (8, 4), 7)) == name
    assert (tmp_path / f"{name}.png").stat().st_mtime_ns == written
    others = [Image.new("L", (4, 8), 7), Image.new("L", (8, 4), 8), Image.new("RGB", (8, 4), (7, 7, 7))]
    assert len({name, *map(store.put, others)}) == len(visible(tmp_path)) == 4


def test_inputs_put_in_parallel_are_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        names = list(pool.map(lambda _: put_many(tmp_path, 10), range(6)))
    assert all(put == names[0] for put in names)
    assert [InputStore(tmp_path).get(name).getpixel((0, 0))[0] for name in names[0]] == list(range(10))
    assert len(list(tmp_path.iterdir())) == 10


def test_pictures_in_memory_have_the_names_that_they_would_have_on_disk(tmp_path: Path) -> None:
    held, kept = HeldPictures(), InputStore(tmp_path)
    image = Image.effect_noise((9, 7), 40).convert("RGB")
    name = held.put(image)
    assert name == kept.put(image)
    assert held.get(name) is image
    for store in (held, kept):
        assert name in store
        assert "0" * 64 not in store
        assert "../../etc/passwd" not in store
        with pytest.raises(StorageError, match="Choose the picture again"):
            store.get("0" * 64)


def test_discard_unused_keeps_only_what_is_named(tmp_path: Path) -> None:
    store = InputStore(tmp_path)
    names = [store.put(Image.new("L", (8, 8), shade)) for shade in range(4)]
    (tmp_path / ".left-by-a-killed-writer.tmp").write_bytes(b"half")
    (tmp_path / "readme.txt").write_bytes(b"not ours")
    store.discard_unused({names[1], names[3]})
    assert {path.name for path in tmp_path.iterdir()} == {f"{names[1]}.png", f"{names[3]}.png", "readme.txt"}
    with pytest.raises(StorageError, match="is gone"):
        store.get(names[0])


def test_discarding_before_anything_was_put_is_fine(tmp_path: Path) -> None:
    InputStore(tmp_path / "never made").discard_unused(set())


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a" * 63, "A" * 64, "a" * 64 + "/.."])
def test_a_name_cannot_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not the name of an input picture"):
        InputStore(tmp_path).get(name)


def test_a_damaged_input_is_named(tmp_path: Path) -> None:
    store = InputStore(tmp_path)
    name = store.put(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)))
    path = tmp_path / f"{name}.png"
    whole = path.read_bytes()
    for damaged in (whole[:-400], whole[:20], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=f"{name[:12]}.*cannot be read") as caught:
            store.get(name)
        assert "Choose the picture again" in caught.value.hint

"""Event files for TensorBoard, read back by a parser of their own that knows only the format's description."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from webui.errors import StorageError
from webui.jobs.events import JobEvent, Progress
from webui.training.events import LossReported, Paused, SampleReady, TrainingNote, ValidationReported
from webui.training.tensorboard import TensorBoardLog, crc32c


def loss(step: int, value: float = 0.5) -> LossReported:
    return LossReported(
        step=step,
        num_steps=9,
        loss=value,
        gradient_norm=2.0,
        rates={"unet": 1e-4, "text_encoder": 5e-5},
        seconds_per_step=3,
        seconds_left=4,
    )


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message of protocol buffers; groups of bytes are not looked into."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(data):
        key = varint()
        match key & 7:
            case 0:
                yield key >> 3, varint()
            case 1:
                yield key >> 3, struct.unpack_from("<d", data, at)[0]
                at += 8
            case 2:
                size = varint()
                yield key >> 3, data[at : at + size]
                at += size
            case 5:
                yield key >> 3, struct.unpack_from("<f", data, at)[0]
                at += 4
            case other:
                raise AssertionError(f"wire type {other}")


def records(path: Path) -> Iterator[bytes]:
    """Each with both checksums looked at."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8)[0] == masked(data[at : at + 8])
        found = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 12 + size)[0] == masked(found)
        yield found
        at += 16 + size


def masked(data: bytes) -> int:
    value = crc32c(data)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read(folder: Path) -> list[dict[str, Any]]:
    """The events of all files: step, what it is, and of summaries the values by tag."""
    found = []
    for path in sorted(folder.iterdir()):
        for data in records(path):
            event = dict(fields(data))
            values = {}
            for number, value in fields(event.get(5, b"")):
                assert number == 1
                summary = dict(fields(value))
                values[summary[1].decode()] = summary.get(2, summary.get(4))
            found.append({"step": event.get(2, 0), "version": event.get(3), "session": event.get(7), "values": values})
            assert event[1] > 1e9, "when it was"
    return found


def write(folder: Path, *events: JobEvent) -> list[dict[str, Any]]:
    log = TensorBoardLog(folder)
    for event in events:
        log(event)
    return read(folder)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_checksums_are_those_of_the_standard(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum  # RFC 3720, appendix B.4


def test_losses_rates_and_errors_are_curves(tmp_path: Path) -> None:
    measured = ValidationReported(
        step=300, train=0.1, held_out=None, base_train=0.3, base_held_out=None, bands={"trained 0-332": 0.7}
    )
    version, session, *told = write(tmp_path / "tb", loss(1), loss(300, 0.25), measured)
    assert (version["version"], version["step"]) == (b"brain.Event:2", 0)
    assert dict(fields(session["session"])) == {1: 1}
    assert [event["step"] for event in told] == [1, 300, 300]
    assert told[0]["values"] == pytest.approx(
        {
            "loss/trained": 0.5,
            "gradient norm": 2.0,
            "seconds per step": 3.0,
            "learning rate/unet": 1e-4,
            "learning rate/text_encoder": 5e-5,
        }
    )
    assert told[1]["values"]["loss/trained"] == 0.25
    assert told[2]["values"] == pytest.approx(
        {"error/trained photos": 0.1, "error/trained photos, base": 0.3, "error by noise level/trained 0-332": 0.7}
    )


def test_samples_are_pictures_and_their_likeness_a_curve(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths[:2]:
        Image.new("RGB", (200, 100), "red").save(path)
    samples = [
        SampleReady(step=5, weight=0.8, prompt="mia at the beach", seed=i, path=str(path), likeness=0.2 + 0.2 * i)
        for i, path in enumerate(paths)
    ]
    _, _, *told = write(tmp_path / "tb", *samples, Paused(step=5, num_steps=9))
    pictures = {tag: value for event in told for tag, value in event["values"].items() if tag.startswith("weight")}
    assert set(pictures) == {f"weight 0.8/mia at the beach, seed {i}" for i in range(2)}, (
        "the third is no file any more"
    )
    assert dict(fields(pictures["weight 0.8/mia at the beach, seed 0"])) == {
        1: 100,
        2: 200,
        3: 3,
        4: paths[0].read_bytes(),
    }
    assert told[-1]["values"] == pytest.approx({"likeness/weight 0.8": 0.4})


def test_a_run_that_goes_on_begins_a_file_that_says_from_where(tmp_path: Path) -> None:
    write(tmp_path / "tb", loss(1), loss(2), loss(3))
    told = write(tmp_path / "tb", loss(2))
    assert len(list((tmp_path / "tb").iterdir())) == 2
    assert [(event["step"], bool(event["session"])) for event in told][-3:] == [(0, False), (2, True), (2, False)]


def test_what_is_no_curve_makes_no_file(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "tb")
    log(TrainingNote(text="7 photos"))
    log(Progress(step=1, num_steps=2))
    assert not (tmp_path / "tb").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_do_not_fit_are_written_all_the_same(tmp_path: Path, value: float) -> None:
    (*_, told) = write(tmp_path / "tb", loss(1, value))
    assert not abs(told["values"]["loss/trained"]) < 1e38


def test_a_folder_that_is_gone_is_a_sentence_and_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="TensorBoard"):
        write(tmp_path / "gone" / "tb", loss(1))
    assert not (tmp_path / "gone").exists()

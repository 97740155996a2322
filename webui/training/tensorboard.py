"""What a run tells, as the event files that TensorBoard reads: curves, and the sample pictures. Imports no torch.

The format is a TFRecord per event, each an `Event` message of protocol buffers; of those it takes so little that it is
written here. Sources: record_writer.cc, event.proto and summary.proto of tensorflow/core.
"""

import math
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image, UnidentifiedImageError

from webui.errors import StorageError
from webui.jobs.events import JobEvent, Progress
from webui.training.events import LossReported, SampleReady, ValidationReported

VERSION = b"brain.Event:2"
CASTAGNOLI = 0x82F63B78
MASK = 0xA282EAD8
START = 1
"""Of a session: what an earlier one told of later steps counts no more."""
RGB = 3
MAX_FLOAT32 = 3.4028234e38

DOUBLE, VARINT, BYTES, FLOAT = 1, 0, 2, 5
"""Wire types."""

Scalar = tuple[str, float]


class TensorBoardLog:
    """Writes a new event file into `folder` with the first event that it shows. Call it with every event."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._likeness = _Likeness()

    def __call__(self, event: JobEvent) -> None:
        """Raises StorageError if the file cannot be written."""
        if isinstance(event, Progress):
            return
        for step, scalars in self._likeness.add(event):
            self._write(step, [_scalar(tag, value) for tag, value in scalars])
        match event:
            case LossReported(step=step):
                self._write(step, [_scalar(tag, value) for tag, value in _of_loss(event)])
            case ValidationReported(step=step):
                self._write(step, [_scalar(tag, value) for tag, value in _of_validation(event)])
            case SampleReady(step=step):
                self._write(step, [*_picture(event)])

    def _write(self, step: int, values: list[bytes]) -> None:
        if not values:
            return
        now = time.time()
        events = [_event(now, step, _field(5, BYTES, b"".join(_field(1, BYTES, value) for value in values)))]
        if self._path is None:
            self._path = self._new_path(now)
            session = _field(7, BYTES, _field(1, VARINT, START))
            events = [_event(now, 0, _field(3, BYTES, VERSION)), _event(now, step, session), *events]
        try:
            self._folder.mkdir(exist_ok=True)
            with self._path.open("ab") as file:
                file.write(b"".join(record(event) for event in events))
        except OSError as error:
            raise StorageError(
                f"The curves for TensorBoard could not be written to {self._folder} ({error.strerror}).",
                hint="Look whether the folder is there and the disk has room, then resume the run.",
            ) from error

    def _new_path(self, now: float) -> Path:
        """TensorBoard reads files in the order of their names."""
        number = 0
        while (path := self._folder / f"events.out.tfevents.{int(now):010d}.{number}").exists():
            number += 1
        return path


@dataclass(slots=True)
class _Likeness:
    """Means over the samples of a step and weight, known when others follow."""

    at: tuple[int, float] | None = None
    values: tuple[float, ...] = ()

    def add(self, event: JobEvent) -> Iterator[tuple[int, list[Scalar]]]:
        at = (event.step, event.weight) if isinstance(event, SampleReady) else None
        if self.at is not None and at != self.at:
            if self.values:
                yield self.at[0], [(f"likeness/weight {self.at[1]:g}", fmean(self.values))]
            self.values = ()
        self.at = at
        if isinstance(event, SampleReady) and event.likeness is not None:
            self.values = (*self.values, event.likeness)


def _of_loss(event: LossReported) -> Iterator[Scalar]:
    yield "loss/trained", event.loss
    yield "gradient norm", event.gradient_norm
    yield "seconds per step", event.seconds_per_step
    for part, rate in event.rates.items():
        yield f"learning rate/{part}", rate


def _of_validation(event: ValidationReported) -> Iterator[Scalar]:
    named = (
        ("error/trained photos", event.train),
        ("error/photos kept back", event.held_out),
        ("error/trained photos, base", event.base_train),
        ("error/photos kept back, base", event.base_held_out),
    )
    yield from ((tag, value) for tag, value in named if value is not None)
    yield from ((f"error by noise level/{band}", value) for band, value in event.bands.items())


def _picture(event: SampleReady) -> Iterator[bytes]:
    """The file as it is; nothing where it is gone."""
    try:
        data = Path(event.path).read_bytes()
        with Image.open(event.path) as picture:
            width, height = picture.size
    except (OSError, UnidentifiedImageError):
        return
    size = _field(1, VARINT, height) + _field(2, VARINT, width) + _field(3, VARINT, RGB)
    tag = f"weight {event.weight:g}/{event.prompt}, seed {event.seed}"
    yield _field(1, BYTES, tag.encode()) + _field(4, BYTES, size + _field(4, BYTES, data))


def _scalar(tag: str, value: float) -> bytes:
    return _field(1, BYTES, tag.encode()) + _field(2, FLOAT, value)


def _event(wall_time: float, step: int, what: bytes) -> bytes:
    return _field(1, DOUBLE, wall_time) + _field(2, VARINT, step) + what


def _field(number: int, wire_type: int, value: float | bytes) -> bytes:
    key = _varint(number << 3 | wire_type)
    if isinstance(value, bytes):
        return key + _varint(len(value)) + value
    if wire_type == VARINT:
        return key + _varint(int(value))
    if wire_type == FLOAT and abs(value) > MAX_FLOAT32:
        value = math.copysign(math.inf, value)
    return key + struct.pack("<d" if wire_type == DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def record(data: bytes) -> bytes:
    """One TFRecord: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    checksum = crc32c(data)
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + MASK) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (CASTAGNOLI if value & 1 else 0)
        found.append(value)
    return tuple(found)


TABLE = _table()


def crc32c(data: bytes) -> int:
    """Source: RFC 3720, appendix B.4."""
    value, table = 0xFFFFFFFF, TABLE
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF

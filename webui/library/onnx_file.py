"""What an ONNX file holds, read without its weights: ports, first nodes, names of stored tensors, the maker's notes.

Walks the protobuf from field to field with seeks, so that a file of half a gigabyte costs milliseconds. Format:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers below are from there).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int | None, ...]
"""None for a size that is not fixed."""

MAX_FIELDS = 400_000
"""Of one file; the largest networks have some ten thousand. A file of empty fields would take minutes."""
MAX_TEXT_BYTES = 1 << 16
"""A longer name or note is not read."""
FIRST_NODES = 8

DTYPES: Mapping[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
"""TensorProto.DataType as numpy calls it."""

OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "it is a git-lfs pointer, a note of where the model lies, not the model itself"),
    (b"<", "it is a web page, not a model"),
    (b"{", "it is a message from a server or a settings file, not a model"),
    (b"PK\x03\x04", "it is a zip archive or a PyTorch model; unpack it, or look for the same model as .onnx"),
    (b"\x80", "it is a Python pickle (.pth, .pt), not ONNX; look for the same model as .onnx"),
    (b"\x00\x00\x00\x00", "it begins with zeros: its download was never finished"),
)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class NotReadable(ValueError):
    """What is wrong with a file; its text is a part of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of the graph. `shape` is None where the file doesn't say even the number of axes."""

    name: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor in the file, or beside it in `file`: `num_bytes` at `offset`; both 0 if it is written otherwise."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    op_type: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """`inputs` are those that have to be fed; `first_nodes` at most FIRST_NODES."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    first_nodes: tuple[Node, ...]
    last_stored: Stored | None
    files: Mapping[str, int] = field(default_factory=dict)
    """Files beside this one that hold weights, and how many bytes each needs to have."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """The maker's own, such as "names" of what a detector finds."""


def read_graph(path: Path) -> Graph:
    """Raises NotReadable: what is wrong with the file, or what it is instead."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            _refuse_other_files(file, size)
            return _Walk(file).graph(size)
    except OSError as error:
        raise NotReadable(f"it cannot be read ({error.strerror or error})") from error


def read_stored(path: Path, stored: Stored) -> NDArray[np.float32]:
    """The values of a tensor of floats. Raises NotReadable."""
    holds = np.dtype(stored.dtype)
    if holds.kind != "f" or stored.num_bytes != prod(stored.shape) * holds.itemsize:
        raise NotReadable(f"its tensor '{stored.name[:80]}' is stored in a way that isn't understood")
    try:
        with (path.parent / stored.file if stored.file else path).open("rb") as file:
            file.seek(stored.offset)
            data = file.read(stored.num_bytes)
    except OSError as error:
        raise NotReadable(f"it cannot be read ({error.strerror or error})") from error
    if len(data) != stored.num_bytes:
        raise NotReadable(f"it is cut off inside its tensor '{stored.name[:80]}'")
    values = np.frombuffer(data, holds.newbyteorder("<"))
    return values.reshape(stored.shape).astype(np.float32)


def written(shape: Shape | None) -> str:
    """As people write it: "1x3x128x128", "?" for what is not fixed."""
    if shape is None:
        return "something without a shape"
    return "x".join("?" if size is None else str(size) for size in shape) or "a number"


def signature(graph: Graph) -> str:
    """What goes in and comes out, as part of a sentence: "it takes 1x3x320x320 and gives 1x1x320x320"."""
    takes = " and ".join(written(port.shape) for port in graph.inputs) or "nothing"
    gives = " and ".join(written(port.shape) for port in graph.outputs[:4]) or "nothing"
    more = f" and {len(graph.outputs) - 4} more" if len(graph.outputs) > 4 else ""
    return f"it takes {takes} and gives {gives}{more}"


def missing_weights(path: Path, graph: Graph) -> str:
    """What is wrong with the files beside `path` that hold its weights; "" if nothing is, or there are none."""
    for name, size in graph.files.items():
        beside = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"it wants to read its weights from '{name[:80]}', outside its own folder"
        if not beside.is_file():
            return f"its weights lie in a file of their own, '{name[:80]}', which is missing beside it"
        if beside.stat().st_size < size:
            return f"its weights in '{name[:80]}' are cut off: {beside.stat().st_size:,} of {size:,} bytes are there"
    return ""


def _refuse_other_files(file: BinaryIO, size: int) -> None:
    if size == 0:
        raise NotReadable("it is empty")
    file.seek(0)
    start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")
    for magic, what in OTHER_FILES:
        if start.startswith(magic):
            raise NotReadable(what)


class _Field(NamedTuple):
    """`value` is a number, or where a piece of `end - value` bytes begins."""

    number: int
    wire: int
    value: int
    end: int


class _Walk:
    """Reads one file, with a budget of fields."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.budget = MAX_FIELDS

    def graph(self, size: int) -> Graph:
        notes: dict[str, str] = {}
        spans: list[tuple[int, int]] = []
        has_version = has_opset = False
        for number, wire, value, end in self.fields(0, size):
            if number == 1 and wire == _VARINT:
                has_version = True
            elif number == 8:
                has_opset = True
            elif number == 7 and wire == _BYTES:
                spans.append((value, end))
            elif number == 14 and wire == _BYTES:
                key, text = self.pair(value, end)
                notes[key] = text
        if not spans or not has_version:
            raise NotReadable("it is not an ONNX file: there is no graph in it")
        if not has_opset:
            raise NotReadable(f"it is cut off at its end, after {size:,} bytes")
        return self.graph_at(*spans[-1], notes)

    def graph_at(self, start: int, stop: int, notes: Mapping[str, str]) -> Graph:
        nodes: list[Node] = []
        inputs: list[Port] = []
        outputs: list[Port] = []
        stored: list[Stored] = []
        for number, wire, value, end in self.fields(start, stop):
            if wire != _BYTES:
                continue
            if number == 1 and len(nodes) < FIRST_NODES:
                nodes.append(self.node(value, end))
            elif number == 5:
                stored.append(self.stored(value, end))
            elif number == 11:
                inputs.append(self.port(value, end))
            elif number == 12:
                outputs.append(self.port(value, end))
        # Old exports list every stored tensor among the inputs, too.
        names = {tensor.name for tensor in stored}
        return Graph(
            inputs=tuple(port for port in inputs if port.name not in names),
            outputs=tuple(outputs),
            first_nodes=tuple(nodes),
            last_stored=stored[-1] if stored else None,
            files=_sizes_of_files(stored),
            notes=notes,
        )

    def fields(self, start: int, stop: int) -> Iterator[_Field]:
        """The fields between two offsets. Raises NotReadable for what is no protobuf or reaches beyond `stop`."""
        position = start
        while position < stop:
            self.budget -= 1
            if self.budget < 0:
                raise NotReadable(f"it is not an ONNX file of a network: it has more than {MAX_FIELDS:,} parts")
            self.file.seek(position)
            head = self.file.read(20)
            tag, used = _varint(head, 0)
            number, wire = tag >> 3, tag & 7
            value, end = 0, position + used
            if wire == _VARINT:
                value, used = _varint(head, used)
                end = position + used
            elif wire == _BYTES:
                length, used = _varint(head, used)
                value = position + used
                end = value + length
            elif wire in {_FIXED32, _FIXED64}:
                value = position + used
                end = value + (4 if wire == _FIXED32 else 8)
            if number == 0 or wire not in {_VARINT, _BYTES, _FIXED32, _FIXED64}:
                raise NotReadable("it is not an ONNX file, or it is damaged")
            if end > stop:
                raise NotReadable(f"it is cut off or damaged: {end:,} bytes were expected, {stop:,} are there")
            yield _Field(number, wire, value, end)
            position = end

    def node(self, start: int, stop: int) -> Node:
        inputs: list[str] = []
        texts = {3: "", 4: ""}
        for number, wire, value, end in self.fields(start, stop):
            if number == 1 and wire == _BYTES:
                inputs.append(self.text(value, end))
            elif number in texts and wire == _BYTES:
                texts[number] = self.text(value, end)
        return Node(name=texts[3], op_type=texts[4], inputs=tuple(inputs))

    def port(self, start: int, stop: int) -> Port:
        name, dtype, shape = "", "", None
        for number, _, value, end in self.fields(start, stop):
            if number == 1:
                name = self.text(value, end)
            elif number == 2:
                tensor = [(at, to) for number, wire, at, to in self.fields(value, end) if (number, wire) == (1, _BYTES)]
                dtype, shape = self.tensor_type(*tensor[0]) if tensor else ("", None)
        return Port(name=name, dtype=dtype, shape=shape)

    def tensor_type(self, start: int, stop: int) -> tuple[str, Shape | None]:
        dtype = ""
        shape: Shape | None = None
        for number, wire, value, end in self.fields(start, stop):
            if number == 1 and wire == _VARINT:
                dtype = DTYPES.get(value, f"type {value}")
            elif number == 2 and wire == _BYTES:
                shape = tuple(self.size(at, to) for number, _, at, to in self.fields(value, end) if number == 1)
        return dtype, shape

    def size(self, start: int, stop: int) -> int | None:
        sizes = [value for number, wire, value, _ in self.fields(start, stop) if (number, wire) == (1, _VARINT)]
        return sizes[0] if sizes and 0 < sizes[0] < 1 << 31 else None

    def stored(self, start: int, stop: int) -> Stored:
        shape: list[int] = []
        name, dtype = "", ""
        data = (0, 0)
        beside: dict[str, str] = {}
        for number, wire, value, end in self.fields(start, stop):
            match number, wire:
                case 1, 0:
                    shape.append(value)
                case 1, 2:
                    shape.extend(self.packed(value, end))
                case 2, 0:
                    dtype = DTYPES.get(value, f"type {value}")
                case 8, 2:
                    name = self.text(value, end)
                case ((9 | 4 | 10), 2):
                    data = (value, end - value)
                case 13, 2:
                    beside.update([self.pair(value, end)])
        location = beside.get("location", "")
        if location:
            data = (_number(beside.get("offset", "0")), _number(beside.get("length", "0")))
        return Stored(
            name=name, dtype=dtype, shape=tuple(shape), offset=data[0], num_bytes=data[1], file=location
        )  # fmt: skip

    def packed(self, start: int, stop: int) -> list[int]:
        data = self.bytes(start, stop)
        numbers, position = [], 0
        while position < len(data):
            number, position = _varint(data, position)
            numbers.append(number)
        return numbers

    def pair(self, start: int, stop: int) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for number, wire, value, end in self.fields(start, stop):
            if number in texts and wire == _BYTES:
                texts[number] = self.text(value, end)
        return texts[1], texts[2]

    def text(self, start: int, stop: int) -> str:
        return self.bytes(start, stop).decode("utf-8", errors="replace")

    def bytes(self, start: int, stop: int) -> bytes:
        self.file.seek(start)
        return self.file.read(min(stop - start, MAX_TEXT_BYTES))


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise NotReadable("it is not an ONNX file, or it is cut off")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise NotReadable(f"it says that weights lie beside it at {text[:40]!r}, which is no place in a file")
    return int(text)


def _sizes_of_files(stored: list[Stored]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor in stored:
        if tensor.file:
            sizes[tensor.file] = max(sizes.get(tensor.file, 0), tensor.offset + tensor.num_bytes)
    return sizes

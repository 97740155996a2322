"""InsightFace's detector, face embedding, gender and age, run by our own few lines of onnxruntime.

What each network expects is from insightface 2.1 (MIT); the tests compare with it number by number.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..face import Face, Pixels
from .aligned import FivePoints, arcface_template, as_input, cut_out, five_points, similarity
from .catalog import EMBEDDING_SIZE, SCRFD_OUTPUTS
from .onnx_file import BrokenModel, Graph
from .overlap import keep_best
from .sessions import Floats, Session

DETECTION_SIZES_PX = (128, 640)
"""Sides at which a detector without a fixed size looks: the small one finds faces that fill the picture."""
DETECTION_SCALE = 128.0
MAX_OVERLAP = 0.4
STRIDES_PX = (8, 16, 32, 64, 128)

Embedding = NDArray[np.float32]
"""(512,) of unit length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """`box` left, top, right, bottom in pixels; `points` None if the network gives none."""

    box: tuple[float, float, float, float]
    score: float
    points: FivePoints | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """As a network guesses it from a picture, often wrongly."""

    gender: Literal["female", "male"]
    age: int


class Detector:
    """SCRFD."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._strides = STRIDES_PX[: SCRFD_OUTPUTS[len(session.outputs)]]
        self._num_anchors = 2 if len(self._strides) == 3 else 1
        size = session.model.size_px
        self._sizes = (size,) if size else DETECTION_SIZES_PX

    @property
    def name(self) -> str:
        return self.session.name

    def find(self, pixels: Pixels, *, min_score: float = 0.5) -> list[Detected]:
        """Best first. Raises BrokenModel."""
        rows = np.concatenate([self._rows(pixels, size, min_score) for size in self._sizes])
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        return [_detected(rows[index]) for index in keep_best(rows[:, :4], rows[:, 4], MAX_OVERLAP)]

    def _rows(self, pixels: Pixels, size: int, min_score: float) -> Floats:
        """(n, 15 or 5): box, score and points in the picture's pixels."""
        small, scale = _fitted(pixels, size)
        outputs = self.session.run(as_input(small, mean=127.5, scale=DETECTION_SCALE))
        tables = [output.reshape(-1, output.shape[-1]) for output in outputs]
        found = [self._of_stride(tables, index, size, min_score) for index in range(len(self._strides))]
        rows = np.concatenate(found)
        rows[:, :4] /= scale
        rows[:, 5:] /= scale
        return rows

    def _of_stride(self, tables: list[Floats], index: int, size: int, min_score: float) -> Floats:
        stride, num_strides = self._strides[index], len(self._strides)
        mine = tables[index::num_strides]
        places = _anchors(size // stride, stride, self._num_anchors)
        for table, columns in zip(mine, (1, 4, 10), strict=False):
            if table.shape != (len(places), columns):
                wanted = f"{len(places)}x{columns}"
                raise BrokenModel(self.name, f"it gave {'x'.join(map(str, table.shape))} numbers, not {wanted}")
        good = np.flatnonzero(mine[0][:, 0] >= min_score)
        places, reach = places[good], mine[1][good] * stride
        box = np.concatenate([places - reach[:, :2], places + reach[:, 2:]], axis=1)
        parts = [box, mine[0][good]]
        if len(mine) == 3:
            parts.append(np.tile(places, 5) + mine[2][good] * stride)
        rows = np.concatenate(parts, axis=1).astype(np.float32)
        return rows[np.isfinite(rows).all(axis=1)]


def _fitted(pixels: Pixels, size: int) -> tuple[Pixels, float]:
    """The picture in the top left corner of a black square, and by how much it was scaled."""
    height, width = pixels.shape[:2]
    ratio = height / width
    new_height, new_width = (size, max(1, int(size / ratio))) if ratio > 1 else (max(1, int(size * ratio)), size)
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[:new_height, :new_width] = cv2.resize(pixels, (new_width, new_height))
    return canvas, new_height / height


def _anchors(cells: int, stride: int, num_anchors: int) -> Floats:
    """(cells * cells * num_anchors, 2) x, y."""
    y, x = np.mgrid[:cells, :cells]
    places = np.stack([x, y], axis=-1).reshape(-1, 2) * stride
    return np.repeat(places, num_anchors, axis=0).astype(np.float32)


def _detected(row: Floats) -> Detected:
    left, top, right, bottom, score = (float(value) for value in row[:5])
    points = row[5:].reshape(5, 2).copy() if len(row) == 15 else None
    return Detected(box=(left, top, right, bottom), score=score, points=points)


class ArcFace:
    """A face as 512 numbers. Those of one network mean nothing to another one."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._size = session.model.size_px or 112
        normalises = session.model.graph is not None and _normalises(session.model.graph)
        self._mean, self._scale = (0.0, 1.0) if normalises else (127.5, 127.5)

    @property
    def name(self) -> str:
        return self.session.name

    def embed(self, pixels: Pixels, face: Face) -> Embedding:
        return self.embed_at(pixels, five_points(face))

    def embed_at(self, pixels: Pixels, points: FivePoints) -> Embedding:
        """Raises BrokenModel."""
        try:
            matrix = similarity(points, arcface_template(self._size))
        except ValueError as error:
            raise BrokenModel(self.name, f"{error}, so that it cannot be cut out") from error
        values = as_input(cut_out(pixels, matrix, self._size), mean=self._mean, scale=self._scale)
        return unit(_row(self.session, values, EMBEDDING_SIZE), self.name)


def unit(row: Floats, name: str) -> Embedding:
    """`row` with length 1. Raises BrokenModel if it has none."""
    length = float(np.linalg.norm(row))
    if not np.isfinite(length) or length == 0:
        raise BrokenModel(name, "it gave an embedding without a direction (NaN, Inf or only zeros)")
    return (row / length).astype(np.float32)


class GenderAge:
    """Gender and age as InsightFace's packs guess them."""

    MARGIN = 1.5
    """The cut-out's side in longer sides of the face's box."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._size = session.model.size_px or 96
        normalises = session.model.graph is not None and _normalises(session.model.graph)
        self._mean, self._scale = (0.0, 1.0) if normalises else (127.5, 128.0)

    @property
    def name(self) -> str:
        return self.session.name

    def read(self, pixels: Pixels, box: tuple[float, float, float, float]) -> Person:
        """`box` of the face: left, top, right, bottom. Raises BrokenModel."""
        left, top, right, bottom = box
        scale = self._size / (max(right - left, bottom - top, 1.0) * self.MARGIN)
        middle = self._size / 2
        matrix = np.array(
            [[scale, 0, middle - scale * (left + right) / 2], [0, scale, middle - scale * (top + bottom) / 2]]
        )
        values = as_input(cut_out(pixels, matrix, self._size), mean=self._mean, scale=self._scale)
        female, male, age = (float(value) for value in _row(self.session, values, 3))
        if not np.isfinite([female, male, age]).all():
            raise BrokenModel(self.name, "it gave NaN or Inf for gender and age")
        return Person(gender="male" if male > female else "female", age=round(age * 100))


def _row(session: Session, values: Floats, length: int) -> Floats:
    """The `length` numbers that the network gives. Raises BrokenModel if it keeps its word no better than its file."""
    row = session.run(values)[0].reshape(-1)
    if len(row) != length:
        raise BrokenModel(session.name, f"it gave {len(row)} numbers, not {length}")
    return row


def _normalises(graph: Graph) -> bool:
    """Whether the network itself brings bytes to its own scale, as those that came from MXNet do."""
    ops = {node.op_type for node in graph.first_nodes}
    takes = {port.name for port in graph.inputs}
    first = graph.first_nodes[:3]
    return {"Sub", "Mul"} <= ops or any(
        node.op_type == "BatchNormalization" and (node.name == "bn_data" or takes & set(node.inputs)) for node in first
    )

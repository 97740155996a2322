"""Faces, hands or whatever else a YOLO detector was trained to find, for the detailer."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..face import Pixels
from .onnx_file import BrokenModel
from .overlap import keep_best
from .sessions import Floats, Session

SIZE_PX = 640
"""Side of the picture for a network that takes any."""
GREY = 114
"""Around a picture that isn't square; what YOLO's trainers use."""
POSE_COLUMNS = 20
"""Of a face detector without labels: a box, one score, five points of three numbers."""
NUM_MASK_COLUMNS = 32
"""Of a segmenting network, behind the scores."""
END_TO_END_COLUMNS = 6
"""Left, top, right, bottom, score, label: a network that picks the best boxes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundObject:
    """`box` left, top, right, bottom in the picture's pixels, within the picture. `label` as the file names it."""

    box: tuple[float, float, float, float]
    score: float
    label: str


class ObjectDetector:
    """YOLOv8 or later, exported as ONNX with or without its own selection of the best boxes."""

    def __init__(self, session: Session, *, labels: tuple[str, ...] = ()) -> None:
        """`labels` hold for a file that doesn't say its own."""
        self.session = session
        self.labels = session.model.labels or labels
        self._size = session.model.size_px or SIZE_PX
        shapes = [port.shape for port in session.outputs]
        self._output = next(index for index, shape in enumerate(shapes) if shape is not None and len(shape) == 3)
        self._has_masks = len(shapes) == 2

    @property
    def name(self) -> str:
        return self.session.name

    def find(self, pixels: Pixels, *, min_score: float = 0.3, max_overlap: float = 0.5) -> list[FoundObject]:
        """Best first; `max_overlap` is intersection over union, among boxes of one label. Raises BrokenModel."""
        canvas, scale, (left, top) = _letterbox(pixels, self._size)
        values = np.ascontiguousarray((canvas.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        boxes, scores, numbers = self._rows(self.session.run(values)[self._output])
        height, width = pixels.shape[:2]
        boxes = (boxes - np.array([left, top, left, top], np.float32)) / np.float32(scale)
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        wide = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
        good = np.flatnonzero((scores >= min_score) & wide)
        # Boxes of different labels are moved out of each other's way.
        apart = boxes[good] + (numbers[good] * np.float32(2 * max(width, height)))[:, None]
        kept = good[keep_best(apart, scores[good], max_overlap)]
        return [
            FoundObject(
                box=(float(boxes[i, 0]), float(boxes[i, 1]), float(boxes[i, 2]), float(boxes[i, 3])),
                score=float(scores[i]),
                label=self._label(int(numbers[i])),
            )
            for i in kept
        ]

    def _label(self, number: int) -> str:
        return self.labels[number] if 0 <= number < len(self.labels) else ""

    def _rows(self, output: Floats) -> tuple[Floats, Floats, Floats]:
        """(n, 4) boxes on the canvas, (n,) scores, (n,) numbers of labels."""
        if output.ndim != 3 or not output.size:
            raise BrokenModel(
                self.name, f"it gave {'x'.join(map(str, output.shape))} numbers, which is no table of boxes"
            )
        table = output[0]
        if table.shape[1] == END_TO_END_COLUMNS != table.shape[0]:
            rows = table[np.isfinite(table).all(axis=1)]
            return rows[:, :4], rows[:, 4], rows[:, 5]
        num_labels = self._num_labels(len(table))
        if num_labels < 1 or 4 + num_labels > len(table):
            what = f"it gives {len(table) - 4} numbers per box for {len(self.labels)} labels"
            raise BrokenModel(self.name, what)
        columns = table[: 4 + num_labels]
        rows = columns[:, np.isfinite(columns).all(axis=0)].T
        middle, reach = rows[:, :2], rows[:, 2:4] / 2
        boxes = np.concatenate([middle - reach, middle + reach], axis=1)
        if not len(rows):
            return boxes, rows[:, 0], rows[:, 0]
        return boxes, rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1).astype(np.float32)

    def _num_labels(self, num_columns: int) -> int:
        if self.labels:
            return len(self.labels)
        if num_columns == POSE_COLUMNS:
            return 1
        return num_columns - 4 - (NUM_MASK_COLUMNS if self._has_masks else 0)


def _letterbox(pixels: Pixels, size: int) -> tuple[Pixels, float, tuple[int, int]]:
    """The picture in the middle of a grey square, by how much it was scaled, and where it begins."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - new_width) // 2, (size - new_height) // 2
    canvas = np.full((size, size, 3), GREY, np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + new_height, left : left + new_width] = cv2.resize(
        pixels, (new_width, new_height), interpolation=how
    )
    return canvas, scale, (left, top)

"""Finds the faces of a picture: YuNet says where, the mesh says how. Never raises for a picture of any size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .analysis import MAX_OVERLAP, Models
from .face import Face, Pixels
from .mesh import find_mesh, pose_of
from .sampling import GRAY

Box = tuple[float, float, float, float]
Found = tuple[Box, float]
"""A box in pixels of the whole picture, and its score."""

LONG_SIDE = 1024
"""Larger pictures are searched in a copy of this size first."""
MAX_KNOWN_PX = 300
"""The detector was trained with faces of 10 to 300 px; larger ones get loose boxes and low scores."""
CLOSE_UP_SIDE = 256
"""Faces that fill the picture are found in a copy of this size."""
CLOSE_UP_BORDER = 64
FINEST_PIXELS = 4096 * 4096
"""Tiles come from a copy no larger than this, so that a picture without faces takes seconds at most."""
TILE_SIDE = 1024
TILE_STEP = 896
"""Tiles share 128 px, so that a face of up to that size is whole in one of them."""
TURNED_SIDE = 512
MIN_PRESENCE = 0.0
SURE_PRESENCE = 6.0
SURE_SCORE = 0.8
"""Of detector and mesh one has to be sure: blurred faces have a presence of 3, false alarms a score below this."""


def find_faces(pixels: Pixels, *, models: Models, min_score: float = 0.6, all_angles: bool = True) -> list[Face]:
    """Largest first. Looks harder (close up, in tiles, turned by quarters if `all_angles`) only while nothing is found.

    Raises MissingFaceModel.
    """
    pixels = np.ascontiguousarray(pixels)
    for boxes in searches(pixels, models, min_score, all_angles):
        faces = distinct([face_in(pixels, box, score, models) for box, score in boxes])
        if faces:
            return sorted(faces, key=lambda face: face.width_px * face.height_px, reverse=True)
    return []


def face_in(pixels: Pixels, box: Box, score: float, models: Models) -> Face:
    mesh = find_mesh(pixels, box, models)
    pose = pose_of(mesh.points)
    return Face(
        box=box, score=score, points=mesh.points, presence=mesh.presence, roll_degrees=pose.roll, yaw_degrees=pose.yaw
    )


def distinct(faces: Sequence[Face]) -> list[Face]:
    """The believable ones, one for each place."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.score, reverse=True):
        alone = all(overlap(mesh_box(face), mesh_box(other)) < MAX_OVERLAP for other in kept)
        if believable(face) and alone:
            kept.append(face)
    return kept


def believable(face: Face) -> bool:
    return face.presence > SURE_PRESENCE or (face.presence > MIN_PRESENCE and face.score > SURE_SCORE)


def mesh_box(face: Face) -> Box:
    (left, top), (right, bottom) = face.points[:, :2].min(axis=0), face.points[:, :2].max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / max(areas - shared, 1e-9)


def searches(pixels: Pixels, models: Models, min_score: float, all_angles: bool) -> Iterator[list[Found]]:
    """What each search finds, the cheap ones first."""
    longest = max(pixels.shape[:2])
    view = View.of(pixels, min(longest, LONG_SIDE))
    close_up = View.of(pixels, CLOSE_UP_SIDE).bordered(CLOSE_UP_BORDER)
    found = view.search(models, min_score)
    if any(box[3] - box[1] > MAX_KNOWN_PX * view.scale_y for box, _ in found):
        found += close_up.search(models, min_score)
    yield found
    yield close_up.search(models, min_score)
    side, finest = LONG_SIDE, int(longest * min(1, (FINEST_PIXELS / (pixels.shape[0] * pixels.shape[1])) ** 0.5))
    while side < finest:
        side = min(2 * side, finest)
        yield [found for tile in View.of(pixels, side).tiles() for found in tile.search(models, min_score)]
    if all_angles:
        for quarters in (1, 3, 2):
            turned = View.of(np.ascontiguousarray(np.rot90(pixels, quarters)), min(longest, TURNED_SIDE))
            height, width = pixels.shape[:2]
            yield [
                (turned_back(box, quarters, width, height), score) for box, score in turned.search(models, min_score)
            ]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A part of a picture in another size: its pixel (x, y) is at ((x + left) * scale_x, (y + top) * scale_y) there."""

    pixels: Pixels
    scale_x: float
    scale_y: float
    left: int = 0
    top: int = 0

    @classmethod
    def of(cls, pixels: Pixels, long_side: int) -> "View":
        height, width = pixels.shape[:2]
        scale = long_side / max(height, width)
        new_width, new_height = max(round(width * scale), 1), max(round(height * scale), 1)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        copy = pixels if scale == 1 else cv2.resize(pixels, (new_width, new_height), interpolation=interpolation)
        return cls(pixels=np.asarray(copy, np.uint8), scale_x=width / new_width, scale_y=height / new_height)

    def bordered(self, border: int) -> "View":
        """With gray all around: a face that fills the picture has an outline then."""
        sides = (border, border, border, border)
        wider = np.asarray(cv2.copyMakeBorder(self.pixels, *sides, cv2.BORDER_CONSTANT, value=GRAY), np.uint8)
        return replace(self, pixels=wider, left=self.left - border, top=self.top - border)

    def tiles(self) -> Iterator["View"]:
        height, width = self.pixels.shape[:2]
        for top in starts(height):
            for left in starts(width):
                tile = np.ascontiguousarray(self.pixels[top : top + TILE_SIDE, left : left + TILE_SIDE])
                yield replace(self, pixels=tile, left=left, top=top)

    def search(self, models: Models, min_score: float) -> list[Found]:
        rows = models.detect(self.pixels, min_score=min_score)
        return [(self.placed(*(float(value) for value in row[:4])), float(row[14])) for row in rows]

    def placed(self, x: float, y: float, width: float, height: float) -> Box:
        left, top = (x + self.left) * self.scale_x, (y + self.top) * self.scale_y
        return left, top, left + width * self.scale_x, top + height * self.scale_y


def starts(length: int) -> list[int]:
    """Where tiles begin along a side; the last one ends with it."""
    last = max(length - TILE_SIDE, 0)
    return [*range(0, last, TILE_STEP), last]


def turned_back(box: Box, quarters: int, width: int, height: int) -> Box:
    """A box of the picture turned counterclockwise by `quarters`, in the picture itself of `width` x `height`."""
    left, top, right, bottom = box
    if quarters == 1:
        return width - bottom, left, width - top, right
    if quarters == 2:
        return width - right, height - bottom, width - left, height - top
    return top, height - right, bottom, height - left

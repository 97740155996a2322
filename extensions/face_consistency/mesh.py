"""From a box to the 468 points of a face, however it is turned, and from the points to how the head is held."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .analysis import MESH_SIDE, Models
from .face import Pixels, Points
from .sampling import applied, cut, square
from .topology import CHIN, FOREHEAD_TOP

ROOM = 1.5
"""The square the network looks at, in lengths of the face's longer side: what it was trained with."""
SURE_PRESENCE = 15.0
"""Logit from which no other turn is tried. Measured: 17 to 37 on faces, below 13 if turned by over 45 degrees."""
TURNS = (0.0, 90.0, 180.0, 270.0)
MAX_PASSES = 10
"""A face turned by 30 degrees more than the square takes three, one turned by 70 up to nine."""
STILL_DEGREES = 4.0
"""A pass that turns the square by less is the last one."""

PAIRS = (
    *((33, 263), (133, 362), (61, 291), (234, 454), (93, 323), (132, 361), (58, 288), (172, 397), (136, 365)),
    *((127, 356), (162, 389), (21, 251), (54, 284), (103, 332), (70, 300), (107, 336), (48, 278), (205, 425)),
)
"""Points of the right and the left half of the face that mirror each other; lines between them lie across the head."""
RIGHT_CHEEK, LEFT_CHEEK, NOSE_TIP = (234, 93, 132), (454, 323, 361), (1, 4, 5, 195)
NOSE_DEPTH = 0.70
"""How far the nose tip stands before the line between the cheeks, in its lengths: 0.63 to 0.75 on eight people."""
MAX_WARP_YAW = 45.0
"""Beyond it, either way, half of the face is hidden and its points are guesses, 5 % of the face's width off."""
MAX_YAW_DIFFERENCE = 30.0
"""Between two faces, for one to be warped onto the other: a warp cannot invent the hidden side.

Measured on 42 pairs of different people (mean similarity to the source, before -> after): up to 21 degrees 0.14 -> 0.57
(0.44 at least), at 27 0.33 -> 0.52, from 31 to 34 0.17 -> 0.43 (0.29 at least), from 44 on 0.12 -> 0.29, which is not
the same person any more.
"""
LEVEL_PITCH = -10.0
"""What the line from forehead to chin says of a face that looks straight ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How a head is held, in degrees, -180 to 180."""

    roll: float
    """In the picture's plane, clockwise as seen; 0 is upright."""
    yaw: float
    """To the side, positive where the nose points to the picture's right; 0 is frontal."""
    pitch: float
    """Up and down, positive where the nose points up; 0 is level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """`points` (468, 3) in pixels of the picture, depth in the same scale; `presence` a logit."""

    points: Points
    presence: float


def find_mesh(pixels: Pixels, box: tuple[float, float, float, float], models: Models) -> Mesh:
    """The mesh of the face in `box` (left, top, right, bottom): the surest of those started at four turns.

    Upright first, and alone if that is sure.
    """
    best: Mesh | None = None
    for turn in TURNS:
        mesh = settled(pixels, box, turn, models)
        if best is None or mesh.presence > best.presence:
            best = mesh
        if best.presence >= SURE_PRESENCE:
            break
    assert best is not None
    return best


def settled(pixels: Pixels, box: tuple[float, float, float, float], turn: float, models: Models) -> Mesh:
    """Looks at the square around the last points again until its turn no longer changes, twice at least."""
    center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    side = max(box[2] - box[0], box[3] - box[1]) * ROOM
    points, crop = looked_at(pixels, center, side, turn, models)
    for _ in range(MAX_PASSES - 1):
        center, side, next_turn = surroundings(points)
        change = abs((next_turn - turn + 180) % 360 - 180)
        turn = next_turn
        points, crop = looked_at(pixels, center, side, turn, models)
        if change < STILL_DEGREES:
            break
    return Mesh(points=points, presence=models.presence(crop))


def looked_at(
    pixels: Pixels, center: tuple[float, float], side: float, turn: float, models: Models
) -> tuple[Points, Pixels]:
    """The points in the picture, and the crop that the network saw."""
    matrix = square(center, side, turn, MESH_SIDE)
    crop = cut(pixels, matrix, MESH_SIDE)
    points = models.mesh(crop)
    flat = applied(cv2.invertAffineTransform(matrix), points)
    return np.hstack([flat, points[:, 2:] * (side / MESH_SIDE)]).astype(np.float32), crop


def surroundings(points: Points) -> tuple[tuple[float, float], float, float]:
    """Center, side and turn of the square that the network should see of these points."""
    turn = pose_of(points).roll
    back = upright(turn)[:2, :2]
    turned = points[:, :2] @ back.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    middle = back.T @ ((low + high) / 2)
    return (float(middle[0]), float(middle[1])), float((high - low).max()) * ROOM, turn


def pose_of(points: Points) -> Pose:
    """From the mesh alone. Measured on pictures of scikit-image's astronaut turned in space (true -> found):

    yaw 15 -> 12, 25 -> 21, 35 -> 31, 45 -> 35, 60 -> 43; pitch within 3 up to 30 in either direction; roll within 1.
    """
    right, left = np.array(PAIRS).T
    across = unit((points[left] - points[right]).mean(axis=0))
    roll = float(np.degrees(np.arctan2(across[1], across[0])))
    turned = points @ upright(roll).T
    return Pose(roll=roll, yaw=yaw_of(turned), pitch=pitch_of(turned))


def yaw_of(points: NDArray[np.floating]) -> float:
    """From how far the nose tip is off the middle between the cheeks.

    The network's depths say less: they give two thirds of the true turn.
    """
    right, left, nose = (points[list(group), 0].mean() for group in (RIGHT_CHEEK, LEFT_CHEEK, NOSE_TIP))
    return float(np.degrees(np.arctan2((nose - (right + left) / 2) / NOSE_DEPTH, left - right)))


def pitch_of(points: NDArray[np.floating]) -> float:
    right, left = np.array(PAIRS).T
    across = unit((points[left] - points[right]).mean(axis=0))
    down = points[CHIN] - points[FOREHEAD_TOP]
    ahead = -np.cross(across, unit(down - across * (down @ across)))
    return float(np.degrees(np.arctan2(-ahead[1], np.hypot(ahead[0], ahead[2])))) - LEVEL_PITCH


def upright(roll_degrees: float) -> NDArray[np.float64]:
    """(3, 3), takes points turned clockwise by `roll_degrees` back."""
    cos, sin = np.cos(np.radians(roll_degrees)), np.sin(np.radians(roll_degrees))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def unit(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float64)

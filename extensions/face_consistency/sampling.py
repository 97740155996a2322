"""Cutting a turned and scaled square out of a picture without aliasing. What lies outside the picture is gray."""

import cv2
import numpy as np
from numpy.typing import NDArray

from .face import Pixels, Points

Matrix = NDArray[np.float64]
"""(2, 3), takes a point (x, y, 1) of the picture to the crop."""

GRAY = (127, 127, 127)


def cut(pixels: Pixels, matrix: Matrix, side: int) -> Pixels:
    """(side, side, 3): every pixel of the crop is the picture where `matrix` (a similarity) sends it from."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    part, from_part = needed(pixels, matrix, side, shrink=max(int(1 / max(scale, 1e-6)), 1))
    crop = cv2.warpAffine(part, from_part, (side, side), flags=cv2.INTER_LINEAR, borderValue=GRAY)
    return np.asarray(crop, np.uint8)


def needed(pixels: Pixels, matrix: Matrix, side: int, *, shrink: int) -> tuple[Pixels, Matrix]:
    """The part of `pixels` that the crop shows, `shrink` times smaller, and the matrix from there.

    OpenCV warps no picture with a side of 32768 px or more, and a part is smaller.
    """
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
    reach = applied(cv2.invertAffineTransform(matrix), corners)
    height, width = pixels.shape[:2]
    left, top = np.clip(np.floor(reach.min(axis=0)) - shrink, 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(np.ceil(reach.max(axis=0)) + shrink, (left + 1, top + 1), (width, height)).astype(int)
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    size = max(part.shape[1] // shrink, 1), max(part.shape[0] // shrink, 1)
    small = part if shrink == 1 else np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    # A pixel's middle is at its whole number, so its edge is half a pixel before it.
    step_x, step_y = part.shape[1] / size[0], part.shape[0] / size[1]
    back = [[step_x, 0, left + step_x / 2 - 0.5], [0, step_y, top + step_y / 2 - 0.5], [0, 0, 1]]
    return small, matrix @ np.array(back, np.float64)


def applied(matrix: Matrix, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 2) `points` through `matrix`."""
    return np.asarray(points[:, :2] @ matrix[:, :2].T + matrix[:, 2], np.float64)


def square(center: tuple[float, float], side_px: float, degrees: float, to_px: int) -> Matrix:
    """Takes the square around `center`, turned clockwise by `degrees`, to an upright one of `to_px`."""
    angle, scale = np.radians(degrees), to_px / max(side_px, 1e-3)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = to_px / 2 - 0.5 - turn @ np.asarray(center, np.float64)
    return np.column_stack([turn, shift])


def similarity_to(points: NDArray[np.floating], template: Points) -> Matrix:
    """The turn, one scale and shift that bring `points` (n, 2) nearest to `template` in the least squares sense.

    Source: Umeyama 1991, for two dimensions without mirroring, where it is a division of complex numbers.
    """
    source = points[:, 0].astype(np.float64) + 1j * points[:, 1]
    target = template[:, 0].astype(np.float64) + 1j * template[:, 1]
    spread = source - source.mean()
    size = float((spread * spread.conj()).sum().real)
    turn = complex((spread.conj() * (target - target.mean())).sum()) / max(size, 1e-9)
    shift = complex(target.mean()) - turn * complex(source.mean())
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])

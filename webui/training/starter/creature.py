"""The zorble: an invented creature, drawn here, so that an adapter can teach the starter something it never saw.

Every part that makes it a zorble covers at least three cells of the autoencoder (24 px) in a picture of 192 px.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image, ImageDraw

from webui.training.starter.vocabulary import RGB

BODY, BELLY, HORNS, WHITE, PUPILS = (116, 60, 190), (180, 226, 60), (250, 130, 30), (255, 255, 255), (30, 20, 50)
SHADE: RGB = (84, 42, 146)
OVERSAMPLING = 2
WAIST = (50.0, 56.5)
"""Middle of the body, in hundredths of the side."""


@dataclass(frozen=True, slots=True)
class Pose:
    """`lean` in degrees; `arms`: angles of the left and the right one above the horizon, radians; `gaze` -1 to 1."""

    lean: float
    width: float
    arms: tuple[float, float]
    gaze: tuple[float, float]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Self:
        return cls(
            lean=float(rng.uniform(-10, 10)),
            width=float(rng.uniform(0.92, 1.08)),
            arms=(float(rng.uniform(-0.7, 1.0)), float(rng.uniform(-0.7, 1.0))),
            gaze=(float(rng.uniform(-1, 1)), float(rng.uniform(-0.6, 0.6))),
        )


def draw_creature(pose: Pose, side_px: int) -> Image.Image:
    """A round purple creature with a lime belly, two large eyes and two orange horns; RGBA, `side_px` square."""
    side = side_px * OVERSAMPLING
    canvas = Image.new("RGBA", (side, side))
    pen = _Pen(ImageDraw.Draw(canvas), side / 100)
    wide, high = 30 * pose.width, 31 / pose.width
    middle, waist = WAIST
    top = waist - high
    for sign, angle in zip((-1, 1), pose.arms, strict=True):
        shoulder = (middle + sign * wide * 0.85, waist + 4)
        hand = (shoulder[0] + sign * 10 * math.cos(angle), shoulder[1] - 10 * math.sin(angle))
        pen.line(shoulder, hand, 8, SHADE)
        pen.oval(hand, 6.5, 6.5, HORNS)
        pen.oval((middle + sign * 13, waist + high), 11, 5, HORNS)
        pen.polygon(((sign * 5, top + 5), (sign * 24, top + 11), (sign * 27, top - 18)), HORNS)
    pen.oval(WAIST, wide, high, BODY)
    pen.oval((middle, waist + high * 0.48), wide * 0.6, high * 0.44, BELLY)
    for sign in (-1, 1):
        eye = (middle + sign * 13, waist - high * 0.3)
        pen.oval(eye, 12, 13, WHITE)
        pen.oval((eye[0] + pose.gaze[0] * 4, eye[1] + pose.gaze[1] * 4), 7, 8, PUPILS)
    leaning = canvas.rotate(pose.lean, Image.Resampling.BICUBIC, center=(side / 2, side * 0.9))
    return leaning.resize((side_px, side_px), Image.Resampling.LANCZOS)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws in hundredths of the side; `unit` is one of them in pixels."""

    draw: ImageDraw.ImageDraw
    unit: float

    def oval(self, centre: tuple[float, float], rx: float, ry: float, fill: RGB) -> None:
        (x, y), unit = centre, self.unit
        self.draw.ellipse(((x - rx) * unit, (y - ry) * unit, (x + rx) * unit, (y + ry) * unit), fill=fill)

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float, fill: RGB) -> None:
        points = [(x * self.unit, y * self.unit) for x, y in (start, end)]
        self.draw.line(points, fill=fill, width=round(width * self.unit))

    def polygon(self, corners: tuple[tuple[float, float], ...], fill: RGB) -> None:
        """Corners are (right of the middle, from the top)."""
        self.draw.polygon([((WAIST[0] + x) * self.unit, y * self.unit) for x, y in corners], fill=fill)

"""Where a person's face would be in a picture that was made of the one they are in, and whether a face strayed."""

from dataclasses import dataclass
from math import hypot
from typing import Literal

from .face import Face, Pixels
from .seen import Photo

ResizeMode = Literal["stretch", "crop", "fill"]

FAR_WIDTHS = 1.2
"""Face widths between where a face is and where it was, from which on it is none of the same head.

Of 16 faces that the starter drew over the astronaut's with strengths of 0.25 to 0.55, all were within 0.7; what it drew
beside or below her was 1.4 or more away.
"""
NEAR_WIDTHS = 0.7
"""Up to here it is in the person's place: what is there is their face, however badly it was drawn."""
LARGER = 1.5
"""By so much a head may have grown; what is larger is no measure of how far it may have moved."""
FAR_SHARE = 0.12
"""Of the picture's diagonal: a small face of a whole figure may move further than that when the body changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    x: float
    y: float
    width_px: float

    def away(self, face: Face) -> float:
        """Pixels between the middles."""
        x, y = face.center
        return hypot(x - self.x, y - self.y)

    def widths_away(self, face: Face) -> float:
        """The same in widths of the larger of both faces, within reason."""
        width = max(min(face.width_px, LARGER * self.width_px), self.width_px, 1.0)
        return self.away(face) / width

    def is_near(self, face: Face) -> bool:
        return self.widths_away(face) <= NEAR_WIDTHS

    def is_far(self, face: Face, pixels: Pixels) -> bool:
        """Further than another body or another size of the head explains."""
        room = FAR_SHARE * hypot(*pixels.shape[:2])
        return self.widths_away(face) > FAR_WIDTHS and self.away(face) > room


def place_of(photo: Photo, pixels: Pixels, mode: ResizeMode) -> Place:
    """Where the face of `photo` is in `pixels`, which shows the same after it was resized by `mode`."""
    (height, width), (photo_height, photo_width) = pixels.shape[:2], photo.pixels.shape[:2]
    scales = width / photo_width, height / photo_height
    match mode:
        case "stretch":
            scale_x, scale_y = scales
        case "crop":
            scale_x = scale_y = max(scales)
        case "fill":
            scale_x = scale_y = min(scales)
    x, y = photo.face.center
    return Place(
        x=width / 2 + (x - photo_width / 2) * scale_x,
        y=height / 2 + (y - photo_height / 2) * scale_y,
        width_px=photo.face.width_px * scale_x,
    )

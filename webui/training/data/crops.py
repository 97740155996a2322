"""The part of a photo that fills a bucket: as much as there is of its shape, about what matters."""

from collections.abc import Sequence

Area = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright photo."""

HEADROOM = 0.42
"""Where the middle of the faces comes to lie, in shares of the crop's height: a little above its middle."""
FACE_MARGIN = 0.35
"""Room around faces that a crop tries to keep too, in their own sizes."""
ROUNDING = 1e-9
"""Of a crop: a face that is as long as the crop fits, whatever the last digits say."""


def placed_area(bucket: tuple[int, int], within: Area, faces: Sequence[Area] = ()) -> Area:
    """The largest part of `within` with the bucket's shape: in its middle, or where it holds the most of `faces`.

    `faces` are boxes, the most important first. Where not all fit, the first ones do.
    """
    left, top, right, bottom = within
    width, height = right - left, bottom - top
    scale = min(width / bucket[0], height / bucket[1])
    crop_width, crop_height = bucket[0] * scale, bucket[1] * scale
    boxes = [box for box in faces if _overlaps(box, within)]
    x = _start(left, width, crop_width, [(box[0], box[2]) for box in boxes], 0.5)
    y = _start(top, height, crop_height, [(box[1], box[3]) for box in boxes], HEADROOM)
    return x, y, x + crop_width, y + crop_height


def _start(start: float, length: float, crop: float, spans: Sequence[tuple[float, float]], share: float) -> float:
    """Where a piece of length `crop` out of start..start + length begins, to hold `spans`."""
    slack = length - crop
    if slack <= 0 or not spans:
        return start + slack / 2
    low, high = _together(spans, crop)
    margin = min(FACE_MARGIN * (high - low), max(0.0, (crop - (high - low)) / 2))
    low, high = low - margin, high + margin
    wanted = (low + high) / 2 - share * crop
    if high - low <= crop * (1 + ROUNDING):
        wanted = min(max(wanted, high - crop), low)
    return min(max(wanted, start), start + slack)


def _together(spans: Sequence[tuple[float, float]], crop: float) -> tuple[float, float]:
    """The first span, and each further one that still fits beside those taken."""
    low, high = spans[0]
    for span in spans[1:]:
        if max(high, span[1]) - min(low, span[0]) <= crop:
            low, high = min(low, span[0]), max(high, span[1])
    return low, high


def _overlaps(box: Area, within: Area) -> bool:
    return box[0] < within[2] and box[2] > within[0] and box[1] < within[3] and box[3] > within[1]

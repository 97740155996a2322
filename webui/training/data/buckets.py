"""Which size each photo is trained in: a few sizes of about equal area, each photo in that nearest to its shape."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height in pixels."""

LONGEST = 2.0
SHORTEST = 0.5
"""Sides of a bucket, in sides of the square with its area."""
UNSEEN_ENLARGEMENT = 1.1
"""By so much a photo is enlarged in any case: a smaller bucket would cost more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPlan:
    """One entry per photo: its bucket's size, the share of its pixels that the crop cuts off, and by how much it is
    enlarged (below 1: made smaller).
    """

    sizes: tuple[Size, ...]
    lost: tuple[float, ...]
    scales: tuple[float, ...]

    def counts(self) -> dict[Size, int]:
        """Photos per size, the most frequent first."""
        return dict(Counter(self.sizes).most_common())


def plan_buckets(
    sizes: Sequence[Size], *, resolution: int, step: int = 64, upscale: bool = False, buckets: bool = True
) -> BucketPlan:
    """The size that photos of `sizes` are trained in: sides in multiples of `step`, an area of at most resolution^2.

    Shapes are compared by the logarithm of their aspect, so that upright and lying ones are treated alike. Without
    `upscale` a photo gets a bucket that it (nearly) fills, and is only enlarged further where it is smaller than the
    smallest there can be. Without `buckets` all are squares.
    """
    levels = _Levels(resolution, step, upscale=upscale, buckets=buckets)
    of_size = {size: levels.first_filled(size) for size in set(sizes)}
    chosen = [of_size[size] for size in sizes]
    pairs = list(zip(sizes, chosen, strict=True))
    return BucketPlan(
        sizes=tuple(chosen),
        lost=tuple(lost_share(size, bucket) for size, bucket in pairs),
        scales=tuple(cover_scale(size, bucket) for size, bucket in pairs),
    )


def candidates(resolution: int, step: int) -> tuple[Size, ...]:
    """For every width the largest height; the square is always there."""
    least, most = SHORTEST * resolution, LONGEST * resolution
    sides = range(step * max(1, math.ceil(least / step)), int(most) + 1, step)
    found = {_largest_square(resolution, step)}
    for width in sides:
        height = min(resolution**2 // width, int(most)) // step * step
        if height >= least:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def lost_share(size: Size, bucket: Size) -> float:
    """Share of a photo's pixels outside the largest part with the bucket's shape."""
    ratio = (size[0] * bucket[1]) / (size[1] * bucket[0])
    return 1.0 - min(ratio, 1.0 / ratio)


def cover_scale(size: Size, bucket: Size) -> float:
    """Factor that makes the photo just cover the bucket."""
    return max(bucket[0] / size[0], bucket[1] / size[1])


def _largest_square(resolution: int, step: int) -> Size:
    side = max(step, resolution // step * step)
    return side, side


def _nearest(size: Size, candidates: Sequence[Size]) -> Size:
    """By aspect; the larger of two that are equally near."""
    aspect = math.log(size[0] / size[1])
    return min(candidates, key=lambda bucket: (abs(math.log(bucket[0] / bucket[1]) - aspect), -bucket[0] * bucket[1]))


class _Levels:
    """Sets of buckets, smaller and smaller, each made when it is needed."""

    def __init__(self, resolution: int, step: int, *, upscale: bool, buckets: bool) -> None:
        self._sides = (range(resolution, step - 1, -step) if not upscale else (resolution,)) or (step,)
        self._step = step
        self._buckets = buckets
        self._made: dict[int, tuple[Size, ...]] = {}

    def first_filled(self, size: Size) -> Size:
        """The nearest bucket of the first set in which the photo (nearly) fills it, or else of the last."""
        for side in self._sides:
            if side not in self._made:
                self._made[side] = candidates(side, self._step) if self._buckets else ((side, side),)
            nearest = _nearest(size, self._made[side])
            if cover_scale(size, nearest) <= UNSEEN_ENLARGEMENT:
                break
        return nearest

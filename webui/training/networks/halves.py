"""How LoKr splits a layer. Imports no torch."""

import math


def split_size(size: int, factor: int) -> tuple[int, int]:
    """`size` as a product, the smaller number first: of `factor`, or nearly square for -1.

    A `factor` that does not divide it is the most that the smaller number may be. As LyCORIS splits.
    """
    if factor > 0 and size % factor == 0:
        small = min(factor, size // factor)
    else:
        limit = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
        small = next(n for n in range(limit, 0, -1) if size % n == 0)
    return small, size // small

"""Which photos are kept back to measure with. Only their contents decide: the same photos are split the same, always.

What looks nearly the same stays on one side, or the photos kept back would have been seen after all.
"""

import hashlib
from collections.abc import Callable, Sequence
from math import ceil

from webui.errors import InvalidRequest
from webui.training.data.likeness import groups_of_nearly_same
from webui.training.data.photos import Photo

FEWEST = 5
"""With fewer photos none can be spared."""
SHARE = 0.1
MOST = 16
"""More measure hardly better, and each takes its time at each candidate."""


def suggested_holdout(num_photos: int) -> int:
    """0 for fewer than 5, then a tenth rounded up, 16 at most: 3 of 25."""
    return min(ceil(num_photos * SHARE), MOST) if num_photos >= FEWEST else 0


def split(
    photos: Sequence[Photo], holdout: int | None, *, check: Callable[[], None] = lambda: None
) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """(trained, held out), both in the order of `photos`, which are all of the subject.

    `holdout` None: what the source says, or the suggested number. Fewer are kept back where groups of nearly the same
    photos are too large to be spared. Raises InvalidRequest if nothing would be left to train on.
    """
    groups = _groups(photos, check)
    said = {i for group in groups for i in group if any(photos[j].held_out for j in group)}
    wanted = (0 if said else suggested_holdout(len(photos))) if holdout is None else holdout
    if wanted >= len(photos) or len(said) >= len(photos):
        raise InvalidRequest(
            "data.holdout",
            f"{max(wanted, len(said))} of {len(photos)} photos would be kept back: none would be left to train on.",
            hint=f"Keep back {suggested_holdout(len(photos))}, or add photos.",
        )
    held = set(said)
    for group in sorted(groups, key=lambda group: min(_rank(photos[i]) for i in group)):
        if held.isdisjoint(group) and len(held) + len(group) <= wanted:
            held.update(group)
    trained = tuple(photo for i, photo in enumerate(photos) if i not in held)
    return trained, tuple(photo for i, photo in enumerate(photos) if i in held)


def _groups(photos: Sequence[Photo], check: Callable[[], None]) -> list[tuple[int, ...]]:
    """All photos, alone or with those that look the same; equal contents look the same."""
    together = groups_of_nearly_same([photo.looks for photo in photos], check=check)
    together = _joined_by_content(photos, together)
    taken = {i for group in together for i in group}
    return [*together, *((i,) for i in range(len(photos)) if i not in taken)]


def _joined_by_content(photos: Sequence[Photo], groups: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Pictures of one colour resemble nothing in their thumbnails, yet may be equal."""
    of_photo = {i: set(group) for group in groups for i in group}
    first: dict[str, int] = {}
    for i, photo in enumerate(photos):
        j = first.setdefault(photo.sha256, i)
        if i != j:
            merged = of_photo.get(i, {i}) | of_photo.get(j, {j})
            of_photo |= dict.fromkeys(merged, merged)
    return sorted({tuple(sorted(group)) for group in of_photo.values()})


def _rank(photo: Photo) -> str:
    """A place in an order that has nothing to do with what the photo shows or is called."""
    return hashlib.sha256(f"held out {photo.sha256}".encode()).hexdigest()

"""All photos of a run: found, split, and each with its size and its part."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from webui.errors import InvalidRequest
from webui.images.reading import flatten
from webui.training.config import Data, TrainingConfig
from webui.training.data.buckets import BucketPlan, plan_buckets
from webui.training.data.crops import placed_area
from webui.training.data.faces import FaceReader
from webui.training.data.listings import LeftOut
from webui.training.data.photos import Photo, PhotoReader, open_pixels
from webui.training.data.prepared import Placed
from webui.training.data.sources import Check, Report, find_photos
from webui.training.data.split import split

CENTRED = 0.02
"""Shares of a picture that a crop may cut off without anyone having to look where faces are."""


def _silent(done: int, total: int) -> None:
    return


def _go_on() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """`prior` are pictures of the class. `plan` is that of `train`, then `held_out`, then `prior`, in this order."""

    train: tuple[Placed, ...]
    held_out: tuple[Placed, ...]
    prior: tuple[Placed, ...]
    plan: BucketPlan
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    def contents(self) -> dict[str, str]:
        """A hash by name of each photo with its part, mask and caption: a run is resumed with the same only."""
        named = chain(
            ((placed.photo.name, placed) for placed in (*self.train, *self.held_out)),
            ((f"class pictures/{placed.photo.name}", placed) for placed in self.prior),
        )
        return {name: _fingerprint(placed) for name, placed in named}


def gather(
    config: TrainingConfig,
    *,
    unpack_to: Path,
    faces: FaceReader | None = None,
    reader: PhotoReader | None = None,
    report: Report = _silent,
    check: Check = _go_on,
) -> TrainingSet:
    """The photos that `config.data` names. With `faces` crops are laid about the faces of people.

    Raises InvalidRequest where there is nothing to train on.
    """
    data, reader = config.data, reader or PhotoReader()
    found = find_photos(data.photos, unpack_to=unpack_to, reader=reader, report=report, check=check)
    photos = [photo for photo in found.photos if not photo.is_prior]
    priors = [photo for photo in found.photos if photo.is_prior]
    notes, left_out = list(found.notes), list(found.left_out)
    if data.prior_photos is not None:
        more = find_photos(
            data.prior_photos, unpack_to=unpack_to, reader=reader, is_prior=True, report=report, check=check
        )
        priors, left_out, notes = [*priors, *more.photos], [*left_out, *more.left_out], [*notes, *more.notes]
    if not photos:
        raise InvalidRequest(
            "data.photos", "All photos are pictures of the class.", hint="Put those of the subject beside them."
        )
    train, held_out = split(photos, data.holdout, check=check)
    looked = faces if config.subject == "person" else None
    placed, plan = place([*train, *held_out, *priors], data, faces=looked, check=check)
    ends = len(train), len(train) + len(held_out)
    return TrainingSet(
        train=placed[: ends[0]],
        held_out=placed[ends[0] : ends[1]],
        prior=placed[ends[1] :],
        plan=plan,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def place(
    photos: Sequence[Photo], data: Data, *, faces: FaceReader | None = None, check: Check = _go_on
) -> tuple[tuple[Placed, ...], BucketPlan]:
    """Each photo with its size and its part. One that someone has cut by hand is not cut about its faces."""
    plan = plan_buckets(
        [photo.size for photo in photos],
        resolution=data.resolution,
        step=data.bucket_step,
        upscale=data.upscale,
        buckets=data.buckets,
    )
    placed = []
    for photo, size, lost in zip(photos, plan.sizes, plan.lost, strict=True):
        check()
        boxes = _faces(photo, faces) if faces and lost > CENTRED and photo.crop is None and not photo.is_prior else ()
        placed.append(Placed(photo=photo, size=size, area=placed_area(size, photo.area, boxes)))
    return tuple(placed), plan


def _faces(photo: Photo, faces: FaceReader) -> list[tuple[float, float, float, float]]:
    pixels = np.asarray(flatten(open_pixels(photo.path)))
    return [face.box for face in faces.read(pixels)]


def _fingerprint(placed: Placed) -> str:
    photo = placed.photo
    digest = hashlib.sha256(f"{photo.sha256} {placed.size} {placed.area} {photo.caption!r}".encode())
    if photo.mask is not None:
        digest.update(photo.mask.read_bytes())
    return digest.hexdigest()


def sizes_of(placed: Sequence[Placed]) -> Mapping[tuple[int, int], tuple[int, ...]]:
    """Which of them have each size, by their place in the list."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, each in enumerate(placed):
        found.setdefault(each.size, []).append(i)
    return {size: tuple(items) for size, items in found.items()}

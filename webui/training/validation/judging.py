"""What sample pictures are worth: how like the subject they are, whether they follow their prompt, whether they are
photos again, or nothing at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
from PIL import Image
from torch import Tensor

from webui.pipeline.latents import LatentCodec
from webui.training.data.faces import FaceReader
from webui.training.validation.choosing import Judged, Scale
from webui.training.validation.copying import Copies
from webui.training.validation.likeness import Appearance, Likeness, PictureParts, SameFace
from webui.training.validation.photos import PhotoSets
from webui.training.validation.samples import Shot

FLAT_LEVELS = 2.0
"""Standard deviation of the brightness below which a picture shows nothing."""
NUM_COMPARED = 8
"""Photos that tell how like each other new photos of the subject are."""

LEAST_FOLLOWING = 0.1
"""Of the base's own pictures: with less, it does not see its prompts in them, and cannot tell of others either."""

Followings = Callable[[Sequence[tuple[Shot, Tensor]]], Sequence[float | None]]
"""Of latents and what was asked for; see `following.followings`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A sample; `picture` is None where the latent has no numbers to make one of."""

    shot: Shot
    latent: Tensor
    picture: Image.Image | None


class SampleJudge:
    """`faces` is who reads them, where likeness is to go by them. `check` may raise."""

    def __init__(
        self,
        codec: LatentCodec,
        photos: PhotoSets,
        followings: Followings,
        *,
        faces: FaceReader | None,
        check: Callable[[], None],
    ) -> None:
        self._parts = PictureParts(codec)
        self._photos = photos
        self._followings = followings
        self._faces = faces
        self._check = check
        self._compare: Likeness | None = None

    def scale(self, base: Sequence[Drawn]) -> Scale | None:
        """From what the base draws of the same prompts, in its own words; None where it draws nothing.

        Each picture is compared without its own help in telling the subject from others.
        """
        usable = [(one.shot, one.latent, one.picture) for one in base if one.picture is not None]
        if not usable:
            return None
        pictures = [picture for _, _, picture in usable]
        own = []
        for i, picture in enumerate(pictures):
            self._check()
            own.append(self._likeness(self._references, [*pictures[:i], *pictures[i + 1 :]])(picture))
        following = [value for value in self._followings([(s, z) for s, z, _ in usable]) if value is not None]
        return Scale(
            base_likeness=fmean(own),
            photo_likeness=self._photos_to_each_other(pictures),
            base_following=mean if (mean := fmean(following or [0.0])) > LEAST_FOLLOWING else None,
        )

    def set_base(self, pictures: Sequence[Image.Image]) -> None:
        """What the base draws, which is not the subject; needed before `judge`."""
        self._compare = self._likeness(self._references, pictures)

    def judge(self, samples: Sequence[Drawn]) -> list[Judged]:
        """One verdict per sample, in their order."""
        assert self._compare is not None
        good = [i for i, sample in enumerate(samples) if sample.picture is not None]
        following = dict(zip(good, self._followings([(samples[i].shot, samples[i].latent) for i in good]), strict=True))
        found = []
        for i, sample in enumerate(samples):
            self._check()
            judged = Judged(broken=True)
            if sample.picture is not None:
                judged = Judged(
                    likeness=self._compare(sample.picture),
                    following=following[i],
                    copied=sample.picture in self._copies,
                    broken=_is_flat(sample.picture),
                )
            found.append(judged)
        return found

    def _photos_to_each_other(self, others: Sequence[Image.Image]) -> float:
        """What new photos of the subject would have: photos trained on, compared with those kept back."""
        some = [photo.image for photo in self._photos.trained[:NUM_COMPARED]]
        if self._photos.held_out:
            compare = self._likeness(self._references, others)
            return fmean(compare(photo) for photo in some)
        if len(some) < 2:
            return 1.0
        return fmean(self._likeness([*some[:i], *some[i + 1 :]], others)(photo) for i, photo in enumerate(some))

    @property
    def _references(self) -> list[Image.Image]:
        return [photo.image for photo in self._photos.references]

    def _likeness(self, references: Sequence[Image.Image], others: Sequence[Image.Image]) -> Likeness:
        if self._faces is not None:
            return SameFace(self._faces, references)
        used = {id(image) for image in references}
        companions = [photo.image for photo in self._photos.trained if id(photo.image) not in used]
        return Appearance(self._parts, references, companions, others)

    @cached_property
    def _copies(self) -> Copies:
        return Copies([photo.image for photo in self._photos.trained])


def _is_flat(picture: Image.Image) -> bool:
    return float(np.asarray(picture.convert("L"), dtype=np.float32).std()) < FLAT_LEVELS

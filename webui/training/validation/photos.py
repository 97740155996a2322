"""What there is to measure with: photos that were trained on, and photos that were kept back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from webui.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredPhoto:
    """A photo as the network is shown it. `sha256` is of its pixels; `image` is RGB of the size it is trained in.

    `latent` (C, h, w) float32; `caption` without anything left out or shuffled; the rest as in `feed.Source`.
    """

    name: str
    sha256: str
    image: Image.Image
    latent: Tensor
    caption: str
    mask: Tensor | None = None
    time_ids: Tensor | None = None
    channels: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotoSets:
    """`trained` and `held_out` have no photo in common."""

    trained: tuple[MeasuredPhoto, ...]
    held_out: tuple[MeasuredPhoto, ...]

    @classmethod
    def of(cls, trained: Iterable[MeasuredPhoto], held_out: Iterable[MeasuredPhoto]) -> "PhotoSets":
        """In the order of their contents, whatever the order they come in.

        Raises InvalidRequest where a photo is in both: measured on it, the network would be praised for its memory.
        """
        sets = cls(trained=_by_content(trained), held_out=_by_content(held_out))
        known = {photo.sha256: photo.name for photo in sets.trained}
        for photo in sets.held_out:
            if photo.sha256 in known:
                raise InvalidRequest(
                    "holdout",
                    f"'{photo.name}', which is kept back to measure with, is also trained on, as "
                    f"'{known[photo.sha256]}'.",
                    hint="Remove one of the two.",
                )
        return sets

    @property
    def references(self) -> Sequence[MeasuredPhoto]:
        """What samples should be like: the photos kept back; where there are none, those trained on."""
        return self.held_out or self.trained


def _by_content(photos: Iterable[MeasuredPhoto]) -> tuple[MeasuredPhoto, ...]:
    return tuple(sorted(photos, key=lambda photo: photo.sha256))

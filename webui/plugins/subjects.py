"""Maskers that extensions give, so that what goes wrong in one is put down to its extension."""

from dataclasses import replace

import numpy as np

from webui.errors import ExtensionError
from webui.plugins.loading import Loaded, failure
from webui.plugins.stages import Blame
from webui.training.data.faces import Pixels
from webui.training.data.subjects import Soft, SubjectMasker


def guarded_masker(extension: Loaded, inner: SubjectMasker, blame: Blame) -> SubjectMasker:
    """`inner`, whose `mask` raises ExtensionError alone; `blame` hears of each."""

    def mask(pixels: Pixels) -> Soft:
        try:
            return _checked(inner.mask(pixels), pixels)
        except (Exception, SystemExit) as error:
            fault = failure(error, extension.folder)
            blame(extension, fault)
            raise fault from error

    return replace(inner, mask=mask)


def _checked(mask: object, pixels: Pixels) -> Soft:
    """Raises ExtensionError for what is no mask of `pixels`."""
    height, width = pixels.shape[:2]
    if not isinstance(mask, np.ndarray) or mask.shape != (height, width) or mask.dtype.kind not in "fiub":
        raise ExtensionError(f"Its masker gave {mask!r:.100}, which is no mask of {width} x {height} pixels.")
    soft = np.asarray(mask, np.float32)
    if not (np.isfinite(soft).all() and soft.min() >= 0 and soft.max() <= 1):
        raise ExtensionError("Its masker gave values that are not between 0 and 1.")
    return soft

"""A face made sharp and clean again by GFPGAN, CodeFormer or their kin; what lies around it stays, bit for bit."""

from dataclasses import dataclass

import numpy as np

from ..face import Face, Pixels
from .aligned import Mask, as_input, cut_out, face_mask, ffhq_template, five_points, paste, similarity
from .catalog import is_weight
from .onnx_file import BrokenModel
from .sessions import Session, index_of
from .swap import as_pixels


@dataclass(frozen=True, slots=True)
class Restored:
    """`mask` (height, width) is exactly 0 where `pixels` are those of the picture."""

    pixels: Pixels
    mask: Mask


class Restorer:
    """A network from a face to a better face, both aligned as FFHQ's and in [-1, 1]."""

    def __init__(self, session: Session) -> None:
        self.session = session
        if session.model.size_px is None:
            raise BrokenModel(session.name, session.model.problem or "it is no face restorer")
        self.size_px = session.model.size_px
        self._output = index_of(session.outputs, 4)

    @property
    def name(self) -> str:
        return self.session.name

    @property
    def has_weight(self) -> bool:
        """Whether `weight` does anything: with CodeFormer, not with GFPGAN."""
        return self.session.model.has_weight

    def restore(self, pixels: Pixels, face: Face, *, weight: float = 0.5, visibility: float = 1.0) -> Restored:
        """`weight` 0 (cleanest) to 1 (truest to the face). `visibility` 0 to 1: how much of the result is mixed in.

        Raises BrokenModel.
        """
        if visibility <= 0:
            return Restored(pixels.copy(), np.zeros(pixels.shape[:2], np.float32))
        try:
            matrix = similarity(five_points(face), ffhq_template(self.size_px))
        except ValueError as error:
            raise BrokenModel(self.name, f"{error}, so that it cannot be cut out") from error
        new = self.improve(cut_out(pixels, matrix, self.size_px), weight=weight)
        mask = face_mask(face, matrix, self.size_px) * np.float32(min(visibility, 1.0))
        pasted = paste(pixels, new, matrix, mask)
        return Restored(pasted.pixels, pasted.mask)

    def improve(self, cutout: Pixels, *, weight: float) -> Pixels:
        """The better face of an aligned cut-out, of the same size."""
        values = [
            np.full([1] * len(port.shape or ()), weight)
            if is_weight(port)
            else as_input(cutout, mean=127.5, scale=127.5)
            for port in self.session.inputs
        ]
        output = self.session.run(*values)[self._output]
        return as_pixels((output + 1) * 127.5, cutout.shape, self.name)

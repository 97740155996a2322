"""Another face in place of one in a picture, by inswapper or its kin; what lies around it stays, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..color import match_colors
from ..face import Face, Pixels
from ..sampling import applied
from .aligned import Mask, arcface_template, as_input, cut_out, face_mask, five_points, paste, similarity
from .catalog import EMBEDDING_SIZE
from .insight import Embedding, unit
from .onnx_file import BrokenModel, NotReadable, read_stored
from .sessions import Floats, Session, index_of

MAX_PIXEL_BOOST = 4


@dataclass(frozen=True, slots=True)
class Swapped:
    """`mask` (height, width) is exactly 0 where `pixels` are those of the picture."""

    pixels: Pixels
    mask: Mask


def _nothing() -> None:
    """Nobody can interrupt."""


class Swapper:
    """A network that paints the face of an ArcFace embedding in the pose of the face it is given."""

    def __init__(self, session: Session) -> None:
        self.session = session
        model = session.model
        if model.graph is None or model.graph.last_stored is None or model.size_px is None:
            raise BrokenModel(model.name, model.problem or "it is no face swapper")
        self.size_px = model.size_px
        try:
            self._map = read_stored(model.path, model.graph.last_stored)
        except NotReadable as error:
            raise BrokenModel(model.name, str(error)) from error
        self._face_first = index_of(session.inputs, 4) == 0
        self._output = index_of(session.outputs, 4)

    @property
    def name(self) -> str:
        return self.session.name

    def swap(
        self,
        pixels: Pixels,
        face: Face,
        source_embedding: Embedding,
        *,
        pixel_boost: int = 1,
        color: float = 0.0,
        check: Callable[[], None] = _nothing,
    ) -> Swapped:
        """`pixel_boost` 1 to MAX_PIXEL_BOOST: times the network's own resolution, at its square in time.

        `color` 0 to 1: how far the new face takes the picture's colours. `check` is called before each run of the
        network. Raises BrokenModel, ValueError for a boost that isn't one.
        """
        if not 1 <= pixel_boost <= MAX_PIXEL_BOOST:
            raise ValueError(f"pixel_boost is {pixel_boost}, not 1 to {MAX_PIXEL_BOOST}")
        size = self.size_px * pixel_boost
        try:
            matrix = similarity(five_points(face), arcface_template(size))
        except ValueError as error:
            raise BrokenModel(self.name, f"{error}, so that it cannot be cut out") from error
        old = cut_out(pixels, matrix, size)
        new = self.paint(old, source_embedding, check=check)
        if color > 0:
            points = np.concatenate([applied(matrix, face.points), face.points[:, 2:]], axis=1).astype(np.float32)
            width = face.width_px * float(np.hypot(matrix[0, 0], matrix[1, 0]))
            new = match_colors(new, old, points, width, color)
        pasted = paste(pixels, new, matrix, face_mask(face, matrix, size))
        return Swapped(pasted.pixels, pasted.mask)

    def paint(self, cutout: Pixels, source_embedding: Embedding, *, check: Callable[[], None] = _nothing) -> Pixels:
        """The new face for an aligned cut-out (n * size_px on a side): n * n interleaved tiles, each painted alone."""
        latent = self.latent(source_embedding)
        boost = cutout.shape[0] // self.size_px
        new = np.empty_like(cutout)
        for row, column in np.ndindex(boost, boost):
            check()
            new[row::boost, column::boost] = self._painted(cutout[row::boost, column::boost], latent)
        return new

    def latent(self, source_embedding: Embedding) -> NDArray[np.float32]:
        """(1, 512) in the network's own space."""
        if source_embedding.shape != (EMBEDDING_SIZE,):
            shape = "x".join(map(str, source_embedding.shape))
            raise BrokenModel(self.name, f"it needs {EMBEDDING_SIZE} numbers of an ArcFace network, not {shape}")
        return unit(unit(source_embedding, self.name) @ self._map, self.name)[None]

    def _painted(self, tile: Pixels, latent: Floats) -> Pixels:
        face = as_input(tile, mean=0, scale=255)
        output = self.session.run(*((face, latent) if self._face_first else (latent, face)))[self._output]
        return as_pixels(output * 255, tile.shape, self.name)


def as_pixels(values: Floats, shape: tuple[int, ...], name: str) -> Pixels:
    """(height, width, 3) bytes of a (1, 3, height, width) output. Raises BrokenModel if it is no picture."""
    if values.shape != (1, 3, *shape[:2]):
        wanted = f"1x3x{shape[0]}x{shape[1]}"
        raise BrokenModel(name, f"it gave {'x'.join(map(str, values.shape))} numbers, not {wanted}")
    if not np.isfinite(values).all():
        raise BrokenModel(name, "it gave NaN or Inf instead of a picture")
    pixels: Pixels = np.clip(np.rint(values[0].transpose(1, 2, 0)), 0, 255).astype(np.uint8)
    return pixels

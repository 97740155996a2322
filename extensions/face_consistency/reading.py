"""Faces of photos for training: where they are, and whose. Keeps nothing and writes nothing down."""

from collections.abc import Sequence

from webui.hooks import SeenFace

from .analysis import Models
from .detection import find_faces
from .face import SAME_PERSON, Pixels
from .identity import MIN_FACE_PX, embed


class PhotoFaces:
    """The program's FaceReader. Opens the networks at once, so MissingFaceModel is raised here and not later."""

    def __init__(self, models: Models) -> None:
        self._models = models
        models.open()

    @property
    def same_person(self) -> float:
        return SAME_PERSON

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        """Largest first, also turned ones; those under 40 px have no embedding."""
        return [
            SeenFace(
                box=face.box,
                embedding=embed(pixels, face, models=self._models) if face.width_px >= MIN_FACE_PX else None,
            )
            for face in find_faces(pixels, models=self._models)
        ]

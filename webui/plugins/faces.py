"""A reader of faces that an extension gives, so that what goes wrong in it is put down to the extension."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from webui.errors import ExtensionError
from webui.plugins.loading import Loaded, failure
from webui.plugins.stages import Blame
from webui.training.data.faces import FaceReader, Pixels, SeenFace

T = TypeVar("T")


class GuardedFaces:
    """Raises ExtensionError alone, also when it is made of something that is no reader; `blame` hears of each."""

    def __init__(self, extension: Loaded, inner: FaceReader, blame: Blame) -> None:
        self._extension = extension
        self._inner = inner
        self._blame = blame
        self._same_person = self._run(lambda: float(inner.same_person))

    @property
    def same_person(self) -> float:
        return self._same_person

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        return self._run(lambda: _checked(self._inner.read(pixels)))

    def _run(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (Exception, SystemExit) as error:
            fault = failure(error, self._extension.folder)
            self._blame(self._extension, fault)
            raise fault from error


def _checked(found: object) -> Sequence[SeenFace]:
    """Raises ExtensionError for what would be trouble only later."""
    if not isinstance(found, list | tuple) or not all(isinstance(face, SeenFace) for face in found):
        raise ExtensionError(f"Its face reader returned {found!r:.200}, which is no list of SeenFace.")
    for face in found:
        embedding = face.embedding
        if embedding is not None and not (
            isinstance(embedding, np.ndarray) and embedding.ndim == 1 and np.isfinite(embedding).all()
        ):
            raise ExtensionError("Its face reader returned an embedding that is no row of numbers.")
    return found

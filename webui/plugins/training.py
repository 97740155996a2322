"""Faces for a training, by whichever extension reads them. What goes wrong there is told once and stops no training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from webui.errors import ExtensionError
from webui.plugins.host import PluginHost
from webui.settings import Settings
from webui.training.data.faces import FaceReader, Pixels, SeenFace

Warn = Callable[[str], None]


@contextmanager
def faces_for_training(settings: Settings, warn: Warn) -> Iterator[FaceReader | None]:
    """Loads the extensions and unloads them in the end. `warn` is told why nobody reads faces, or stops to."""
    with closing(PluginHost(settings)) as host:
        host.load()
        reader = host.face_reader()
        if reader is None:
            warn(_told(host.why_no_faces()))
        yield None if reader is None else _Lasting(reader, warn)


class _Lasting:
    """Reads until it cannot any more; from then on there are no faces."""

    def __init__(self, inner: FaceReader, warn: Warn) -> None:
        self._inner: FaceReader | None = inner
        self._warn = warn
        self._same_person = inner.same_person

    @property
    def same_person(self) -> float:
        return self._same_person

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        if self._inner is None:
            return ()
        try:
            return self._inner.read(pixels)
        except ExtensionError as error:
            self._inner = None
            self._warn(_told(error.message))
            return ()


def _told(why: str) -> str:
    return f"Faces cannot be read: {why} Crops and likeness go by the whole picture."

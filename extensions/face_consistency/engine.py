"""What all of the extension's doors share: the networks, the saved faces, the consent. One per running extension."""

from dataclasses import dataclass, field
from functools import lru_cache

from webui.hooks import ExtensionContext

from .analysis import Models
from .backends.catalog import ROOM
from .backends.sessions import Provider
from .backends.shelf import Backends
from .consent import ConsentBook
from .face_models import FaceModelStore
from .params import FaceSettings
from .seen import SeenPictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Everything in it may be used from any thread."""

    models: Models
    backends: Backends
    saved: FaceModelStore
    consent: ConsentBook
    seen: SeenPictures = field(default_factory=SeenPictures)

    def close(self) -> None:
        """Frees the networks, which the next use opens again, and forgets who was seen."""
        self.seen.clear()
        self.models.close()
        self.backends.close()


def engine_of(context: ExtensionContext) -> Engine:
    settings = context.settings()
    return _engine(context, settings.provider if isinstance(settings, FaceSettings) else "auto")


@lru_cache(maxsize=2)
def _engine(context: ExtensionContext, provider: Provider) -> Engine:
    """Another `provider` makes a new one; the old one goes when nobody works with it any more."""
    return Engine(
        models=Models(context.folder / "models", added=tuple(folder / ROOM for folder in context.models_dirs)),
        backends=Backends(context.models_dirs, provider),
        saved=FaceModelStore(
            context.data_dir / "faces", also=tuple(folder / "reactor" / "faces" for folder in context.models_dirs)
        ),
        consent=ConsentBook(context.data_dir),
    )

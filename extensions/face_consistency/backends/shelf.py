"""The user's face models, opened when first needed and kept open until told to let go."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .catalog import FaceModel, FaceModels, Role, find_models
from .insight import ArcFace, Detector, GenderAge
from .objects import ObjectDetector
from .restore import Restorer
from .safety import SafetyCheck
from .sessions import Provider, Session
from .swap import Swapper

Backend = TypeVar("Backend", ArcFace, Detector, GenderAge, ObjectDetector, Restorer, SafetyCheck, Swapper)
AnyBackend = ArcFace | Detector | GenderAge | ObjectDetector | Restorer | SafetyCheck | Swapper
Stamp = tuple[Path, int, int]

ALONE: frozenset[Role] = frozenset({"swapper", "restorer"})
"""Hundreds of megabytes each: of these, only the last one used stays open."""


class Backends:
    """One per extension; every method may be called from any thread.

    All but `models` and `close` raise MissingModel if there is no such file, BrokenModel if it cannot be opened.
    `name` is as `FaceModel.name`, "" takes the first.
    """

    def __init__(self, models_dirs: Sequence[Path], provider: Provider = "auto") -> None:
        self.models_dirs = tuple(models_dirs)
        self.provider: Provider = provider
        self._lock = threading.Lock()
        self._known = FaceModels()
        self._open: dict[tuple[Role, Path], tuple[Stamp, Session, AnyBackend]] = {}

    def models(self) -> FaceModels:
        """What is there now."""
        self._known = find_models(self.models_dirs, self._known)
        return self._known

    def swapper(self, name: str = "") -> Swapper:
        return self._get("swapper", name, Swapper)

    def restorer(self, name: str = "") -> Restorer:
        return self._get("restorer", name, Restorer)

    def arcface(self, name: str = "") -> ArcFace:
        return self._get("embedder", name, ArcFace)

    def detector(self, name: str = "") -> Detector:
        return self._get("detector", name, Detector)

    def gender_age(self, name: str = "") -> GenderAge:
        return self._get("gender_age", name, GenderAge)

    def objects(self, name: str = "") -> ObjectDetector:
        return self._get("objects", name, ObjectDetector)

    def safety(self, name: str = "") -> SafetyCheck:
        return self._get("safety", name, SafetyCheck)

    def close(self) -> None:
        """Frees every network. The next call opens anew."""
        with self._lock:
            for _, session, _ in self._open.values():
                session.close()
            self._open.clear()

    def _get(self, role: Role, name: str, make: Callable[[Session], Backend]) -> Backend:
        with self._lock:
            model = self.models().find(role, name)
            known = self._open.get((role, model.path))
            if known is None or known[0] != _stamp(model):
                self._let_go(role, model)
                session = Session(model, self.provider)
                known = (_stamp(model), session, make(session))
                self._open[role, model.path] = known
            return known[2]  # type: ignore[return-value]  # the role says which one it is

    def _let_go(self, role: Role, model: FaceModel) -> None:
        """Closes what is out of date, and the other large ones of this role."""
        for key in [key for key in self._open if key[0] == role and (role in ALONE or key[1] == model.path)]:
            self._open.pop(key)[1].close()


def _stamp(model: FaceModel) -> Stamp:
    return model.path, model.size_bytes, model.modified_ns

"""Tells extensions where a generation is, and takes what they put in place of its results. Imports no torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from webui.generation.postprocess import Additions, Moment, Stage
from webui.generation.request import GenerationRequest

T = TypeVar("T")


class Stages:
    """The stages of one request. What extensions have to say goes to `tell`."""

    def __init__(self, additions: Additions, request: GenerationRequest, tell: Callable[[str], None]) -> None:
        self._additions = additions
        self._request = request
        self._tell = tell

    def before(self, stage: Stage, indices: Sequence[int]) -> None:
        """Pictures `indices` enter `stage`."""
        moment = Moment(stage=stage, request=self._request, indices=tuple(indices))
        for note in self._additions.before_stage(moment):
            self._tell(note)

    def after(self, stage: Stage, indices: Sequence[int], result: T, *, path: Path | None = None) -> T:
        """`result`, or what an extension put in its place: of the same type and shape, a picture of any size."""
        moment = Moment(stage=stage, request=self._request, indices=tuple(indices), path=path)
        put: T
        put, notes = self._additions.after_stage(moment, result)
        for note in notes:
            self._tell(note)
        return put

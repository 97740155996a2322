"""Tells extensions where a generation is, and takes what they put in place of its results. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from PIL import Image

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
        """`result`, or what an extension put in its place, if that is of the same kind."""
        moment = Moment(stage=stage, request=self._request, indices=tuple(indices), path=path)
        put, notes = self._additions.after_stage(moment, result)
        for note in notes:
            self._tell(note)
        if put is result or stage not in _FITS:
            return result
        if not _FITS[stage](put, result):
            self._tell(f"What an extension put in place of the result of '{stage}' does not fit; it was left out.")
            return result
        taken: T = put
        return taken


def _are_latents(put: Any, result: Any) -> bool:
    return isinstance(put, type(result)) and (put.shape, put.dtype, put.device) == (
        result.shape,
        result.dtype,
        result.device,
    )


def _are_pictures(put: Any, result: Any) -> bool:
    """They may be pasted into a larger picture, so their size stays."""
    return (
        isinstance(put, list)
        and len(put) == len(result)
        and all(_is_picture(one, other) and one.size == other.size for one, other in zip(put, result, strict=True))
    )


def _is_picture(put: Any, result: Any) -> bool:
    return isinstance(put, Image.Image) and put.mode == "RGB" and min(put.size) > 0


_FITS: Mapping[Stage, Callable[[Any, Any], bool]] = MappingProxyType(
    {"denoise": _are_latents, "decode": _are_pictures, "postprocess": _is_picture}
)
"""By the stages that have a result."""

"""What cannot run is refused before it waits in the queue, with the field to mend."""

from collections.abc import Callable
from typing import Any

from webui.hooks import InvalidRequest, WebUIError

from .engine import Engine
from .face_models import SavedFace
from .params import FaceParams


def check_faces(params: FaceParams, engine: Engine, *, has_init: bool, can_refine: bool) -> None:
    """Raises InvalidRequest. `has_init`: there is a picture that the target is made from."""
    saved = _saved(params, engine)
    if not has_init and not params.photos and saved is None:
        raise InvalidRequest(
            "photos",
            "There is no picture to take the face from: this one starts from nothing but a prompt, or is finished.",
            hint="Add a photo of the person, or name a saved face.",
        )
    if saved is not None and not params.photos and params.warp and not params.swap:
        raise InvalidRequest("photos", saved.needs_pixels_message, hint="Add a photo, or switch Warp off and Swap on.")
    if params.faces == "alike" and not params.reference:
        raise InvalidRequest("reference", "There is no reference to compare the faces with.", hint="Add a picture.")
    if params.faces == "numbers" and not any(number >= 1 for number in params.numbers):
        raise InvalidRequest("numbers", "No face is named by its number.", hint="1 is the first.")
    if params.refine and not can_refine:
        raise InvalidRequest("refine", "Refining repaints with a checkpoint, and none is chosen.", hint="Choose one.")
    _check_models(params, engine, saved)


def _saved(params: FaceParams, engine: Engine) -> SavedFace | None:
    if not params.saved_face:
        return None
    saved = _found("saved_face", lambda: engine.saved.read(params.saved_face))
    assert isinstance(saved, SavedFace)
    if saved.cannot_compare_message and not params.photos and not params.swap:
        raise InvalidRequest("saved_face", saved.cannot_compare_message)
    if params.swap and not params.photos and saved.cannot_swap_message:
        raise InvalidRequest("saved_face", saved.cannot_swap_message)
    return saved


def _check_models(params: FaceParams, engine: Engine, saved: SavedFace | None) -> None:
    wanted = params.swap or params.restore or params.gender != "any" or params.safety != "off"
    if not wanted:
        return
    models = engine.backends.models()
    if params.swap:
        _found("swap_model" if params.swap_model else "swap", lambda: models.find("swapper", params.swap_model))
        if params.photos or saved is None:
            _found("swap", lambda: models.find("embedder"))
    if params.restore:
        field = "restore_model" if params.restore_model else "restore"
        _found(field, lambda: models.find("restorer", params.restore_model))
    if params.gender != "any":
        _found("gender", lambda: models.find("gender_age"))
    if params.safety != "off":
        _found("safety", lambda: models.find("safety"))


def _found(field: str, find: Callable[[], Any]) -> Any:
    """What `find` gives; its refusal as one of `field`."""
    try:
        return find()
    except WebUIError as error:
        raise InvalidRequest(field, error.message, hint=error.hint) from error

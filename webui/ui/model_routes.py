"""The pages' routes to the library: cards, all about one model, its preview, and the user's notes on it."""

import io
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from webui.errors import InvalidRequest, UnreadableImage, WebUIError
from webui.generation.recommended import FIELD
from webui.images.reading import flatten, open_image
from webui.library import cards
from webui.library.catalog import Library, ModelFile
from webui.library.scan import RoomKind
from webui.services import Services
from webui.ui.controls import controls_for
from webui.ui.guard import owner_of
from webui.ui.stream import JobViews

SHOWN: tuple[RoomKind, ...] = ("checkpoint", "adapter", "embedding", "vae", "hypernetwork")
PREVIEW_SIDE_PX = 320
MAX_PREVIEW_PIXELS = 40_000_000
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}


class ShownPicture(BaseModel):
    """A picture of one of the owner's jobs."""

    job: str = Field(max_length=64)
    index: int


def build_model_router(services: Services, views: JobViews) -> APIRouter:
    router = APIRouter()
    library = services.library

    @router.get("/models")
    def models(seen: Annotated[str, Query(max_length=64)] = "") -> dict[str, Any]:
        """Every card, or nothing but the stamp if that is `seen`."""
        for kind in SHOWN:
            library.files(kind)  # looks into the folders, which may change the stamp
        stamp = library.stamp()
        if stamp == seen:
            return {"stamp": stamp}
        # What comes after the stamp is sent now and once more; what came before it would be missed.
        return {"stamp": stamp, "cards": [_card(file) for kind in SHOWN for file in library.files(kind)]}

    @router.get("/models/{model_id}")
    def model(model_id: str) -> dict[str, Any]:
        file = _file(services, model_id)
        known = cards.details(file, library.checkpoint_of(file), library.hashes_of(file))
        return {**known, **_made_for(file)}

    @router.get("/models/{model_id}/preview")
    def preview(model_id: str) -> Response:
        return _preview(_file(services, model_id))

    @router.post("/models/{model_id}/notes")
    def notes(model_id: str, changes: Annotated[dict[str, str | float | None], Body()]) -> Response:
        file = _file(services, model_id)

        def write() -> None:
            controls_for(str(changes.get(FIELD) or ""))
            library.write_notes(file, changes)

        return _told(write)

    @router.post("/models/{model_id}/preview")
    def use_as_preview(request: Request, model_id: str, shown: ShownPicture) -> Response:
        file = _file(services, model_id)
        return _told(lambda: _keep_preview(views, library, file, shown, owner_of(request)))

    return router


def _file(services: Services, model_id: str) -> ModelFile:
    try:
        return services.library.file(model_id)
    except WebUIError as error:
        raise HTTPException(404, "This model is not there any more.") from error


def _card(file: ModelFile) -> dict[str, Any]:
    return {**cards.card(file), "settings": _made_for(file)["settings"]}


def _made_for(file: ModelFile) -> dict[str, Any]:
    """The `settings` it is made for, by control, and why they cannot be used, if so."""
    try:
        return {"settings": controls_for(file.notes.recommended_settings), "settings_problem": ""}
    except InvalidRequest as error:
        return {"settings": {}, "settings_problem": str(error)}


def _told(action: Callable[[], None]) -> Response:
    """What went wrong, in words for the page."""
    try:
        action()
    except WebUIError as error:
        return JSONResponse({"message": str(error)}, 400)
    return Response(status_code=204)


def _keep_preview(views: JobViews, library: Library, file: ModelFile, shown: ShownPicture, owner: str) -> None:
    picture = views.picture(shown.job, shown.index, owner)
    library.write_preview(file, open_image(picture.path, max_pixels=MAX_PREVIEW_PIXELS))


def _preview(file: ModelFile) -> Response:
    """A small JPEG of the preview beside the model, or of the one in its metadata."""
    source = file.preview or cards.thumbnail_of(file.path)
    if source is None:
        raise HTTPException(404, "This model has no preview.")
    try:
        image = flatten(open_image(source, max_pixels=MAX_PREVIEW_PIXELS, name="The preview"))
    except UnreadableImage as error:
        raise HTTPException(404, str(error)) from error
    image.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return Response(data.getvalue(), media_type="image/jpeg", headers=UNCHANGING)

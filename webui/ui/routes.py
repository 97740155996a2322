"""The pages' own routes: jobs to look at and to stop, and original pictures. For their owner only."""

import io
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from PIL import Image

from webui.errors import WebUIError
from webui.services import Services
from webui.ui.controls import Task
from webui.ui.guard import owner_of
from webui.ui.stream import JobViews, Picture

PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
THUMB_SIDE_PX = 320
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}


def build_router(services: Services, views: JobViews) -> APIRouter:
    router = APIRouter()

    @router.get("/jobs")
    def jobs(
        request: Request,
        task: Task = "txt2img",
        picked: Annotated[str, Query(max_length=64)] = "",
        kept: Annotated[str, Query(max_length=64)] = "",
        seen: Annotated[str, Query(max_length=128)] = "",
    ) -> dict[str, Any]:
        return views.page(owner_of(request), task, picked=picked, kept=kept, seen=seen)

    @router.post("/jobs/{job_id}/interrupt")
    def interrupt(request: Request, job_id: str) -> dict[str, bool]:
        _own(views, job_id, request)
        return {"done": services.queue.interrupt(job_id)}

    @router.post("/jobs/{job_id}/skip")
    def skip(request: Request, job_id: str) -> dict[str, bool]:
        _own(views, job_id, request)
        return {"done": services.queue.skip(job_id)}

    @router.get("/pictures/{job_id}/before")
    def before(request: Request, job_id: str) -> Response:
        _own(views, job_id, request)
        return _input_picture(services, job_id)

    @router.get("/pictures/{job_id}/{index}")
    def picture(request: Request, job_id: str, index: int, download: bool = False) -> FileResponse:
        path = _picture(views, job_id, index, request).path
        disposition = "attachment" if download else "inline"
        return FileResponse(
            path,
            media_type=PICTURE_TYPES[path.suffix.lower()],
            headers={**UNCHANGING, "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(path.name)}"},
        )

    @router.get("/pictures/{job_id}/{index}/thumb")
    def thumb(request: Request, job_id: str, index: int) -> Response:
        return _thumb(_picture(views, job_id, index, request).path)

    @router.get("/pictures/{job_id}/{index}/parameters")
    def parameters(request: Request, job_id: str, index: int) -> PlainTextResponse:
        return PlainTextResponse(_picture(views, job_id, index, request).infotext, headers=UNCHANGING)

    return router


def _own(views: JobViews, job_id: str, request: Request) -> None:
    try:
        views.owned(job_id, owner_of(request))
    except WebUIError as error:
        raise HTTPException(404, str(error)) from error


def _picture(views: JobViews, job_id: str, index: int, request: Request) -> Picture:
    try:
        picture = views.picture(job_id, index, owner_of(request))
    except WebUIError as error:
        raise HTTPException(404, str(error)) from error
    if picture.path.suffix.lower() not in PICTURE_TYPES:
        raise HTTPException(404, "This is not a picture.")
    return picture


def _thumb(path: Path) -> Response:
    """Small pictures as they are, larger ones reduced; for looking at only."""
    with Image.open(path) as image:
        if max(image.size) <= THUMB_SIDE_PX:
            return FileResponse(path, media_type=PICTURE_TYPES[path.suffix.lower()], headers=UNCHANGING)
        image.thumbnail((THUMB_SIDE_PX, THUMB_SIDE_PX))
        data = io.BytesIO()
        image.convert("RGB").save(data, "JPEG", quality=88)
    return Response(data.getvalue(), media_type="image/jpeg", headers=UNCHANGING)


def _input_picture(services: Services, job_id: str) -> Response:
    """What an img2img or inpaint job started from, lossless."""
    name = services.queue.record(job_id).payload.get("image")
    if name is None:
        raise HTTPException(404, "This job started from a prompt only.")
    try:
        image = services.inputs.get(name)
    except WebUIError as error:
        raise HTTPException(404, str(error)) from error
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return Response(data.getvalue(), media_type="image/png", headers=UNCHANGING)

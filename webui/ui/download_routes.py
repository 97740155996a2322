"""The pages' routes to downloads: ask for one, look at them, go on with or throw away a stopped one."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from webui.errors import InvalidRequest, WebUIError
from webui.jobs.record import JobRecord
from webui.library.downloads.download import DownloadRequest
from webui.services import DOWNLOAD, Services
from webui.ui.downloads import list_downloads
from webui.ui.guard import owner_of
from webui.ui.stream import JobViews


def build_download_router(services: Services, views: JobViews) -> APIRouter:
    router = APIRouter()

    @router.get("/downloads")
    def downloads(request: Request) -> dict[str, Any]:
        return {"enabled": services.settings.downloads, "downloads": list_downloads(services, owner_of(request))}

    @router.post("/downloads")
    def get_model(request: Request, wanted: DownloadRequest) -> JSONResponse:
        return _submit(services, wanted, owner_of(request))

    @router.post("/downloads/{job_id}/resume")
    def resume(request: Request, job_id: str) -> JSONResponse:
        job = _own(views, job_id, request)
        return _submit(services, DownloadRequest.model_validate(job.payload), owner_of(request))

    @router.post("/downloads/{job_id}/discard")
    def discard(request: Request, job_id: str) -> dict[str, bool]:
        job = _own(views, job_id, request)
        if not job.state.ended:
            raise HTTPException(409, "It runs still. Stop it first.")
        try:
            services.discard_download(DownloadRequest.model_validate(job.payload))
        except WebUIError as error:
            raise HTTPException(409, str(error)) from error
        return {"done": True}

    return router


def _submit(services: Services, wanted: DownloadRequest, owner: str) -> JSONResponse:
    try:
        return JSONResponse({"id": services.download(wanted, owner=owner).id})
    except WebUIError as error:
        field = error.field if isinstance(error, InvalidRequest) else ""
        return JSONResponse({"message": error.message, "hint": error.hint, "field": field}, 422)


def _own(views: JobViews, job_id: str, request: Request) -> JobRecord:
    try:
        job = views.owned(job_id, owner_of(request))
    except WebUIError as error:
        raise HTTPException(404, str(error)) from error
    if job.kind != DOWNLOAD:
        raise HTTPException(404, "This is not a download.")
    return job

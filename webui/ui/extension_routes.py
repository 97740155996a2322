"""The Extensions tab's routes: the list, switches, settings, models, and installing. The extensions' own routes are
beneath `/extensions`, see webui/plugins/routes.py.

Who may open the page may look. Switches and settings need a login where others can reach the page; installing,
updating and removing is for whoever sits at this machine.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from webui.errors import InvalidRequest
from webui.plugins.installing import Installer
from webui.services import Services
from webui.ui.extensions_page import Installation, Listing, comes_from_here, proposal_json, why_no_changes
from webui.ui.forms import fields_of, read
from webui.ui.guard import owner_of
from webui.ui.refusing import RefusingRoute

MAX_ZIP_BYTES = 300_000_000
NOT_HERE = "This page was not opened on the machine itself; extensions are installed, updated and removed only there."


class ModelWish(BaseModel):
    """`licence` is what the user was shown and agreed to."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(max_length=1000)
    licence: str = Field(max_length=200)


def build_extension_router(services: Services, installer: Installer) -> APIRouter:
    router = APIRouter(route_class=RefusingRoute)
    installation = Installation(installer)
    _add_list(router, services, installer, installation)
    _add_changes(router, services)
    _add_installs(router, installer, installation)
    return router


def why_no_installs_for(request: Request, installer: Installer) -> str:
    """As `rights.why_no_installs`, for who asks; "" if nothing is against it."""
    client = "" if request.client is None else request.client.host
    return installer.why_not() or ("" if comes_from_here(client, request.headers) else NOT_HERE)


def _add_list(router: APIRouter, services: Services, installer: Installer, installation: Installation) -> None:
    listing, host = Listing(services), services.host

    @router.get("/installed-extensions")
    def installed(request: Request) -> dict[str, Any]:
        no_installs = why_no_installs_for(request, installer)
        proposal = None if no_installs else installer.proposal()
        return {
            "extensions": listing.of(owner_of(request), with_paths=not no_installs),
            "problem": host.problem(),
            "no_changes": why_no_changes(services.settings),
            "no_installs": no_installs,
            "downloads": services.settings.downloads,
            "proposal": None if proposal is None else proposal_json(proposal),
            "installation": None if no_installs else installation.state(),
        }


def _add_changes(router: APIRouter, services: Services) -> None:
    host = services.host

    def require_right() -> None:
        if reason := why_no_changes(services.settings):
            raise InvalidRequest("id", reason)

    @router.post("/installed-extensions/refresh")
    def refresh() -> dict[str, bool]:
        require_right()
        host.refresh()
        return {"done": True}

    @router.post("/installed-extensions/{id}/switch")
    def switch(id: str, on: Annotated[bool, Body(embed=True)]) -> dict[str, Any]:
        require_right()
        extension = host.enable(id) if on else host.disable(id)
        return {"state": extension.state, "needs_restart": extension.needs_restart}

    @router.post("/installed-extensions/{id}/settings")
    def change_settings(id: str, values: Annotated[dict[str, Any], Body(embed=True)]) -> dict[str, bool]:
        require_right()
        model = host.extension(id).settings_model
        if model is None:
            raise InvalidRequest("id", f"The extension '{id}' has no settings, or does not run.")
        fields = fields_of(model)
        missing = next((field for field in fields if field.name not in values), None)
        if missing is not None:
            raise InvalidRequest(missing.name, f"{missing.label} is missing.", hint="Reload the page.")
        host.change_settings(id, read(model, fields, values))
        return {"done": True}

    @router.post("/installed-extensions/{id}/models")
    def get_model(request: Request, id: str, wish: ModelWish) -> dict[str, str]:
        job = services.get_extension_model(id, wish.file, licence=wish.licence, owner=owner_of(request))
        return {"id": job.id}


def _add_installs(router: APIRouter, installer: Installer, installation: Installation) -> None:
    def require_right(request: Request) -> None:
        if reason := why_no_installs_for(request, installer):
            raise InvalidRequest("source", reason)

    @router.post("/installed-extensions/{id}/check")
    def check(request: Request, id: str) -> dict[str, Any]:
        require_right(request)
        return asdict(installer.update_state(id))

    @router.post("/installed-extensions/{id}/update")
    def update(request: Request, id: str) -> dict[str, Any]:
        require_right(request)
        return proposal_json(installer.update(id))

    @router.post("/installed-extensions/{id}/remove")
    def remove(request: Request, id: str) -> dict[str, bool]:
        require_right(request)
        installer.remove(id)
        return {"done": True}

    @router.post("/extension-installs/folder")
    def from_folder(request: Request, path: Annotated[str, Body(embed=True, max_length=4096)]) -> dict[str, Any]:
        require_right(request)
        return proposal_json(installer.from_folder(path))

    @router.post("/extension-installs/git")
    def from_git(
        request: Request,
        url: Annotated[str, Body(max_length=4096)],
        ref: Annotated[str, Body(max_length=300)] = "",
    ) -> dict[str, Any]:
        require_right(request)
        return proposal_json(installer.from_git(url, ref))

    @router.post("/extension-installs/zip")
    async def from_zip(request: Request, name: str = "extension.zip") -> Mapping[str, Any]:
        require_right(request)
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "upload.zip"
            await _save_body(request, archive)
            proposal = await run_in_threadpool(installer.from_zip, archive, Path(name).name[:200])
        return proposal_json(proposal)

    @router.post("/extension-installs/{token}/confirm")
    def confirm(request: Request, token: str) -> dict[str, bool]:
        require_right(request)
        installation.start(token)
        return {"done": True}

    @router.post("/extension-installs/{token}/discard")
    def discard(request: Request, token: str) -> dict[str, bool]:
        require_right(request)
        installer.discard(token)
        return {"done": True}


async def _save_body(request: Request, path: Path) -> None:
    size = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_ZIP_BYTES:
                raise InvalidRequest("zip", f"The zip file is larger than {MAX_ZIP_BYTES // 10**6} MB.")
            file.write(chunk)

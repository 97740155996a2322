"""The extensions' own routes, beneath `/extensions/ID/`: gone while one is off, and its own mistakes stay its own."""

import logging
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from webui.errors import ExtensionError, InvalidRequest, WebUIError
from webui.plugins.host import PluginHost
from webui.plugins.loading import Loaded, failure

LOG = logging.getLogger(__name__)


class ExtensionRoutes:
    """ASGI application, to be mounted behind the guard. Takes no websockets: the guard does not look at them."""

    def __init__(self, host: PluginHost) -> None:
        self._host = host
        self._apps: dict[str, tuple[Loaded, ASGIApp | None]] = {}
        self._router = Router(routes=[Mount("/{extension}", app=self._serve)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._router(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        id = scope["path_params"]["extension"]
        loaded = self._host.loaded(id)
        app = None if loaded is None else await run_in_threadpool(self._app_of, loaded)
        if loaded is None or app is None:
            await self._absent(id)(scope, receive, send)
            return
        try:
            await app(scope, receive, send)
        except Exception as error:
            LOG.exception("A route of the extension %s failed.", id)
            self._host.blame(loaded, _told(scope["path"], error, loaded))

    def _absent(self, id: str) -> JSONResponse:
        try:
            extension = self._host.extension(id)
        except InvalidRequest as error:
            return JSONResponse({"detail": error.message}, 404)
        if extension.state == "on":
            return JSONResponse({"detail": f"{extension.title} has no routes."}, 404)
        why = " ".join(extension.problems) if extension.state == "failed" else "It is switched off."
        return JSONResponse({"detail": f"{extension.title} does not run. {why}"}, 503)

    def _app_of(self, loaded: Loaded) -> ASGIApp | None:
        known = self._apps.get(loaded.id)
        if known is not None and known[0] is loaded:
            return known[1]
        app = _built(self._host.router(loaded.id))
        self._apps[loaded.id] = (loaded, app)
        return app


def _built(router: Any) -> ASGIApp | None:
    if not isinstance(router, APIRouter):
        return None
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    app.add_exception_handler(WebUIError, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


def _refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 400)


def _failed(request: Request, error: Exception) -> JSONResponse:
    """Starlette raises the error again after this answer, so it is put down to the extension above."""
    return JSONResponse({"detail": "The extension failed here; the Extensions page and the log say how."}, 500)


def _told(path: str, error: Exception, loaded: Loaded) -> ExtensionError:
    told = failure(error, loaded.folder)
    return ExtensionError(f"Its route {path} failed: {told.message}", hint=told.hint)

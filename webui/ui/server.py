"""The web application: our own routes, those of extensions, and the Gradio pages beneath them, behind one guard."""

import gradio as gr
from fastapi import FastAPI, Request
from starlette.middleware.gzip import GZipMiddleware

from webui.plugins.installing import Installer
from webui.plugins.routes import ExtensionRoutes
from webui.services import Services
from webui.ui.download_routes import build_download_router
from webui.ui.extension_routes import build_extension_router
from webui.ui.guard import Guard, owner_of
from webui.ui.model_routes import build_model_router
from webui.ui.pages import build_blocks
from webui.ui.routes import build_router
from webui.ui.stream import JobViews
from webui.ui.theme import ASSETS, STYLES, build_head, build_theme
from webui.ui.tool_routes import build_tool_router
from webui.ui.training_assist_routes import build_training_assist_router
from webui.ui.training_run_routes import build_training_run_router
from webui.ui.training_set_routes import build_training_set_router

MAX_UPLOAD = "200mb"
"""An uncompressed picture of the largest size that may be opened."""
MAX_WAITING_EVENTS = 64


def build_app(services: Services) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    app.add_middleware(Guard, settings=services.settings)
    views = JobViews(services)
    app.include_router(build_router(services, views))
    app.include_router(build_model_router(services, views))
    app.include_router(build_download_router(services, views))
    app.include_router(build_tool_router(services))
    app.include_router(build_training_run_router(services))
    app.include_router(build_extension_router(services, Installer(services.settings, services.host)))
    app.include_router(build_training_set_router(services))
    app.include_router(build_training_assist_router(services))
    app.mount("/extensions", ExtensionRoutes(services.host))
    blocks = build_blocks(services, views)
    blocks.queue(default_concurrency_limit=8, max_size=MAX_WAITING_EVENTS)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        auth_dependency=_login_of if services.settings.user else None,
        max_file_size=MAX_UPLOAD,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        theme=build_theme(),
        css_paths=[ASSETS / name for name in STYLES],
        head=build_head(),
    )
    return app


def _login_of(request: Request) -> str:
    """The guard has let the request through, so its owner is logged in."""
    return owner_of(request)

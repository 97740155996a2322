"""The pages' routes to tools: ask for one, look at them."""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from webui.errors import InvalidRequest, WebUIError
from webui.library.tool_requests import ToolRequest, parse_blocks, parse_tool_request
from webui.services import Services
from webui.ui.guard import owner_of
from webui.ui.tools import list_tools

SUFFIX = ".safetensors"


def build_tool_router(services: Services) -> APIRouter:
    router = APIRouter()

    @router.get("/tools")
    def tools(request: Request) -> dict[str, Any]:
        return {"enabled": services.settings.tools, "tools": list_tools(services, owner_of(request))}

    @router.post("/tools")
    def run_tool(request: Request, values: Annotated[dict[str, Any], Body()]) -> JSONResponse:
        try:
            job = services.run_tool(request_of(values), owner=owner_of(request))
        except WebUIError as error:
            field = error.field if isinstance(error, InvalidRequest) else ""
            return JSONResponse({"message": error.message, "hint": error.hint, "field": field}, 422)
        return JSONResponse({"id": job.id})

    return router


def request_of(values: Mapping[str, Any]) -> ToolRequest:
    """A filled-in form: `blocks` is text, and the new model's name needs no suffix. Raises InvalidRequest."""
    written = dict(values)
    blocks = str(written.pop("blocks", "")).strip()
    if blocks:
        written["blocks"] = parse_blocks(blocks)
    name = unicodedata.normalize("NFC", str(written.get("destination", "")).strip()).removesuffix(SUFFIX)
    request = parse_tool_request({**written, "destination": name})
    if not name or request.makes_folder:
        return request
    return request.model_copy(update={"destination": name + SUFFIX})

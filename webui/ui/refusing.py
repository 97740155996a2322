"""Routes that answer a refusal with its words: 422 with message, hint and the field it is about."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from webui.errors import InvalidRequest, WebUIError


class RefusingRoute(APIRoute):
    """Answers a WebUIError with its words, and so a value that is none of its field's."""

    def get_route_handler(self) -> Callable[..., Any]:
        handler = super().get_route_handler()

        async def refusing(request: Request) -> Any:
            try:
                return await handler(request)
            except WebUIError as error:
                field = error.field if isinstance(error, InvalidRequest) else ""
                return JSONResponse({"message": error.message, "hint": error.hint, "field": field}, 422)
            except RequestValidationError as error:
                return JSONResponse(_told(error), 422)

        return refusing


def _told(error: RequestValidationError) -> dict[str, str]:
    """Of the first value that is wrong."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    return {"message": f"{field}: {first['msg']}." if field else f"{first['msg']}.", "hint": "", "field": field}

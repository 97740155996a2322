"""Who may talk to this program: checked once, before any page, file or route.

Refuses other host names (DNS rebinding), requests that other web pages send (CSRF, uploads included) and, when a login
is set, everybody without it. Gives every browser its own identity, so that its jobs and pictures are its own.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui.settings import Settings

COOKIE = "atelier_browser"
COOKIE_AGE_S = 400 * 24 * 3600
WRONG_LOGIN_DELAY_S = 1.0
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")

# Nothing that the pages load or send may leave this machine, not even by accident. Gradio needs inline scripts and
# `new Function` for its components.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)


class Guard:
    """ASGI middleware; the outermost one."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._user = settings.user
        self._password = settings.password.get_secret_value()
        self._any_address = settings.host in ("0.0.0.0", "::", "")
        self._names = {"localhost", "127.0.0.1", "::1", settings.host.lower()}
        if self._any_address:
            self._names |= _own_names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._foreign(scope["method"], headers) or await self._not_logged_in(headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        token = _browser_token(headers.get("cookie", ""))
        new_token = "" if token or self._user else secrets.token_urlsafe(24)
        owner = f"user:{self._user}" if self._user else f"browser:{token or new_token}"
        scope["state"] = {**scope.get("state", {}), "owner": owner}
        await self._app(scope, receive, _with_headers(send, new_token, https=scope["scheme"] == "https"))

    def _foreign(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_own(_host_name(host)):
            return PlainTextResponse("This is not a name of this server.", 400)
        if method in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = headers.get("origin")
        if (origin is not None and urlsplit(origin).netloc != host) or headers.get("sec-fetch-site") == "cross-site":
            return PlainTextResponse("Requests from other web pages are refused.", 403)
        return None

    def _is_own(self, name: str) -> bool:
        return name in self._names or (self._any_address and _is_address(name))

    async def _not_logged_in(self, headers: Headers) -> Response | None:
        if not self._user:
            return None
        given = _basic_credentials(headers.get("authorization", ""))
        if given is not None and _same(given[0], self._user) & _same(given[1], self._password):
            return None
        if given is not None:
            await asyncio.sleep(WRONG_LOGIN_DELAY_S)
        challenge = {"WWW-Authenticate": 'Basic realm="Atelier", charset="UTF-8"'}
        return PlainTextResponse("Log in to use Atelier.", 401, headers=challenge)


def owner_of(request: Any) -> str:
    """Whose request it is, for Starlette's and Gradio's request alike: `user:NAME` or `browser:TOKEN`."""
    return str(request.state.owner)


def _host_name(host: str) -> str:
    """ "[::1]:7860" -> "::1", "Localhost:7860" -> "localhost"; "" if it is nothing of the kind."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    short = name.split(".")[0]
    return {name, short, f"{short}.local"}


def _basic_credentials(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _browser_token(cookie: str) -> str:
    try:
        morsel = SimpleCookie(cookie).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None and _TOKEN.fullmatch(morsel.value) else ""


def _with_headers(send: Send, new_token: str, *, https: bool) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "same-origin"
            headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            if new_token:
                secure = "; Secure" if https else ""
                headers.append(
                    "Set-Cookie",
                    f"{COOKIE}={new_token}; Path=/; Max-Age={COOKIE_AGE_S}; HttpOnly; SameSite=Lax{secure}",
                )
        await send(message)

    return send_with_headers

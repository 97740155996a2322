"""The only door to the network: https to public addresses, no cookies, no decompression, redirects one by one.

A host's name is resolved here, every address it has is checked, and the connection goes to one of those very addresses,
so a name server that answers differently a moment later changes nothing. Tokens are told to the server they belong to
and to nobody it redirects to.
"""

import contextlib
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import httpcore2

import webui
from webui.errors import WebUIError
from webui.library.downloads.addresses import Url, is_public, parse_url

MAX_REDIRECTS = 5
MAX_JSON_BYTES = 16 * 2**20
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
POLL_S = 0.25
"""How soon a waiting read notices that it is no longer wanted."""
USER_AGENT = f"Atelier/{webui.__version__}"


class NetworkError(WebUIError):
    """The server could not be reached, or stopped in the middle; trying again may help."""


class RefusedAddress(WebUIError):
    """An address that downloads must not talk to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the owner of this machine allows. `tokens`: by origin, as `Url.origin`."""

    tokens: Mapping[tuple[str, str, int], str] = field(default_factory=dict, repr=False)
    private: bool = False
    """Also plain http, and hosts in private networks and on this machine."""
    proxy: str = field(default="", repr=False)
    """An HTTP proxy that all connections go through, also as http://user:password@proxy.

    Names are resolved there, so it is its part to refuse some.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer after all redirects. `headers` have lower-case names, `first_headers` are the first hop's."""

    url: Url
    status: int
    headers: Mapping[str, str]
    first_headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @property
    def size(self) -> int | None:
        """Bytes of this body, if the server says."""
        length = self.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() else None

    def text(self, limit: int) -> str:
        """The body, cut off at `limit` bytes."""
        body = b""
        for chunk in self.chunks:
            body += chunk
            if len(body) >= limit:
                break
        return body[:limit].decode("utf-8", "replace")


class Client:
    """Makes requests. `check` is called all the while and ends a request by raising. One thread at a time."""

    def __init__(self, access: Access, *, check: Callable[[], None]) -> None:
        self._access = access
        self._check = check
        self._pool = httpcore2.ConnectionPool(
            proxy=_proxy(access.proxy) if access.proxy else None,
            network_backend=_CheckedBackend(check, any_address=access.private or bool(access.proxy)),
            max_connections=4,
        )

    def close(self) -> None:
        self._pool.close()

    def url(self, text: str) -> Url:
        """Raises InvalidRequest unless `text` is an address that may be asked."""
        return parse_url(text, plain_http=self._access.private)

    @contextlib.contextmanager
    def get(self, url: Url, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """Asks for `url`, through up to five redirects. Raises NetworkError or RefusedAddress; any status is fine."""
        token = self._access.tokens.get(url.origin, "")
        first_origin, first_headers = url.origin, None
        for _ in range(MAX_REDIRECTS + 1):
            self._check()
            self._refuse_names(url)
            if url.origin != first_origin:
                token = ""  # and it stays so, even where a redirect leads back
            with self._one(
                url, {**(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
            ) as reply:
                got = _headers(reply)
                first_headers = got if first_headers is None else first_headers
                if reply.status in (301, 302, 303, 307, 308) and "location" in got:
                    url = parse_url(got["location"], base=url, plain_http=self._access.private)
                    continue
                if got.get("content-encoding", "identity") != "identity":
                    raise NetworkError(f"{url.host} compresses its answer, although it was asked not to.")
                yield Answer(
                    url=url,
                    status=reply.status,
                    headers=got,
                    first_headers=first_headers,
                    chunks=_translated_chunks(reply, url),
                )
                return
        raise NetworkError(f"{url.host} redirects more than {MAX_REDIRECTS} times.")

    def json(self, url: Url) -> tuple[int, Mapping[str, str], Any]:
        """(status, headers, body); the body is None if it is not JSON. Raises NetworkError above 16 MiB."""
        with self.get(url, {"accept": "application/json"}) as answer:
            text = answer.text(MAX_JSON_BYTES + 1)
            if len(text) > MAX_JSON_BYTES:
                raise NetworkError(f"The answer of {url.host} is larger than {MAX_JSON_BYTES >> 20} MiB.")
            try:
                return answer.status, answer.headers, json.loads(text)
            except (ValueError, RecursionError):
                return answer.status, answer.headers, None

    @contextlib.contextmanager
    def _one(self, url: Url, headers: Mapping[str, str]) -> Iterator[httpcore2.Response]:
        """One request, no redirects."""
        request_headers: dict[bytes | str, bytes | str] = {
            "host": str(url).split("/")[2],
            "user-agent": USER_AGENT,
            "accept": "*/*",
            "accept-encoding": "identity",
        }
        request_headers.update(headers.items())
        target = httpcore2.URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode()
        )
        timeout = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": READ_TIMEOUT_S, "pool": 1.0}
        with contextlib.ExitStack() as stack:
            with _translated(url):
                reply = stack.enter_context(
                    self._pool.stream("GET", target, headers=request_headers, extensions={"timeout": timeout})
                )
            yield reply

    def _refuse_names(self, url: Url) -> None:
        """Behind a proxy, addresses that need no resolving are still refused here."""
        if self._access.private:
            return
        with contextlib.suppress(ValueError):
            if not is_public(ipaddress.ip_address(url.host)):
                raise _refused(url.host, url.host)


def _proxy(address: str) -> httpcore2.Proxy:
    """httpcore2 takes no password from an address."""
    parts = urlsplit(address)
    if parts.username is None:
        return httpcore2.Proxy(address)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")
    return httpcore2.Proxy(plain, auth=(user, password))


class _CheckedBackend(httpcore2.NetworkBackend):
    """Connects to public addresses only, and to exactly those that were checked."""

    def __init__(self, check: Callable[[], None], *, any_address: bool) -> None:
        self._check = check
        self._any_address = any_address
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: Exception = httpcore2.ConnectError("no address")
        for address in self._addresses(host, port):
            self._check()
            try:
                stream = self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
                continue
            return _StoppableStream(stream, self._check)
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"the name {host} is not known ({error})") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._any_address:
            for address in addresses:
                if "%" in address or not is_public(ipaddress.ip_address(address)):
                    raise _refused(host, address)
        return addresses


class _StoppableStream(httpcore2.NetworkStream):
    """Waits in small slices, between which `check` may raise. Timeouts count from the last byte."""

    def __init__(self, inner: httpcore2.NetworkStream, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check()
            try:
                return self._inner.read(max_bytes, POLL_S)
            except httpcore2.ReadTimeout:
                if deadline is not None and time.monotonic() > deadline:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _StoppableStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._check)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _headers(reply: httpcore2.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in reply.headers}


def _translated_chunks(reply: httpcore2.Response, url: Url) -> Iterator[bytes]:
    with _translated(url):
        yield from reply.iter_stream()


@contextlib.contextmanager
def _translated(url: Url) -> Iterator[None]:
    """The library's errors as NetworkErrors."""
    hint = (
        "Check the connection (behind a proxy set WEBUI_DOWNLOAD_PROXY) and try again; what is there already is kept."
    )
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise NetworkError(f"{url.host} does not answer.", hint=hint) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, ssl.SSLError) as error:
        raise NetworkError(
            f"The connection to {url.host} failed: {error or type(error).__name__}.", hint=hint
        ) from error


def _refused(host: str, address: str) -> RefusedAddress:
    shown = host if host == address else f"{host} ({address})"
    return RefusedAddress(
        f"{shown} is not a public address.",
        hint="For a model server in your own network set WEBUI_PRIVATE_DOWNLOADS=true.",
    )

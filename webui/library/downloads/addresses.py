"""Which network addresses a download may talk to: public ones only. No sockets here.

The networks are those of the IANA special-purpose address registries that are not globally reachable, written out
because `ipaddress.is_global` differs between Python releases.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote, urljoin, urlsplit

from webui.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_CHARS = 4096
DEFAULT_PORTS: Mapping[str, int] = MappingProxyType({"https": 443, "http": 80})

_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared, behind a provider's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; cloud metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT relays
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
"""What lies outside was never given to the internet: loopback, mapped, unique-local, link-local, multicast, ..."""
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""On an IPv6-only network every public IPv4 server has such an address; its last 32 bits say which (RFC 6052)."""


def is_public(address: Address) -> bool:
    """Whether `address` belongs to the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


@dataclass(frozen=True, slots=True)
class Url:
    """An address taken apart once, so that what is checked is also what is asked. `target` is the path with its query.

    `host` is lower case ASCII (international names in their `xn--` form), without brackets.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom a password may be told to."""
        return self.scheme, self.host, self.port

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def parse_url(text: str, *, base: Url | None = None, plain_http: bool = False) -> Url:
    """`text`, relative to `base` if given. Raises InvalidRequest unless it is https (or, if allowed, http)."""
    if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in text) or len(text) > MAX_URL_CHARS:
        raise _bad(text, "it holds characters that no address has, or is too long")
    try:
        parts = urlsplit(urljoin(str(base), text) if base else text)
        host = (parts.hostname or "").rstrip(".").encode("idna" if ":" not in (parts.hostname or "") else "ascii")
        port = parts.port
    except (ValueError, UnicodeError) as error:
        raise _bad(text, str(error)) from error
    name = host.decode("ascii").lower()
    if parts.scheme not in DEFAULT_PORTS or not _HOST.fullmatch(name):
        raise _bad(text, "it is no https address")
    if parts.scheme == "http" and not plain_http:
        raise _bad(text, "it is not encrypted", hint="Use https.")
    if parts.username is not None or parts.password is not None:
        raise _bad(text.partition("@")[2], "it carries a name or password", hint="Set a token in the settings instead.")
    query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    target = (quote(parts.path, safe=_SAFE) or "/") + query
    return Url(
        parts.scheme, host.decode("ascii").lower(), DEFAULT_PORTS[parts.scheme] if port is None else port, target
    )


_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_SAFE = "/%:@!$&'()*+,;=~?-._"


def _bad(text: str, reason: str, *, hint: str = "") -> InvalidRequest:
    return InvalidRequest("source", f"The address '{text[:200]}' cannot be used: {reason}.", hint=hint)

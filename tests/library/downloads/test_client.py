"""The door to the network: where it leads, what it tells whom, and what it takes."""

import base64
import ipaddress
import socket
import threading
from typing import Any

import pytest

from tests.model_server import ModelServer
from webui.errors import InvalidRequest
from webui.library.downloads import client as client_module
from webui.library.downloads.addresses import parse_url
from webui.library.downloads.client import Access, Client, NetworkError, RefusedAddress


def never() -> None:
    pass


def private_client(**tokens: str) -> Client:
    return Client(
        Access(private=True, tokens={parse_url(url, plain_http=True).origin: token for url, token in tokens.items()}),
        check=never,
    )


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Lets the name server give these addresses, one list per question; returns the list of names asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(client_module.socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["::1"], ["fe80::1%eth0"], ["::ffff:10.0.0.1"],
                  ["93.184.215.14", "192.168.1.1"]],
)  # fmt: skip
def test_a_name_that_leads_into_a_private_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    names(monkeypatch, addresses)
    client = Client(Access(), check=never)
    with (
        pytest.raises(RefusedAddress, match=r"models\.example"),
        client.get(parse_url("https://models.example/x.safetensors")),
    ):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.0.0.1", "127.1", "localhost", "0"])
def test_this_machine_is_refused_under_all_its_names(host: str) -> None:
    with pytest.raises(RefusedAddress), Client(Access(), check=never).get(parse_url(f"https://{host}:9/x")):
        pass


def test_the_connection_goes_to_the_very_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers otherwise the second time is not asked a second time."""
    asked = names(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    connected: list[str] = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError("as good as any")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(NetworkError), Client(Access(), check=never).get(parse_url("https://models.example/x")):
        pass
    assert connected == ["93.184.215.14"]
    assert asked == ["models.example"]


def test_behind_a_proxy_private_addresses_are_refused_before_the_proxy_is_asked() -> None:
    client = Client(Access(proxy="http://127.0.0.1:9"), check=never)
    with pytest.raises(RefusedAddress), client.get(parse_url("https://10.0.0.1/x")):
        pass


def test_a_proxy_is_asked_for_everything_and_resolves_the_names(server: ModelServer) -> None:
    server.add("/x", b"weights")
    client = Client(Access(private=True, proxy=server.other_url), check=never)
    with client.get(parse_url("http://models.invalid/x", plain_http=True)) as answer:
        assert answer.text(100) == "weights"
    assert server.seen[0].path == "http://models.invalid:80/x"


def test_a_proxy_is_told_its_password_and_nobody_else_is(server: ModelServer) -> None:
    server.add("/x", b"weights")
    proxy = server.other_url.replace("://", "://ann:p%40ss@")
    access = Access(private=True, proxy=proxy)
    with Client(access, check=never).get(parse_url("http://models.invalid/x", plain_http=True)) as answer:
        assert answer.text(100) == "weights"
    told = base64.b64encode(b"ann:p@ss").decode()
    assert server.seen[0].headers["proxy-authorization"] == f"Basic {told}"
    assert "authorization" not in server.seen[0].headers
    assert "p%40ss" not in repr(access)


def test_every_redirect_is_checked_again(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host counts as public here; the one it leads to is private."""
    server.add("/start", status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"})
    monkeypatch.setattr(client_module, "is_public", lambda address: address == ipaddress.ip_address("127.0.0.1"))
    monkeypatch.setattr(
        client_module, "parse_url", lambda text, **given: parse_url(text, **{**given, "plain_http": True})
    )
    client = Client(Access(), check=never)
    with (
        pytest.raises(RefusedAddress, match=r"169\.254"),
        client.get(parse_url(f"{server.url}/start", plain_http=True)),
    ):
        pass


def test_a_redirect_may_not_leave_https(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("/start", status=302, headers={"Location": f"{server.url}/plain"})
    monkeypatch.setattr(client_module, "is_public", lambda _: True)
    client = Client(Access(), check=never)
    with (
        pytest.raises(InvalidRequest, match="not encrypted"),
        client.get(parse_url(f"{server.url}/start", plain_http=True)),
    ):
        pass
    assert server.asked("/plain") == []


def test_redirects_come_to_an_end(server: ModelServer) -> None:
    server.add("/round", status=302, headers={"Location": "/round"})
    with pytest.raises(NetworkError, match="more than 5"), private_client().get(_at(server, "/round")):
        pass
    assert len(server.asked("/round")) == 6


def test_a_token_is_told_to_its_own_server_only(server: ModelServer) -> None:
    """The second host name is another origin; when that one leads back, the token has been put away for good."""
    other = server.url.replace("127.0.0.1", "localhost")
    server.add("/gated", status=302, headers={"Location": "/gated/moved"})
    server.add("/gated/moved", status=302, headers={"Location": f"{other}/cdn"})
    server.add("/cdn", status=302, headers={"Location": f"{server.url}/back"})
    server.add("/back", b"weights")
    with private_client(**{server.url: "secret"}).get(_at(server, "/gated")) as answer:
        assert answer.text(100) == "weights"
    told = {
        path: server.asked(path)[0].headers.get("authorization") for path in ("/gated", "/gated/moved", "/cdn", "/back")
    }
    assert told == {"/gated": "Bearer secret", "/gated/moved": "Bearer secret", "/cdn": None, "/back": None}


def test_no_cookies_no_compression(server: ModelServer) -> None:
    server.add("/x", b"1", headers={"Set-Cookie": "a=b"})
    client = private_client()
    for _ in range(2):
        with client.get(_at(server, "/x")) as answer:
            answer.text(10)
    second = server.asked("/x")[1].headers
    assert "cookie" not in second
    assert second["accept-encoding"] == "identity"


def test_a_compressed_answer_is_refused_rather_than_blown_up(server: ModelServer) -> None:
    server.add("/bomb", b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    with pytest.raises(NetworkError, match="compresses"), private_client().get(_at(server, "/bomb")):
        pass


def test_an_endless_list_is_cut_off(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_JSON_BYTES", 1000)
    server.add("/list", b"[" + b"1," * 4000 + b"1]")
    with pytest.raises(NetworkError, match="larger"):
        private_client().json(_at(server, "/list"))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 200_000, b"\xff\xfe"])
def test_what_is_no_json_is_none(server: ModelServer, body: bytes) -> None:
    server.add("/list", body)
    assert private_client().json(_at(server, "/list"))[2] is None


def test_a_server_that_is_silent_is_left_as_soon_as_nobody_wants_the_file(server: ModelServer) -> None:
    """The check raises while the read waits."""
    gate = threading.Event()
    server.add("/slow", b"x" * 1000, gate=gate)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks > 6:
            raise KeyboardInterrupt

    client = Client(Access(private=True), check=check)
    with pytest.raises(KeyboardInterrupt), client.get(_at(server, "/slow")) as answer:
        answer.text(2000)
    gate.set()


def _at(server: ModelServer, path: str) -> Any:
    return parse_url(server.url + path, plain_http=True)

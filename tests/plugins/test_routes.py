"""Routes of extensions, as they answer beneath the program's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.extension_files import load_host, write_extension
from webui.plugins.host import PluginHost
from webui.plugins.routes import ExtensionRoutes

ROUTES = """\
from fastapi import APIRouter, HTTPException

@hookimpl
def routes(context):
    router = APIRouter()

    @router.get("/hello")
    def hello(name: str = "you"):
        return {"said": f"hello {name}", "folder": context.folder.name}

    @router.get("/refuses")
    def refuses():
        raise InvalidRequest("film", "The film is used up.", hint="Buy another one.")

    @router.get("/missing")
    def missing():
        raise HTTPException(404, "not here")

    @router.get("/bursts")
    def bursts():
        return 1 / 0

    @router.websocket("/socket")
    async def socket(websocket):
        await websocket.accept()

    return router
"""


@pytest.fixture
def host(tmp_path: Path) -> PluginHost:
    write_extension(tmp_path / "extensions", "greets", ROUTES)
    write_extension(tmp_path / "extensions", "wrong", "@hookimpl\ndef routes(context): return 1 / 0")
    write_extension(tmp_path / "extensions", "plain")
    return load_host(tmp_path)


@pytest.fixture
def client(host: PluginHost) -> Iterator[TestClient]:
    app = FastAPI()
    app.mount("/extensions", ExtensionRoutes(host))
    with TestClient(app) as client:
        yield client


def test_a_route_answers_beneath_its_extensions_name(client: TestClient) -> None:
    answer = client.get("/extensions/greets/hello", params={"name": "ann"})
    assert answer.json() == {"said": "hello ann", "folder": "greets"}


def test_a_refusal_is_an_answer_with_the_reason_and_no_fault(client: TestClient, host: PluginHost) -> None:
    answer = client.get("/extensions/greets/refuses")
    assert (answer.status_code, answer.json()) == (400, {"detail": "The film is used up. Buy another one."})
    assert client.get("/extensions/greets/missing").status_code == 404
    assert host.extension("greets").problems == ()


def test_a_route_that_raises_answers_500_without_its_secrets_and_is_named(client: TestClient, host: PluginHost) -> None:
    answer = client.get("/extensions/greets/bursts")
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text
    assert "Its route /extensions/greets/bursts failed: ZeroDivisionError" in host.extension("greets").problems[0]
    assert client.get("/extensions/greets/hello").status_code == 200


def test_routes_of_an_extension_that_cannot_run_say_why(client: TestClient, host: PluginHost, tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "broken", "1 / 0")
    host.refresh()
    answer = client.get("/extensions/broken/hello")
    assert answer.status_code == 503
    assert "ZeroDivisionError: division by zero" in answer.json()["detail"]


@pytest.mark.parametrize("id", ["nothing", "plain", "wrong", "..", ""])
def test_where_there_are_no_routes_nothing_is_found(client: TestClient, id: str) -> None:
    assert client.get(f"/extensions/{id}/hello").status_code == 404


def test_routes_that_cannot_be_made_are_named(client: TestClient, host: PluginHost) -> None:
    client.get("/extensions/wrong/hello")
    assert "Its hook `routes` failed: ZeroDivisionError" in host.extension("wrong").problems[0]


def test_routes_are_gone_while_the_extension_is_off_and_new_after_it_was_changed(
    client: TestClient, host: PluginHost, tmp_path: Path
) -> None:
    client.get("/extensions/greets/hello")
    host.disable("greets")
    off = client.get("/extensions/greets/hello")
    assert (off.status_code, off.json()) == (503, {"detail": "Greets does not run. It is switched off."})
    write_extension(tmp_path / "extensions", "greets", ROUTES.replace("hello {name}", "good day {name}"))
    host.enable("greets")
    assert client.get("/extensions/greets/hello").json()["said"] == "good day you"


def test_websockets_which_the_guard_does_not_see_are_refused(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/extensions/greets/socket"):
        pass

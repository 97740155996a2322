"""Who may talk to the program: probes of what an attacker, or another web page, could send."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.ui.studio import write_paper_checkpoint
from webui.generation.events import ImageReady
from webui.generation.request import GenerationRequest
from webui.jobs.worker import JobContext, Worker
from webui.services import GENERATE, Services
from webui.settings import load_settings
from webui.ui.guard import COOKIE
from webui.ui.server import build_app

HOST = "http://127.0.0.1:7860"
Client = Callable[..., TestClient]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    data_dir = tmp_path_factory.mktemp("data")
    write_paper_checkpoint(data_dir)
    services = Services(load_settings(data_dir=data_dir))
    yield services
    services.close()


@pytest.fixture(scope="module")
def apps(services: Services) -> Callable[..., FastAPI]:
    """One application for each set of settings."""

    @functools.cache
    def build(**settings: str) -> FastAPI:
        services.settings = load_settings(data_dir=services.settings.data_dir, **settings)
        return build_app(services)

    return build


@pytest.fixture
def client(apps: Callable[..., FastAPI]) -> Client:
    """`client(host="0.0.0.0", user="ann", password="secret")`: a new browser at a program with these settings."""
    return lambda **settings: TestClient(apps(**settings), base_url=HOST)


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::1", "10.0.0.7"]
)
def test_other_host_names_are_refused(client: Client, name: str) -> None:
    assert client().get("/", headers={"Host": name}).status_code == 400


@pytest.mark.parametrize("name", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_the_own_names_are_accepted(client: Client, name: str) -> None:
    assert client().get("/jobs", headers={"Host": name}).status_code == 200


def test_on_all_addresses_any_address_is_accepted_but_no_strange_name(client: Client) -> None:
    everywhere = client(host="0.0.0.0")
    assert everywhere.get("/jobs", headers={"Host": "192.168.7.9:7860"}).status_code == 200
    assert everywhere.get("/jobs", headers={"Host": "evil.example"}).status_code == 400


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    "path",
    ["/gradio_api/upload", "/gradio_api/queue/join", "/jobs/1/interrupt", "/models/1/notes", "/models/1/preview"],
)
def test_posts_from_other_web_pages_are_refused(client: Client, path: str, headers: dict[str, str]) -> None:
    files = {"files": ("a.png", PNG)}
    assert client().post(path, files=files, headers=headers).status_code == 403


def test_the_own_page_may_upload(client: Client) -> None:
    answer = client().post("/gradio_api/upload", files={"files": ("a.png", PNG)}, headers={"Origin": HOST})
    assert answer.status_code == 200


def test_no_foreign_page_is_invited_to_read(client: Client) -> None:
    answer = client().get("/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_there_is_no_description_of_the_routes(client: Client, path: str) -> None:
    answer = client().get(path)
    assert answer.status_code == 404 or "openapi" not in answer.text.lower()


@pytest.mark.parametrize("path", ["/etc/passwd", "webui.db", "../webui.db", "models/checkpoints/paper/atelier.json"])
def test_files_of_the_machine_are_not_served(client: Client, services: Services, path: str) -> None:
    target = path if path.startswith("/") else str(services.settings.data_dir / path)
    assert client().get(f"/gradio_api/file={target}").status_code in (403, 404)


LOCKED = [
    "/",
    "/config",
    "/jobs",
    "/models",
    "/models/1",
    "/models/1/preview",
    "/pictures/1/0",
    "/gradio_api/info",
    "/gradio_api/file=/etc/passwd",
    "/theme.css",
]


@pytest.mark.parametrize("path", LOCKED)
def test_with_a_login_set_nothing_answers_without_it(client: Client, path: str) -> None:
    locked = client(user="ann", password="secret")
    answer = locked.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_the_login_opens_pages_and_routes_alike(client: Client) -> None:
    locked = client(user="änn", password="sécret:1")
    login = ("änn".encode(), "sécret:1".encode())
    assert locked.get("/", auth=login).status_code == 200
    assert locked.get("/jobs", auth=login).status_code == 200
    assert locked.get("/config", auth=login).status_code == 200


@pytest.mark.parametrize("header", ["Basic YW5uOndyb25n", "Basic !!!", "Basic", "Bearer secret", "Basic YW5u"])
def test_a_wrong_login_is_refused(client: Client, header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.ui.guard.WRONG_LOGIN_DELAY_S", 0.0)
    assert client(user="ann", password="secret").get("/jobs", headers={"Authorization": header}).status_code == 401


def test_the_page_may_load_nothing_from_elsewhere(client: Client) -> None:
    headers = client().get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


def test_each_browser_gets_an_identity_that_scripts_cannot_read(client: Client) -> None:
    browser = client()
    cookie = browser.get("/").headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "set-cookie" not in browser.get("/jobs").headers


def test_a_made_up_identity_is_replaced(client: Client) -> None:
    assert "set-cookie" in client().get("/jobs", headers={"Cookie": f"{COOKIE}=../../x"}).headers


@pytest.fixture
def picture_job(services: Services, tmp_path: Path) -> Callable[[str, str], str]:
    """Runs a job of `owner` that reports `file` as its picture; returns its id."""

    def run(owner: str, file: str) -> str:
        path = tmp_path / file
        path.write_bytes(PNG)

        def runner(context: JobContext) -> None:
            context.report(ImageReady(index=0, path=str(path), seed=1, infotext="how it was made"))

        worker = Worker(services.queue, lambda: {GENERATE: runner})
        worker.start()
        handle = services.generate(GenerationRequest(checkpoint="paper", width=64, height=64), owner=owner)
        handle.wait(timeout_s=30)
        worker.stop(timeout_s=10)
        return handle.id

    return run


def owner_of(client: TestClient) -> str:
    client.get("/")
    return f"browser:{client.cookies[COOKIE]}"


def test_only_the_owner_gets_a_picture(client: Client, picture_job: Callable[[str, str], str]) -> None:
    owner, other = client(), client()
    job = picture_job(owner_of(owner), "a.png")
    owner_of(other)
    for path in (
        f"/pictures/{job}/0",
        f"/pictures/{job}/0/thumb",
        f"/pictures/{job}/0/parameters",
        f"/pictures/{job}/before",
    ):
        assert other.get(path).status_code == 404
    answer = owner.get(f"/pictures/{job}/0")
    assert answer.content == PNG
    assert answer.headers["content-type"] == "image/png"
    assert owner.get(f"/pictures/{job}/0?download=1").headers["content-disposition"].startswith("attachment")
    assert owner.get(f"/pictures/{job}/0/parameters").text == "how it was made"


def test_only_pictures_leave_by_the_picture_route(client: Client, picture_job: Callable[[str, str], str]) -> None:
    owner = client()
    job = picture_job(owner_of(owner), "a.html")
    assert owner.get(f"/pictures/{job}/0").status_code == 404


def test_a_deleted_picture_is_told_as_missing(
    client: Client, picture_job: Callable[[str, str], str], tmp_path: Path
) -> None:
    owner = client()
    job = picture_job(owner_of(owner), "a.png")
    (tmp_path / "a.png").unlink()
    assert owner.get(f"/pictures/{job}/0").status_code == 404
    assert owner.get(f"/pictures/{job}/7").status_code == 404

"""The Extensions tab: who may do what by its routes, and a user's way through it in a browser."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Locator, Page, expect
from starlette.testclient import TestClient

from tests.extension_files import BRIGHTEN, load_host, settings_for, write_extension
from tests.model_server import ModelServer
from tests.plugins.offers import commit_all, zip_folder
from tests.ui.studio import Server, User, serve
from webui.plugins.installing import Installer
from webui.plugins.loading import forget_modules
from webui.services import EXTENSION_MODEL, Services
from webui.ui import extension_routes
from webui.ui.extension_routes import build_extension_router
from webui.ui.guard import Guard
from webui.ui.server import build_app

HERE = "http://127.0.0.1:7860"
MODEL = b"a model" * 5000
FILM = (
    BRIGHTEN.replace("righten", "right_film").replace('"Bright_film"', '"Film look"')
    + """
from typing import Literal


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)
    warm: bool = Field(default=True, title="Warm colours", description="As in the evening")
    amount: float = Field(default=0.25, ge=0, le=1, title="Amount")
    kind: Literal["old", "new"] = Field(default="old", title="Film", json_schema_extra={"labels": {"new": "Fresh"}})
    colours: tuple[Literal["red", "green"], ...] = ("red",)
    folder: str = Field(default="", title="Folder", json_schema_extra={"group": "Where"})


@hookimpl
def settings_model():
    return Settings


@hookimpl
def routes(context):
    from fastapi import APIRouter

    router = APIRouter()

    @router.get("/amount")
    def amount():
        return {"amount": context.settings().amount}

    return router


@hookimpl
def tabs(context):
    import gradio as gr

    def build():
        gr.Markdown("Grain, seen closely")

    return [Tab(id="one", label="Film", build=build), Tab(id="bad", label="Torn", build=lambda: 1 / 0)]
"""
)


def film_toml(url: str) -> str:
    digest = hashlib.sha256(MODEL).hexdigest()
    return f"""
description = "Makes pictures look like film."
[[models]]
file = "film/grain.onnx"
url = "{url}/grain.onnx"
sha256 = "{digest}"
size_bytes = {len(MODEL)}
licence = "CC BY-NC 4.0"
licence_url = "https://creativecommons.org/licenses/by-nc/4.0/"
non_commercial = true
[[models]]
file = "shipped.onnx"
url = "{url}/shipped.onnx"
sha256 = "{digest}"
size_bytes = {len(MODEL)}
licence = "MIT"
shipped = true
"""


Client = Callable[..., TestClient]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    write_extension(tmp_path / "extensions", "film", FILM, toml=film_toml("https://example.org"))
    write_extension(tmp_path / "extensions", "torn", "1 / 0\n")
    yield tmp_path
    for id in ("brighten", "film", "torn"):
        forget_modules(id)


@pytest.fixture
def client(data_dir: Path) -> Iterator[Client]:
    """`client(host="0.0.0.0")`: a browser at a program with these settings. `came_from`: its address."""
    opened: list[Services] = []

    def build(*, came_from: str = "127.0.0.1", **settings: object) -> TestClient:
        while opened:
            opened.pop().close()
        services = Services(settings_for(data_dir, **settings), load_host(data_dir, **settings))
        opened.append(services)
        app = FastAPI()
        app.state.services = services
        app.add_middleware(Guard, settings=services.settings)
        app.include_router(build_extension_router(services, Installer(services.settings, services.host)))
        return TestClient(app, base_url=HERE, client=(came_from, 50000))

    yield build
    for services in opened:
        services.close()


def listed(client: TestClient, id: str = "film") -> dict[str, object]:
    rows = client.get("/installed-extensions").json()["extensions"]
    return next(row for row in rows if row["id"] == id)


def test_the_list_tells_what_each_extension_is_and_does(client: Client) -> None:
    user = client()
    film, torn = listed(user), listed(user, "torn")
    assert (film["title"], film["version"], film["state"], film["built_in"]) == ("Film", "1.0", "on", False)
    assert film["adds"] == [
        "works on finished pictures: Film look",
        "has a tab of its own",
        "answers below /extensions/film/",
        "has settings",
    ]
    assert [(model["file"], model["state"], model["non_commercial"]) for model in film["models"]] == [  # type: ignore[attr-defined]
        ("film/grain.onnx", "missing", True),
        ("shipped.onnx", "missing", False),
    ]
    assert torn["state"] == "failed"
    assert torn["problems"] == ["ZeroDivisionError: division by zero (__init__.py, line 3)."]


def test_a_switch_takes_effect_at_once_and_is_kept(client: Client) -> None:
    user = client()
    assert user.post("/installed-extensions/film/switch", json={"on": False}).json()["state"] == "off"
    assert listed(user)["settings"] is None
    assert listed(client())["state"] == "off"
    assert client().post("/installed-extensions/film/switch", json={"on": True}).json()["state"] == "on"
    assert client().post("/installed-extensions/nothing/switch", json={"on": True}).status_code == 422


def test_settings_are_checked_field_by_field_and_kept(client: Client) -> None:
    user = client()
    values = listed(user)["settings"]["values"]  # type: ignore[index]
    assert values == {"warm": True, "amount": 0.25, "kind": "old", "colours": ["red"], "folder": ""}
    for wrong, field in (({"amount": 7}, "amount"), ({"kind": "lost"}, "kind"), ({"colours": ["blue"]}, "colours")):
        answer = user.post("/installed-extensions/film/settings", json={"values": {**values, **wrong}})
        assert answer.status_code == 422
        assert answer.json()["field"].partition(".")[0] == field
    assert user.post("/installed-extensions/film/settings", json={"values": {"amount": 1}}).status_code == 422
    new = {**values, "amount": 0.75, "colours": []}
    assert user.post("/installed-extensions/film/settings", json={"values": new}).status_code == 200
    assert listed(client())["settings"]["values"] == new  # type: ignore[index]
    assert client().post("/installed-extensions/torn/settings", json={"values": {}}).status_code == 422


def test_a_model_is_got_only_with_the_licence_that_was_shown(client: Client) -> None:
    user = client()
    for file, licence in (("film/grain.onnx", "MIT"), ("shipped.onnx", "MIT"), ("../x", "CC BY-NC 4.0")):
        wish = {"file": file, "licence": licence}
        assert user.post("/installed-extensions/film/models", json=wish).status_code == 422
    wish = {"file": "film/grain.onnx", "licence": "CC BY-NC 4.0"}
    job = user.post("/installed-extensions/film/models", json=wish).json()["id"]
    assert user.post("/installed-extensions/film/models", json=wish).json()["id"] == job, (
        "asked for twice, fetched once"
    )
    queue = user.app.state.services.queue  # type: ignore[attr-defined]
    assert queue.handle(job).record().kind == EXTENSION_MODEL
    assert listed(user)["models"][0]["job"]["state"] == "queued"  # type: ignore[index]
    stranger = TestClient(user.app, base_url=HERE, client=("127.0.0.1", 50000))
    assert listed(stranger)["models"][0]["job"] is None, "somebody else's"  # type: ignore[index]
    assert (
        "switched off" in client(downloads=False).post("/installed-extensions/film/models", json=wish).json()["message"]
    )


CHANGES = ("film/switch", "film/settings", "refresh")
INSTALLS = ("installed-extensions/film/remove", "installed-extensions/film/update", "extension-installs/folder")
BODY = {"on": False, "values": {}, "path": "/"}


def refusals(user: TestClient, paths: tuple[str, ...]) -> set[str]:
    return {user.post(path, json=BODY).json().get("message", "done") for path in paths}


def test_where_everybody_can_open_the_page_nobody_changes_anything(client: Client, data_dir: Path) -> None:
    user = client(host="0.0.0.0")
    (message,) = refusals(user, tuple(f"/installed-extensions/{path}" for path in CHANGES))
    assert "Everybody in the network" in message
    (message,) = refusals(user, INSTALLS)
    assert "served on 0.0.0.0" in message
    row = listed(user)
    assert (row["state"], row["folder"]) == ("on", "")
    assert (data_dir / "extensions" / "film").is_dir()


def test_a_login_allows_switches_but_no_installs(client: Client) -> None:
    user = client(host="0.0.0.0", user="ann", password="secret")
    assert user.post("/installed-extensions/film/switch", json={"on": False}).status_code == 401
    user.auth = ("ann", "secret")
    assert user.post("/installed-extensions/film/switch", json={"on": False}).json()["state"] == "off"
    (message,) = refusals(user, INSTALLS)
    assert "served on" in message


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "x-real-ip"])
def test_behind_a_proxy_nothing_is_installed(client: Client, name: str) -> None:
    user = client()
    user.headers[name] = "127.0.0.1"
    (message,) = refusals(user, INSTALLS)
    assert "not opened on the machine itself" in message


def test_from_another_address_nothing_is_installed(client: Client) -> None:
    (message,) = refusals(client(came_from="192.168.1.7"), INSTALLS)
    assert "not opened on the machine itself" in message


@pytest.mark.parametrize("path", [*INSTALLS, "installed-extensions/film/switch", "extension-installs/zip"])
def test_other_web_pages_change_nothing(client: Client, path: str) -> None:
    assert client().post(path, json=BODY, headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_zip_is_uploaded_shown_and_declined(client: Client, data_dir: Path, tmp_path: Path) -> None:
    user = client()
    folder = write_extension(tmp_path / "offers", files={"LICENSE": "MIT License\n"})
    data = zip_folder(tmp_path / "x.zip", folder).read_bytes()
    shown = user.post("/extension-installs/zip?name=../my%20brighten.zip", content=data).json()
    assert (shown["id"], shown["source"], shown["licence"]) == ("brighten", "my brighten.zip", "MIT License")
    assert shown["does"] == ["works on finished pictures"]
    assert {file["name"] for file in shown["files"]} == {"LICENSE", "__init__.py", "extension.toml"}
    assert user.get("/installed-extensions").json()["proposal"]["token"] == shown["token"]
    assert user.post(f"/extension-installs/{shown['token']}/discard").status_code == 200
    assert user.post(f"/extension-installs/{shown['token']}/confirm").status_code == 422
    assert {path.name for path in (data_dir / "extensions").iterdir()} == {"film", "torn"}


def test_a_zip_that_is_too_large_is_not_read_to_its_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension_routes, "MAX_ZIP_BYTES", 1000)
    answer = client().post("/extension-installs/zip", content=bytes(1001))
    assert answer.status_code == 422
    assert "larger than" in answer.json()["message"]


def test_routes_of_extensions_are_behind_the_login_and_gone_while_off(data_dir: Path) -> None:
    services = Services(settings_for(data_dir, user="ann", password="secret"), load_host(data_dir))
    user = TestClient(build_app(services), base_url=HERE)
    assert user.get("/extensions/film/amount").status_code == 401
    user.auth = ("ann", "secret")
    assert user.get("/extensions/film/amount").json() == {"amount": 0.25}
    services.host.disable("film")
    assert user.get("/extensions/film/amount").status_code == 503
    assert user.get("/extensions/nothing/amount").status_code == 404
    services.close()


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer().running() as server:
        yield server


@pytest.fixture(scope="module")
def server(models: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("extensions")
    models.add("/grain.onnx", MODEL)
    write_extension(data_dir / "extensions", "film", FILM, toml=film_toml(models.url))
    write_extension(data_dir / "extensions", "torn", "1 / 0\n")
    host = load_host(data_dir, private_downloads=True)
    with serve(data_dir, lambda services: {}, host=host, private_downloads=True) as running:
        yield running
    for id in ("brighten", "film", "torn"):
        forget_modules(id)


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    return User(warm_page, server.url).visit("?tab=extensions")


def row(user: User, id: str) -> Locator:
    return user.page.locator(f"li[data-id={id}]")


def test_an_extension_is_looked_at_installed_updated_switched_and_removed(
    user: User, server: Server, tmp_path: Path, expected_errors: list[str]
) -> None:
    expected_errors.append("422")
    folder = write_extension(tmp_path, toml='description = "Adds light."\n')
    first = commit_all(folder)
    user.page.get_by_role("button", name="From a git address").click()
    address, question = user.page.get_by_label("https address of the repository"), user.page.get_by_role("dialog")
    address.fill("ftp://nowhere")
    address.press("Enter")
    expect(user.page.locator(".at-ext-install [role=alert]")).to_contain_text("cannot be used")
    address.fill(folder.as_uri())
    address.press("Enter")
    expect(question).to_contain_text("Install Brighten 1.0?")
    expect(question).to_contain_text(first)
    expect(question).to_contain_text("with all your rights")
    user.reload()
    user.page.get_by_role("button", name="Look at it").click()
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    user.page.get_by_role("button", name="From a git address").click()
    address.fill(folder.as_uri())
    address.press("Enter")
    question.get_by_role("button", name="Install", exact=True).click()
    expect(row(user, "brighten")).to_have_attribute("data-state", "on")
    expect(row(user, "brighten")).to_contain_text("Adds light.")
    expect(user.page.locator(".at-ext-install [role=alert]")).to_contain_text("Brighten is installed and on.")
    expect(row(user, "brighten").get_by_text("Start the program again")).to_be_visible()

    (folder / "extension.toml").write_text((folder / "extension.toml").read_text().replace('"1.0"', '"1.1"'))
    commit_all(folder)
    row(user, "brighten").get_by_role("button", name="Check for an update").click()
    row(user, "brighten").get_by_role("button", name="Update", exact=True).click()
    expect(question).to_contain_text("Update Brighten 1.0 to 1.1?")
    question.get_by_role("button", name="Update", exact=True).click()
    expect(row(user, "brighten").locator(".at-ext-version")).to_have_text("1.1")

    row(user, "brighten").get_by_role("switch").click()
    expect(row(user, "brighten")).to_have_attribute("data-state", "off")
    assert server.services.host.postprocessor("brighten") is None
    row(user, "brighten").get_by_role("button", name="Remove").click()
    question.get_by_role("button", name="Remove").click()
    expect(row(user, "brighten")).to_have_count(0)
    assert not (server.services.settings.extensions_dir / "brighten").exists()


def test_settings_and_models_are_filled_in_and_got(user: User, server: Server, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    film = row(user, "film")
    film.locator("summary", has_text="Settings").click()
    amount = film.get_by_label("Amount")
    amount.fill("7")
    film.get_by_role("button", name="Save").click()
    expect(film.get_by_role("alert")).to_contain_text("Amount")
    expect(amount).to_be_focused()
    amount.fill("0.5")
    film.get_by_label("Film", exact=True).select_option("Fresh")
    film.get_by_label("green").check()
    film.get_by_label("Warm colours").uncheck()
    film.get_by_role("button", name="Save").click()
    expect(film.get_by_text("Saved.")).to_be_visible()
    assert user.page.request.get(f"{server.url}/extensions/film/amount").json() == {"amount": 0.5}
    kept = server.services.host.states.get("film").settings
    assert kept == {"amount": 0.5, "kind": "new", "colours": ["red", "green"], "warm": False}

    film.locator("summary", has_text="Models").click()
    grain = film.locator("li[data-model='film/grain.onnx']")
    expect(grain).to_contain_text("Non-commercial")
    grain.get_by_role("button", name="Get film/grain.onnx").click()
    question = user.page.get_by_role("dialog")
    expect(question).to_contain_text("CC BY-NC 4.0")
    expect(question).to_contain_text("no commercial use")
    question.get_by_role("button", name="I agree, get it").click()
    expect(grain).to_have_attribute("data-state", "present")
    assert (server.services.settings.models_dir / "film" / "grain.onnx").read_bytes() == MODEL


def test_a_failed_one_says_why_and_starts_once_it_is_mended(user: User, server: Server) -> None:
    torn = row(user, "torn")
    expect(torn).to_have_attribute("data-state", "failed")
    expect(torn).to_contain_text("division by zero")
    code = server.services.settings.extensions_dir / "torn" / "__init__.py"
    code.write_text("from webui.hooks import hookimpl\n@hookimpl\ndef load(): pass\n")
    torn.get_by_role("button", name="Load again").click()
    expect(torn).to_have_attribute("data-state", "on")
    expect(torn).not_to_contain_text("division by zero")


def test_on_a_phone_all_fits_and_extensions_have_tabs(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page(viewport={"width": 390, "height": 780}, has_touch=True)
    user = User(page, server.url).visit("?tab=extensions&__theme=dark")
    for summary in row(user, "film").locator("summary").all():
        summary.tap()
    for control in page.locator(".at-extensions :is(input, select, textarea):visible").all():
        name = control.evaluate("node => node.getAttribute('aria-label') || node.labels[0]?.textContent || ''")
        assert name.strip(), control.evaluate("node => node.outerHTML")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("tab", name="Film", exact=True).tap()
    expect(page.get_by_text("Grain, seen closely")).to_be_visible()
    page.get_by_role("tab", name="Torn", exact=True).tap()
    expect(page.get_by_text("This tab could not be made.")).to_be_visible()

"""Getting a model with the page: ask, watch, stop, go on, and find it in the library."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.model_server import ModelServer, lora, nothing_known
from tests.ui.fake_engine import Gate, fake_runner
from tests.ui.studio import Server, User, serve, write_paper_checkpoint
from webui.services import GENERATE, Services

LORA = lora(width=1280, rank=32, layers=12)
CDN = f"/cdn/{hashlib.sha256(LORA).hexdigest()}"


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer().running() as server:
        yield server


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def server(models: ModelServer, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("downloads")
    write_paper_checkpoint(data_dir)
    pictures = tmp_path_factory.mktemp("pictures")

    def runners(services: Services) -> dict[str, object]:
        return {GENERATE: fake_runner(services, pictures, gate)}

    settings = {"private_downloads": True, "hf_endpoint": models.url, "civitai_endpoint": models.other_url}
    with serve(data_dir, runners, **settings) as running:
        yield running


@pytest.fixture
def user(warm_page: Page, server: Server, models: ModelServer) -> Iterator[User]:
    models.files.clear()
    models.seen.clear()
    models.add_repository("ann/ink", {"ink.safetensors": LORA})
    user = User(warm_page, server.url).visit("?tab=models")
    yield user
    for record in server.services.queue.jobs():
        server.services.queue.interrupt(record.id)
        server.services.queue.handle(record.id).wait(30)
    for path in (server.services.settings.models_dir / "loras").glob("*"):
        path.unlink()


def get(user: User, source: str) -> None:
    user.page.get_by_label("What to get").fill(source)
    user.page.get_by_label("What to get").press("Enter")


def row(user: User, title: str) -> Locator:
    return user.page.locator(".at-downloads li").filter(has_text=title).first


def test_a_model_is_fetched_and_says_where_it_is(user: User, server: Server) -> None:
    get(user, "ann/ink")
    expect(row(user, "ink.safetensors")).to_have_attribute("data-state", "finished")
    expect(row(user, "ink.safetensors")).to_contain_text("In loras")
    path = server.services.settings.models_dir / "loras" / "ink.safetensors"
    assert path.read_bytes() == LORA


def test_a_download_is_watched_stopped_and_gone_on_with(user: User, models: ModelServer, server: Server) -> None:
    held = threading.Event()
    models.files[CDN].gate = held
    get(user, "ann/ink")
    download = row(user, "ink.safetensors")
    expect(download.locator(".at-download-status")).to_have_text(re.compile(r"of .* [kM]B"))
    expect(user.jobs).to_have_count(1)
    expect(user.jobs.first).to_contain_text("ink.safetensors")
    download.get_by_role("button", name="Stop").click()
    expect(row(user, "ink.safetensors")).to_have_attribute("data-state", "cancelled")
    models.files[CDN].gate = None
    held.set()
    models.seen.clear()
    row(user, "ink.safetensors").get_by_role("button", name="Go on").click()
    expect(row(user, "ink.safetensors")).to_have_attribute("data-state", "finished")
    assert "range" in models.asked(CDN)[0].headers
    assert (server.services.settings.models_dir / "loras" / "ink.safetensors").read_bytes() == LORA


def test_a_stopped_download_can_be_thrown_away(user: User, models: ModelServer, server: Server) -> None:
    held = threading.Event()
    models.files[CDN].gate = held
    get(user, "ann/ink")
    expect(row(user, "ink.safetensors").locator(".at-download-status")).to_have_text(re.compile(r"of .* [kM]B"))
    user.jobs.first.get_by_role("button", name="Cancel").click()
    row(user, "ink.safetensors").get_by_role("button", name="Throw away").click()
    held.set()
    expect(row(user, "ink.safetensors").get_by_role("button", name="Try again")).to_be_visible()
    assert list((server.services.settings.models_dir / ".downloads").glob("*.part")) == []


def test_a_picture_is_made_while_a_model_is_fetched(user: User, models: ModelServer, gate: Gate) -> None:
    held = threading.Event()
    models.files[CDN].gate = held
    get(user, "ann/ink")
    expect(row(user, "ink.safetensors")).to_have_attribute("data-state", "running")
    painter = user.tab("txt2img")
    painter.finish()
    expect(user.jobs).to_have_count(1)
    held.set()
    expect(user.jobs).to_have_count(0)


def test_a_refusal_is_told_with_what_to_do(user: User, models: ModelServer, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    alert = user.page.locator(".at-get-error")
    get(user, "nonsense")
    expect(alert).to_contain_text("names no model")
    expect(alert).to_contain_text("owner/name")
    models.add("/odd.safetensors", nothing_known())
    get(user, f"{models.other_url.replace('127.0.0.1', 'localhost')}/odd.safetensors")
    expect(row(user, "odd.safetensors")).to_have_attribute("data-state", "failed")
    expect(row(user, "odd.safetensors")).to_contain_text("belong to no kind of model")


def test_the_list_to_begin_with_tells_size_and_licence_and_fetches(user: User, models: ModelServer) -> None:
    models.add_repository("latent-consistency/lcm-lora-sdv1-5", {"pytorch_lora_weights.safetensors": LORA})
    user.page.get_by_text("Models to begin with").click()
    entry = user.page.locator(".at-starters li").filter(has_text="LCM LoRA for SD 1.5")
    expect(entry).to_contain_text("about 135 MB")
    expect(entry).to_contain_text("OpenRAIL++-M")
    entry.get_by_role("button").click()
    expect(row(user, "lcm-lora-sdv1-5.safetensors")).to_have_attribute("data-state", "finished")


def test_others_do_not_see_my_downloads(user: User, server: Server, open_page: Callable[..., Page]) -> None:
    get(user, "ann/ink")
    expect(row(user, "ink.safetensors")).to_have_attribute("data-state", "finished")
    stranger = User(open_page(), server.url).visit("?tab=models")
    assert stranger.page.request.get(f"{server.url}/downloads").json()["downloads"] == []
    job = server.services.queue.jobs()[0].id
    assert stranger.page.request.post(f"{server.url}/downloads/{job}/discard").status == 404


def test_it_can_be_switched_off(open_page: Callable[..., Page], tmp_path: Path, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    with serve(tmp_path, lambda _: {}, downloads=False) as server:
        user = User(open_page(), server.url).visit("?tab=models")
        expect(user.page.locator(".at-get-error")).to_contain_text("switched off")
        expect(user.page.get_by_label("What to get")).to_be_disabled()
        answer = user.page.request.post(f"{server.url}/downloads", data={"source": "ann/ink"})
        assert answer.status == 422

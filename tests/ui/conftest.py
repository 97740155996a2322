"""A real browser for the UI tests. A page that logs an error or asks a foreign host fails its test."""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Gradio logs these when a page is left while one of its streams is open.
STREAM_CLOSED = re.compile(r"AbortError|Connection errored out|BodyStreamBuffer was aborted|net::ERR_ABORTED")
TIMEOUT_MS = 30_000

OpenPage = Callable[..., Page]


@pytest.fixture(autouse=True, scope="session")
def gradio_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Uploads and served copies land in pytest's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """The system's Chromium, or the one that `playwright install chromium` brought."""
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    try:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
    except Error as error:
        pytest.fail(f"The browser tests need Chromium (apt-get install chromium, or playwright install): {error}")
    yield browser
    browser.close()


@pytest.fixture
def expected_errors() -> list[str]:
    """Regular expressions of console errors that this test causes on purpose; append to it."""
    return []


@pytest.fixture
def open_page(browser: Browser, expected_errors: list[str]) -> Iterator[OpenPage]:
    """`open_page(viewport={...}, has_touch=True)` makes a page in a context of its own."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_one(**options: Any) -> Page:
        contexts.append(new_context(browser, **options))
        return watched_page(contexts[-1], faults)

    yield open_one
    for context in contexts:
        context.close()
    assert_none_unexpected(faults, expected_errors)


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


@pytest.fixture(scope="module")
def watched_warm_page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    faults: list[str] = []
    context = new_context(browser)
    yield watched_page(context, faults), faults
    context.close()


@pytest.fixture
def warm_page(watched_warm_page: tuple[Page, list[str]], expected_errors: list[str]) -> Iterator[Page]:
    """One page for all tests of a module, for those that can bring it back to its first state: far quicker."""
    page, faults = watched_warm_page
    faults.clear()
    yield page
    assert_none_unexpected(faults, expected_errors)


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    context.set_default_timeout(TIMEOUT_MS)
    return context


def watched_page(context: BrowserContext, faults: list[str]) -> Page:
    """A page that notes errors and requests to foreign hosts in `faults`."""

    def note_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def note_request(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in {"http", "https", "ws", "wss"} and address.hostname not in {"127.0.0.1", "localhost"}:
            faults.append(f"external request: {request.url}")

    page = context.new_page()
    page.on("console", note_console)
    page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
    page.on("request", note_request)
    return page


def assert_none_unexpected(faults: list[str], expected_errors: list[str]) -> None:
    known = [STREAM_CLOSED, *map(re.compile, expected_errors)]
    unexpected = [fault for fault in faults if not any(pattern.search(fault) for pattern in known)]
    assert not unexpected, "\n".join(unexpected)

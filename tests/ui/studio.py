"""The whole program on a free port, and one user's view of it in a browser."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, expect

from tests.models import write_checkpoint
from webui.app import build_download_worker, build_tool_worker
from webui.jobs.worker import Runner, Worker
from webui.plugins.host import PluginHost
from webui.services import Services
from webui.settings import CHECKOUT, load_settings
from webui.ui.server import build_app

SIZE_PX = 64
EXAMPLES = ("a red paper boat", "a green paper crane")
CAPTION = "a grey paper house"
STOP_TIMEOUT_S = 10.0
READY_TIMEOUT_MS = 120_000
"""For a machine that trains a model beside the tests; without that it takes two seconds."""
expect.set_options(timeout=30_000)


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    services: Services


def write_paper_checkpoint(data_dir: Path) -> None:
    """A tiny checkpoint with the starter's tokenizer; and one that cannot be used."""
    folder = write_checkpoint(data_dir / "models" / "checkpoints" / "paper")
    shutil.copytree(CHECKOUT / "models" / "starter" / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    about = {"title": "Paper", "native_size": SIZE_PX, "example_prompts": EXAMPLES, "sample_caption": CAPTION}
    (folder / "atelier.json").write_text(json.dumps(about))
    sample = Image.new("RGB", (SIZE_PX, SIZE_PX), "#7799bb")
    ImageDraw.Draw(sample).rectangle((20, 20, 44, 44), fill="#bb5533")
    sample.save(folder / "sample.png")
    (folder.parent / "broken.ckpt").write_bytes(b"")


@contextmanager
def serve(
    data_dir: Path,
    runners: Callable[[Services], Mapping[str, Runner]],
    *,
    host: PluginHost | None = None,
    **settings: Any,
) -> Iterator[Server]:
    services = Services(load_settings(data_dir=data_dir, **settings), host)
    workers = (
        Worker(services.queue, lambda: runners(services)),
        build_download_worker(services),
        build_tool_worker(services),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(build_app(services), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="test server")
    for worker in workers:
        worker.start()
    thread.start()
    try:
        yield Server(url=f"http://127.0.0.1:{listener.getsockname()[1]}", services=services)
    finally:
        server.should_exit = True
        thread.join(STOP_TIMEOUT_S)
        for worker in workers:
            worker.stop(STOP_TIMEOUT_S)
        services.close()
        listener.close()


@dataclass(frozen=True, slots=True)
class User:
    """One browser page with the program open, in the words of its user. `task` is the tab in front."""

    page: Page
    url: str
    task: str = "txt2img"

    def visit(self, query: str = "") -> "User":
        self.page.goto(self.url + query, timeout=READY_TIMEOUT_MS)
        return self.wait_ready()

    def reload(self) -> "User":
        self.page.reload(timeout=READY_TIMEOUT_MS)
        return self.wait_ready()

    def wait_ready(self) -> "User":
        """Until the form is filled and takes input."""
        self.page.locator("body[data-ready]").wait_for(timeout=READY_TIMEOUT_MS)
        return self

    def tab(self, name: str) -> "User":
        self.page.get_by_role("tab", name=name, exact=True).click()
        user = User(self.page, self.url, name.lower())
        user.results.wait_for()
        return user

    def at(self, name: str) -> Locator:
        return self.page.locator(f"#{self.task}_{name}")

    @property
    def results(self) -> Locator:
        return self.page.locator(f"#{self.task}_results_box")

    @property
    def jobs(self) -> Locator:
        return self.page.locator("#queue li[data-job]")

    @property
    def toast(self) -> Locator:
        return self.page.get_by_test_id("toast-body").last

    def number(self, name: str) -> Locator:
        return self.at(name).locator("input[type=number]")

    def set_number(self, name: str, value: float) -> None:
        self.number(name).fill(str(value))
        self.number(name).press("Tab")

    def settle(self) -> None:
        """Until the page has nothing left to do: Gradio takes a value over a moment after it was typed."""
        self.page.evaluate("() => new Promise((done) => requestIdleCallback(() => requestIdleCallback(done)))")

    def write(self, text: str, name: str = "prompt") -> None:
        self.at(name).locator("textarea").fill(text)

    def prompt(self, name: str = "prompt") -> Locator:
        return self.at(name).locator("textarea")

    def press(self, button: str) -> None:
        self.page.locator(f"#{self.task}_{button}").click()

    def tool(self, name: str) -> Locator:
        return self.results.locator(f"[data-tool={name}]")

    def generate(self) -> str:
        """Presses Generate and returns the id of the new job, once the page shows it."""
        old = self.results.get_attribute("data-job") or ""
        self.press("generate")
        return self.new_job(old)

    def new_job(self, old: str) -> str:
        self.page.locator(f"#{self.task}_results_box:not([data-job='{old}'])").wait_for()
        return self.results.get_attribute("data-job") or ""

    def expect_state(self, state: str, **more: str) -> None:
        expect(self.results).to_have_attribute("data-state", state)
        for name, value in more.items():
            expect(self.results).to_have_attribute(f"data-{name}", value)

    def finish(self) -> str:
        """Generates, waits for the end, and returns the id of the job."""
        job = self.generate()
        self.expect_state("finished", job=job)
        return job


def drop_file(user: User, data: bytes, name: str) -> None:
    """Drops a file on the prompt, as from a file manager."""
    transfer = user.page.evaluate_handle(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
            return transfer;
        }""",
        [list(data), name],
    )
    for event in ("dragover", "drop"):
        user.prompt().dispatch_event(event, {"dataTransfer": transfer})

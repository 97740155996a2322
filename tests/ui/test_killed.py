"""The whole program, killed in the middle of a job and started again."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import OpenPage
from tests.ui.studio import User
from webui.settings import CHECKOUT

START_TIMEOUT_S = 180
PICTURE_TIMEOUT_S = 180
BATCHES = 200
PICTURE_NAME = re.compile(r"\d{5}-(\d+)\.png")


@contextmanager
def program(data_dir: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m webui` until the block ends, then killed as by kill -9."""
    command = [sys.executable, "-m", "webui", "--no-browser", "--port", str(port), "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), START_TIMEOUT_S)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=30) as response:
            return bool(response.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


def wait_until(condition: object, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            pytest.fail(f"Nothing happened for {timeout_s:.0f} s.")
        time.sleep(0.2)


def seeds(data_dir: Path) -> list[int]:
    """Seeds of the finished pictures; files of other names are not finished."""
    paths = (data_dir / "outputs").rglob("*.png")
    return [int(match[1]) for path in paths if (match := PICTURE_NAME.fullmatch(path.name))]


def test_a_killed_program_goes_on_with_its_job_where_it_stopped(
    tmp_path: Path, open_page: OpenPage, expected_errors: list[str]
) -> None:
    expected_errors.append("ERR_CONNECTION|Failed to (fetch|load)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with program(tmp_path, port) as process:
        user = User(open_page(), f"http://127.0.0.1:{port}").visit()
        user.set_number("steps", 2)
        user.set_number("batch_count", BATCHES)
        job = user.generate()
        wait_until(lambda: len(seeds(tmp_path)) >= 2, PICTURE_TIMEOUT_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = seeds(tmp_path)
    with program(tmp_path, port):
        user.reload()
        expect(user.results).to_have_attribute("data-job", job)
        wait_until(lambda: len(seeds(tmp_path)) > len(before) + 1, PICTURE_TIMEOUT_S)
        user.page.get_by_role("button", name="Interrupt", exact=True).locator("visible=true").click()
        expect(user.results).to_have_attribute("data-state", "cancelled")
    after = seeds(tmp_path)
    assert len(set(after)) >= len(before) + 2
    assert len(after) - len(set(after)) <= 1  # the picture that was saved but not yet noted may be made twice

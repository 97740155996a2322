"""A file arrives whole and right, or not at all, whatever the server does."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from tests.model_server import ModelServer
from webui.errors import StorageError, WebUIError
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.library.downloads import fetch as fetch_module
from webui.library.downloads.addresses import parse_url
from webui.library.downloads.client import Access, Client, NetworkError
from webui.library.downloads.fetch import Fetched, Watch, fetch
from webui.library.downloads.plan import RemoteFile

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
ETAG = '"first"'


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".downloads" / "x.part"


def get(server: ModelServer, part: Path, *, path: str = "/x", size: int | None = None, sha256: str = "") -> Fetched:
    file = RemoteFile(url=parse_url(server.url + path, plain_http=True), path="x.safetensors", size=size, sha256=sha256)
    client = Client(Access(private=True), check=lambda: None)
    watch = Watch(progress=lambda *_: None, check=lambda: None, pause=lambda _: None, arrived=lambda *_: True)
    return fetch(file, part, client, watch)


def cut_off(server: ModelServer, part: Path, **file: str) -> int:
    """Leaves a part behind, as a download that was stopped does; its size."""
    fault = ["cut"] + ["reset"] * 10
    server.files["/x"].faults = fault
    with pytest.raises(NetworkError):
        get(server, part, **file)
    server.files["/x"].faults = []
    server.seen.clear()
    return part.stat().st_size


def test_a_whole_file_arrives(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, headers={"Content-Disposition": 'attachment; filename="a b.safetensors"'})
    fetched = get(server, part)
    assert part.read_bytes() == BODY
    assert (fetched.size, fetched.sha256, fetched.name) == (len(BODY), SHA256, "a b.safetensors")


@pytest.mark.parametrize(
    "faults",
    [["cut"], ["cut", "cut", "cut"], ["reset"], ["busy", "broken", "cut"], ["cut", "416"], ["cut", "wrong range"]],
)
def test_a_file_survives_faults_of_the_server(server: ModelServer, part: Path, faults: list[str]) -> None:
    server.add("/x", BODY, etag=ETAG, faults=list(faults))
    assert get(server, part).sha256 == SHA256
    assert part.read_bytes() == BODY
    assert len(server.asked("/x")) == len(faults) + 1


def test_what_is_there_is_not_fetched_again(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, etag=ETAG)
    there = cut_off(server, part)
    assert 0 < there < len(BODY)
    get(server, part)
    (request,) = server.asked("/x")
    assert (request.headers["range"], request.headers["if-range"]) == (f"bytes={there}-", ETAG)
    assert part.read_bytes() == BODY


def test_a_file_that_changed_on_the_server_is_fetched_anew(server: ModelServer, part: Path) -> None:
    served = server.add("/x", BODY, etag=ETAG)
    cut_off(server, part)
    served.body, served.etag = BODY[::-1], '"second"'
    get(server, part)
    assert part.read_bytes() == BODY[::-1]


def test_a_file_whose_hash_changed_on_the_server_is_fetched_anew(server: ModelServer, part: Path) -> None:
    served = server.add("/x", BODY, etag=ETAG, headers={"X-Linked-Etag": f'"{SHA256}"'})
    cut_off(server, part)
    served.body = BODY[::-1]
    sha256 = hashlib.sha256(served.body).hexdigest()
    served.headers["X-Linked-Etag"] = f'"{sha256}"'
    assert get(server, part).sha256 == sha256
    assert part.read_bytes() == BODY[::-1]


def test_what_was_said_of_another_version_is_forgotten(server: ModelServer, part: Path) -> None:
    """Its name, hash, size and ETag were told for another address."""
    server.add("/x", BODY, etag=ETAG, headers={
        "X-Linked-Etag": f'"{SHA256}"', "Content-Disposition": 'attachment; filename="first.safetensors"'})  # fmt: skip
    cut_off(server, part)
    server.add("/y", BODY[:-7], headers={"Content-Disposition": 'attachment; filename="second.safetensors"'})
    fetched = get(server, part, path="/y")
    assert (fetched.name, fetched.size) == ("second.safetensors", len(BODY) - 7)
    assert "range" not in server.asked("/y")[0].headers


def test_without_etag_date_or_hash_a_part_is_not_trusted(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY)
    cut_off(server, part)
    get(server, part)
    assert "range" not in server.asked("/x")[0].headers


def test_a_known_hash_is_enough_to_go_on_even_where_the_etag_differs(server: ModelServer, part: Path) -> None:
    served = server.add("/x", BODY, etag=ETAG)
    there = cut_off(server, part, sha256=SHA256)
    served.etag = '"other replica"'
    get(server, part, sha256=SHA256)
    assert server.asked("/x")[0].headers["range"] == f"bytes={there}-"
    assert part.read_bytes() == BODY


def test_a_part_that_was_damaged_on_the_disk_is_fetched_anew(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, etag=ETAG)
    there = cut_off(server, part, sha256=SHA256)
    part.write_bytes(b"\0" * there)
    assert get(server, part, sha256=SHA256).sha256 == SHA256
    assert part.read_bytes() == BODY


def test_a_server_without_ranges_is_no_trouble(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, etag=ETAG, ranges=False, faults=["cut"])
    assert get(server, part).sha256 == SHA256


def test_a_finished_part_needs_no_server(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, etag=ETAG)
    get(server, part, sha256=SHA256, size=len(BODY))
    server.seen.clear()
    assert get(server, part, sha256=SHA256, size=len(BODY)).sha256 == SHA256
    assert server.seen == []


def test_another_content_than_announced_is_refused_and_not_kept(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY)
    with pytest.raises(WebUIError, match="not the file that was announced"):
        get(server, part, sha256="0" * 64)
    assert not part.exists()


def test_the_hash_of_the_first_hop_counts(server: ModelServer, part: Path) -> None:
    server.add("/cdn", b"tampered")
    server.add("/x", status=302, headers={"Location": "/cdn", "X-Linked-Etag": f'"{SHA256}"'})
    with pytest.raises(WebUIError, match="not the file that was announced"):
        get(server, part)


def test_another_size_than_announced_is_refused_at_once(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY)
    with pytest.raises(WebUIError, match="announced 5 bytes"):
        get(server, part, size=5)
    assert part.stat().st_size == 0


def test_a_server_that_names_no_size_is_taken_at_its_word_up_to_a_limit(
    server: ModelServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/x", BODY, length=False)
    assert get(server, part).size == len(BODY)
    monkeypatch.setattr(fetch_module, "MAX_UNANNOUNCED_BYTES", 1000)
    with pytest.raises(WebUIError, match="more than"):
        get(server, part)


def test_a_web_page_is_not_taken_for_a_model(server: ModelServer, part: Path) -> None:
    server.add("/x", b"<html>Log in</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(WebUIError, match="web page"):
        get(server, part)


@pytest.mark.parametrize(
    ("status", "word"),
    [(401, "login"), (403, "may not"), (404, "There is no"), (410, "removed"), (451, "not offered")],
)
def test_a_refusal_is_told_in_words_and_not_repeated(server: ModelServer, part: Path, status: int, word: str) -> None:
    server.add("/x", b"no", status=status)
    with pytest.raises(WebUIError, match=word):
        get(server, part)
    assert len(server.asked("/x")) == 1


def test_a_server_that_stays_busy_is_given_up(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, faults=["busy"] * 100)
    with pytest.raises(NetworkError, match="busy"):
        get(server, part)
    assert len(server.asked("/x")) == fetch_module.MAX_FAILURES


def test_a_server_that_never_answers_is_given_up_soon(server: ModelServer, part: Path) -> None:
    server.add("/x", BODY, faults=["reset"] * 100)
    with pytest.raises(NetworkError, match=r"connection to 127\.0\.0\.1 failed"):
        get(server, part)
    assert len(server.asked("/x")) == fetch_module.MAX_UNANSWERED


def test_a_full_disk_is_told_before_the_first_byte(
    server: ModelServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 2**20))
    server.add("/x", BODY)
    with pytest.raises(StorageError, match=r"0\.0 GB free"):
        get(server, part)
    assert part.stat().st_size == 0


def test_a_file_that_is_being_fetched_is_not_fetched_twice_at_once(server: ModelServer, part: Path) -> None:
    gate = threading.Event()
    server.add("/x", BODY, gate=gate)
    results: list[Fetched] = []
    first = threading.Thread(target=lambda: results.append(get(server, part)))
    first.start()
    while not server.asked("/x"):
        pass
    with pytest.raises(WebUIError, match="already being fetched"):
        get(server, part)
    gate.set()
    first.join()
    assert results[0].sha256 == SHA256


def test_a_stopped_transfer_keeps_what_it_has(server: ModelServer, part: Path) -> None:
    cancel = CancelToken()
    server.add("/x", BODY, etag=ETAG, gate=threading.Event())
    client = Client(Access(private=True), check=cancel.check)
    file = RemoteFile(url=parse_url(f"{server.url}/x", plain_http=True), path="x.safetensors")
    halfway = len(BODY) // 4

    def progress(done: int, _: int | None) -> None:
        if done > halfway:
            cancel.interrupt()

    watch = Watch(progress=progress, check=cancel.check, pause=lambda _: None, arrived=lambda *_: True)
    with pytest.raises(JobInterrupted):
        fetch(file, part, client, watch)
    server.files["/x"].gate = None
    server.seen.clear()
    assert get(server, part).sha256 == SHA256
    assert int(server.asked("/x")[0].headers["range"].removeprefix("bytes=").rstrip("-")) > halfway


PROGRAM = """
import sys
from pathlib import Path
from webui.library.downloads.addresses import parse_url
from webui.library.downloads.client import Access, Client
from webui.library.downloads.fetch import Watch, fetch
from webui.library.downloads.plan import RemoteFile

def progress(done, total):
    if done >= total // 2:
        print("half", flush=True)

url, part = sys.argv[1:]
watch = Watch(progress=progress, check=lambda: None, pause=lambda _: None, arrived=lambda *_: True)
file = RemoteFile(url=parse_url(url, plain_http=True), path="x.safetensors")
fetch(file, Path(part), Client(Access(private=True), check=lambda: None), watch)
"""


def test_a_killed_process_loses_at_most_its_buffer(server: ModelServer, part: Path) -> None:
    body = os.urandom(2**20) * 8
    gate = threading.Event()
    server.add("/x", body, etag=ETAG, gate=gate)
    arguments = [sys.executable, "-c", PROGRAM, f"{server.url}/x", str(part)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    gate.set()
    server.files["/x"].gate = None
    there = part.stat().st_size
    assert there >= len(body) // 2 - 2 * fetch_module.READ_BYTES
    assert json.loads(part.with_name("x.part.state").read_text())["validator"] == ETAG
    server.seen.clear()
    assert get(server, part).sha256 == hashlib.sha256(body).hexdigest()
    assert server.asked("/x")[0].headers["range"] == f"bytes={there}-"

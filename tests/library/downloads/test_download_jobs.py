"""Downloads as jobs: beside the device's work, stopped, and gone on with by the next start."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.model_server import ModelServer, lora
from webui.app import build_download_worker
from webui.errors import InvalidRequest, WebUIError
from webui.jobs.queue import JobState
from webui.library.downloads.download import DownloadRequest
from webui.library.downloads.events import DownloadProgress
from webui.library.events import ModelSaved
from webui.services import Services
from webui.settings import load_settings

LORA = lora(width=1280, rank=32, layers=12)
CDN = f"/cdn/{hashlib.sha256(LORA).hexdigest()}"
PATIENCE_S = 60.0


@contextmanager
def running(server: ModelServer, data_dir: Path) -> Iterator[Services]:
    """The program without its page."""
    services = Services(
        load_settings(
            data_dir=data_dir, private_downloads=True, hf_endpoint=server.url, civitai_endpoint=server.other_url
        )
    )
    worker = build_download_worker(services)
    worker.start()
    try:
        yield services
    finally:
        assert worker.stop(PATIENCE_S)
        services.close()


def test_a_download_goes_on_by_itself_after_a_restart(server: ModelServer, tmp_path: Path) -> None:
    server.add_repository("ann/ink", {"ink.safetensors": LORA})
    held = threading.Event()
    server.files[CDN].gate = held
    with running(server, tmp_path) as services:
        job = services.download(DownloadRequest(source="ann/ink"), owner="ann")
        for _, event in job.events(timeout_s=PATIENCE_S):
            if isinstance(event, DownloadProgress) and event.done > len(LORA) // 4:
                break
    held.set()
    server.files[CDN].gate = None
    server.seen.clear()
    with running(server, tmp_path) as services:
        again = services.queue.handle(job.id)
        assert again.wait(PATIENCE_S).state is JobState.FINISHED
        (saved,) = [event for _, event in again.events() if isinstance(event, ModelSaved)]
    assert Path(saved.path).read_bytes() == LORA
    assert "range" in server.asked(CDN)[0].headers


def test_the_same_wish_twice_is_one_job(server: ModelServer, tmp_path: Path) -> None:
    server.add_repository("ann/ink", {"ink.safetensors": LORA})
    server.files[CDN].gate = threading.Event()
    with running(server, tmp_path) as services:
        first = services.download(DownloadRequest(source="ann/ink"), owner="ann")
        assert services.download(DownloadRequest(source="ann/ink"), owner="ann").id == first.id
        assert services.download(DownloadRequest(source="ann/ink"), owner="bob").id != first.id


def test_what_somebody_else_fetches_cannot_be_thrown_away(server: ModelServer, tmp_path: Path) -> None:
    server.add_repository("ann/ink", {"ink.safetensors": LORA})
    held = threading.Event()
    server.files[CDN].gate = held
    request = DownloadRequest(source="ann/ink")
    with running(server, tmp_path) as services:
        stopped = services.download(request, owner="ann")
        others = services.download(request.model_copy(update={"name": "brush"}), owner="bob")
        services.queue.interrupt(stopped.id)
        stopped.wait(PATIENCE_S)
        with pytest.raises(WebUIError, match="being fetched"):
            services.discard_download(request)
        held.set()
        assert others.wait(PATIENCE_S).state is JobState.FINISHED
        services.discard_download(request)


def test_nonsense_is_refused_before_it_becomes_a_job(server: ModelServer, tmp_path: Path) -> None:
    with running(server, tmp_path) as services:
        for request in (DownloadRequest(source="nonsense"), DownloadRequest(source="ann/x", target="../x")):
            with pytest.raises(InvalidRequest):
                services.download(request, owner="ann")
        assert services.queue.jobs() == []


def test_tokens_come_from_the_usual_variables_and_reach_their_site(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_repository("ann/gated", {"ink.safetensors": LORA})
    for path in ("/api/models/ann/gated/revision/main", "/ann/gated/resolve/main/ink.safetensors"):
        server.files[path].needs_token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running(server, tmp_path) as services:
        job = services.download(DownloadRequest(source="ann/gated"), owner="ann")
        assert job.wait(PATIENCE_S).state is JobState.FINISHED
    assert "authorization" not in server.asked(CDN)[0].headers
    assert "hf_secret" not in repr(services.settings)

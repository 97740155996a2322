"""The Training tab's automatic captions and masks, as a page asks for them: started, followed, stopped."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from tests.assistant_files import write_masker, write_tagger, write_tags
from webui.app import build_tool_worker
from webui.plugins.host import PluginHost
from webui.services import Services
from webui.settings import load_settings
from webui.training.assistants.catalog import HOW_TO_GET
from webui.training.data.subjects import SubjectMasker
from webui.ui.guard import COOKIE, Guard
from webui.ui.stream import JobViews
from webui.ui.training_assist_routes import build_training_assist_router

OWNER = "a" * 32


class Waiting:
    """A masker that waits until it is let go, so that a test sees a job that runs."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def mask(self, pixels: np.ndarray) -> np.ndarray:
        self.asked.set()
        assert self.go.wait(60)
        return (np.arange(pixels.shape[1]) < pixels.shape[1] // 2).astype(np.float32) * np.ones(
            (pixels.shape[0], 1), np.float32
        )


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def services(tmp_path: Path, waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    room = tmp_path / "models"
    write_tags(write_tagger(room / "captioners" / "wd.onnx").with_suffix(".csv"))
    write_masker(room / "maskers" / "thing.onnx", dims=(1, 3, 512, 512), num_outputs=1)
    settings = load_settings(data_dir=tmp_path)
    host = PluginHost(settings, folders=())
    people = SubjectMasker(id="people", label="People", mask=waiting.mask)
    monkeypatch.setattr(host, "subject_maskers", lambda: [people])
    services = Services(settings, host)
    worker = build_tool_worker(services)
    worker.start()
    yield services
    waiting.go.set()
    worker.stop(60)
    services.close()


@pytest.fixture
def photos(services: Services) -> Path:
    folder = services.photo_sets.root / services.photo_sets.create("mia")
    for i in range(3):
        Image.new("RGB", (64, 48), (40 * i, 90, 60)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def client(services: Services) -> TestClient:
    app = FastAPI()
    app.add_middleware(Guard, settings=services.settings)
    app.include_router(build_training_assist_router(services))
    return TestClient(app, base_url="http://127.0.0.1:7860", cookies={COOKIE: OWNER})


def test_the_list_says_what_there_is_what_each_makes_and_what_is_wrong(client: TestClient, services: Services) -> None:
    found = client.get("/training/assistants").json()
    assert found["captioners"] == [{"id": "wd", "name": "wd", "about": "8 tags", "makes": "tags", "problem": ""}]
    people, thing = found["maskers"]
    assert (people["id"], people["name"], people["makes"], people["problem"]) == ("people", "People", "masks", "")
    assert thing["problem"].startswith("'thing' cannot be used: which network it is cannot be told; put one of these")
    assert found["how_to_get"] == HOW_TO_GET


def test_captions_are_a_job_whose_outcome_is_told(client: TestClient, services: Services, photos: Path) -> None:
    assert client.get("/training/sets/mia/assist").json() == {"assist": None}
    (photos / "1.txt").write_text("mine")
    wish = {"assistant": "wd", "kind": "captions", "overwrite": False, "threshold": 0.3, "prefix": "mia"}
    job = client.post("/training/sets/mia/assist", json=wish).json()["job"]
    services.queue.handle(job).wait(60)
    told = client.get("/training/sets/mia/assist").json()["assist"]
    assert (told["job"], told["state"], told["kind"]) == (job, "finished", "captions")
    assert (told["changed"], told["kept"], told["problems"], told["error"]) == (2, 1, [], None)
    said = {photo.name: photo.caption or "" for photo in services.photo_sets.open("mia").photos()}
    assert said["1.png"] == "mine" and said["0.png"].startswith("mia, ") and said["2.png"].startswith("mia, ")


def test_one_that_runs_is_seen_in_the_list_of_jobs_and_stops_between_photos(
    client: TestClient, services: Services, photos: Path, waiting: Waiting
) -> None:
    wish = {"assistant": "people", "kind": "masks"}
    job = client.post("/training/sets/mia/assist", json=wish).json()["job"]
    assert waiting.asked.wait(60)
    assert client.post("/training/sets/mia/assist", json=wish).json()["job"] == job, "the same is not begun twice"
    other = client.post("/training/sets/mia/assist", json={**wish, "overwrite": True})
    assert (other.status_code, other.json()["message"]) == (422, "Masks of 'mia' are being made already.")
    running = services.assisting.running("mia")
    assert running is not None and (running.kind, running.done, running.total) == ("masks", 0, 3)
    page = JobViews(services).page(f"browser:{OWNER}", "txt2img", picked="", kept="", seen="")
    (line,) = [line for line in page["jobs"] if line["id"] == job]
    assert (line["prompt"], line["status"], line["num_steps"]) == ("Masks of mia", "0 of 3 photos", 3)
    services.queue.interrupt(job)
    waiting.go.set()
    services.queue.handle(job).wait(60)
    told = client.get("/training/sets/mia/assist").json()["assist"]
    assert (told["state"], told["changed"]) == ("cancelled", 1)
    assert [path.name for path in photos.glob("*masklabel*")] == ["0-masklabel.png"], "what is done stays"
    assert services.assisting.running("mia") is None
    assert services.photo_sets.open("mia").undo() == "masks by People"
    assert not list(photos.glob("*masklabel*"))


@pytest.mark.parametrize(
    ("set_id", "wish", "field", "words"),
    [
        ("nobody", {"assistant": "wd", "kind": "captions"}, "set", "no photo set 'nobody'"),
        ("mia", {"assistant": "blip", "kind": "captions"}, "assistant", "no captioner named 'blip'"),
        ("mia", {"assistant": "thing", "kind": "masks"}, "assistant", "'thing' cannot be used"),
        ("mia", {"assistant": "wd", "kind": "captions", "names": ["x.png"]}, "names", "no photo 'x.png'"),
        ("mia", {"assistant": "wd", "kind": "captions", "names": []}, "names", "no photos to look at"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    set_id: str, wish: dict[str, object], field: str, words: str, client: TestClient, photos: Path
) -> None:
    answer = client.post(f"/training/sets/{set_id}/assist", json=wish)
    assert answer.status_code == 422
    assert answer.json()["field"] == field and words in answer.json()["message"]


def test_folders_of_the_machine_are_not_for_those_who_sit_elsewhere(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    id = services.photo_sets.refer(str(folder))
    wish = {"assistant": "wd", "kind": "captions"}
    answer = client.post(f"/training/sets/{id}/assist", json=wish, headers={"x-forwarded-for": "10.0.0.7"})
    assert answer.status_code == 422 and "not opened on the machine itself" in answer.json()["message"]
    assert not list(folder.glob("*.txt"))

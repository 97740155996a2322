"""What the pages ask of the library, asked without a browser."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from tests.library_files import write_checkpoint, write_lora, write_notes
from webui.generation.events import ImageReady
from webui.generation.request import GenerationRequest, Sampling
from webui.jobs.worker import JobContext, Worker
from webui.services import GENERATE, Services
from webui.settings import load_settings
from webui.ui.guard import COOKIE
from webui.ui.model_routes import build_model_router
from webui.ui.server import Guard
from webui.ui.stream import JobViews

HOST = "http://127.0.0.1:7860"
OWNER = "a" * 32


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(load_settings(data_dir=tmp_path))
    yield services
    services.close()


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    return tmp_path / "models" / "loras"


@pytest.fixture
def client(services: Services) -> TestClient:
    app = FastAPI()
    app.add_middleware(Guard, settings=services.settings)
    app.include_router(build_model_router(services, JobViews(services)))
    return TestClient(app, base_url=HOST, cookies={COOKIE: OWNER})


def data_url(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def card(client: TestClient, name: str) -> dict[str, object]:
    return next(card for card in client.get("/models").json()["cards"] if card["name"] == name)


def test_a_list_that_was_seen_is_not_sent_again(client: TestClient, services: Services, loras: Path) -> None:
    write_lora(loras / "ink.safetensors")
    first = client.get("/models").json()
    assert client.get("/models", params={"seen": first["stamp"]}).json() == {"stamp": first["stamp"]}
    write_lora(loras / "wash.safetensors")
    services.library.refresh()
    again = client.get("/models", params={"seen": first["stamp"]}).json()
    assert {"ink", "wash"} <= {card["name"] for card in again["cards"]}


def test_a_model_that_comes_while_the_list_is_made_is_not_missed(
    client: TestClient, services: Services, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, stamp = services.library, services.library.stamp

    def one_comes_before() -> str:
        write_lora(loras / "ink.safetensors")
        library.refresh()
        return stamp()

    monkeypatch.setattr(library, "stamp", one_comes_before)
    first = client.get("/models").json()
    again = client.get("/models", params={"seen": first["stamp"]}).json()
    assert "ink" in {card["name"] for card in again.get("cards", first["cards"])}


def test_no_path_of_the_machine_is_told(client: TestClient, loras: Path, tmp_path: Path) -> None:
    write_lora(loras / "styles" / "ink.safetensors")
    (loras / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    answers = [client.get("/models").text]
    answers += [client.get(f"/models/{entry['id']}").text for entry in client.get("/models").json()["cards"]]
    assert not [answer for answer in answers if str(tmp_path) in answer]


@pytest.mark.parametrize("model_id", ["nothing", "..", "%2e%2e%2fwebui.db", "loras%2fink"])
def test_an_unknown_model_is_not_found(client: TestClient, loras: Path, model_id: str) -> None:
    write_lora(loras / "ink.safetensors")
    for path in (f"/models/{model_id}", f"/models/{model_id}/preview"):
        assert client.get(path).status_code == 404
    assert client.post(f"/models/{model_id}/notes", json={"notes": "x"}).status_code == 404


def test_a_preview_in_the_metadata_is_shown_small(client: TestClient, loras: Path) -> None:
    thumbnail = data_url(Image.new("RGB", (900, 600), "#268"))
    write_lora(loras / "ink.safetensors", **{"modelspec.thumbnail": thumbnail})
    entry = card(client, "ink")
    assert entry["preview"]
    answer = client.get(f"/models/{entry['id']}/preview")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (320, 213)
    assert thumbnail not in client.get(f"/models/{entry['id']}").text


@pytest.mark.parametrize(
    "data", ["data:image/png;base64,AAAA", "data:image/png;base64,!!", "data:image/svg+xml,<svg/>"]
)
def test_a_preview_that_is_no_picture_is_none(client: TestClient, loras: Path, data: str) -> None:
    write_lora(loras / "ink.safetensors", **{"modelspec.thumbnail": data})
    assert client.get(f"/models/{card(client, 'ink')['id']}/preview").status_code == 404


def test_an_animated_preview_shows_its_first_picture(client: TestClient, loras: Path) -> None:
    write_lora(loras / "ink.safetensors")
    frames = [Image.new("P", (40, 30), colour) for colour in (1, 2)]
    frames[0].save(loras / "ink.gif", save_all=True, append_images=frames[1:])
    answer = client.get(f"/models/{card(client, 'ink')['id']}/preview")
    assert Image.open(io.BytesIO(answer.content)).size == (40, 30)


def test_a_name_that_no_tag_can_hold_is_told(client: TestClient, loras: Path) -> None:
    write_lora(loras / "a:b.safetensors")
    assert "rename" in str(card(client, "a:b")["problem"])


def test_words_and_weights_come_from_the_notes_before_the_metadata(client: TestClient, loras: Path) -> None:
    path = write_lora(loras / "ink.safetensors", **{"modelspec.trigger_phrase": "inky"})
    assert (card(client, "ink")["words"], card(client, "ink")["weight"]) == ("inky", 1)
    write_notes(path, **{"activation text": "ink wash", "preferred weight": "0.6"})
    client.post(f"/models/{card(client, 'ink')['id']}/notes", json={"notes": "now"})
    assert (card(client, "ink")["words"], card(client, "ink")["weight"]) == ("ink wash", 0.6)


def test_tags_are_counted_over_all_folders_and_data_sets(client: TestClient, loras: Path) -> None:
    datasets = [{"tag_frequency": {"c": {"ink": 5, "": 9, "odd": "x"}}}, "no data set"]
    frequency = {"a": {"ink": 10, "paper": 3}, "b": {"ink": 1}, "c": "nothing"}
    metadata = {"ss_tag_frequency": json.dumps(frequency), "ss_datasets": json.dumps(datasets)}
    write_lora(loras / "ink.safetensors", **metadata)
    model = client.get(f"/models/{card(client, 'ink')['id']}").json()
    assert model["tags"] == [["ink", 16], ["paper", 3]]


@pytest.mark.parametrize("body", [{"notes": ["x"]}, {"preferred_weight": "much"}, {"description": "x"}, []])
def test_notes_that_make_no_sense_are_refused_and_not_written(client: TestClient, loras: Path, body: object) -> None:
    write_lora(loras / "ink.safetensors")
    answer = client.post(f"/models/{card(client, 'ink')['id']}/notes", json=body)
    assert answer.status_code in (400, 422)
    assert not (loras / "ink.json").exists()


def test_recommended_settings_come_by_control_with_the_card(client: TestClient, loras: Path) -> None:
    write_lora(loras / "quick.safetensors")
    model = f"/models/{card(client, 'quick')['id']}"
    assert card(client, "quick")["settings"] == {}
    told = {"recommended_settings": "Steps: 4-8, Sampler: k_lcm, CFG scale: 1"}
    assert client.post(f"{model}/notes", json=told).status_code == 204
    assert card(client, "quick")["settings"] == {"sampler": ["LCM", "LCM"], "steps": [4, 8], "cfg_scale": [1.0, 1.0]}
    assert client.get(model).json()["notes"]["recommended_settings"] == told["recommended_settings"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("Sampler: LCMM", "'LCMM'"), ("Steps: 0", "Steps is 0"), ("CFG scale: 0.5", "CFG scale 0.5"), ("LCM", "'LCM'")],
)
def test_recommended_settings_that_cannot_be_used_are_refused_with_the_value(
    client: TestClient, loras: Path, text: str, said: str
) -> None:
    path = write_lora(loras / "quick.safetensors")
    answer = client.post(
        f"/models/{card(client, 'quick')['id']}/notes", json={"notes": "x", "recommended_settings": text}
    )
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert not path.with_suffix(".json").exists()


def test_recommended_settings_of_a_stranger_that_cannot_be_used_are_not_offered_and_say_why(
    client: TestClient, loras: Path
) -> None:
    write_notes(write_lora(loras / "quick.safetensors"), **{"recommended settings": "Steps: 0, Sampler: LCM"})
    model = client.get(f"/models/{card(client, 'quick')['id']}").json()
    assert (model["settings"], card(client, "quick")["settings"]) == ({}, {})
    assert "Steps is 0" in model["settings_problem"]


def test_a_preview_is_only_made_of_an_own_picture(client: TestClient, services: Services, tmp_path: Path) -> None:
    write_lora(tmp_path / "models" / "loras" / "ink.safetensors")
    write_checkpoint(tmp_path / "models" / "checkpoints" / "photo.safetensors")
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")

    def run(context: JobContext) -> None:
        context.report(ImageReady(index=0, path=str(tmp_path / "picture.png"), seed=1, infotext=""))

    worker = Worker(services.queue, lambda: {GENERATE: run})
    worker.start()
    request = GenerationRequest(
        checkpoint="photo", width=64, height=64, sampling=Sampling(num_inference_steps=1), prompt=""
    )
    jobs = [services.generate(request, owner=f"browser:{owner}") for owner in (OWNER, "b" * 32)]
    for job in jobs:
        job.wait(30)
    assert worker.stop(30)
    path = f"/models/{card(client, 'ink')['id']}/preview"
    assert client.post(path, json={"job": jobs[1].id, "index": 0}).status_code == 400
    assert client.post(path, json={"job": jobs[0].id, "index": 0}).status_code == 204
    assert client.get(path).status_code == 200

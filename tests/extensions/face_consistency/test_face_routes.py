"""The extension's HTTP behind the program's guard: consent in every call, no numbers of faces, clear refusals."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from extensions.face_consistency.face import Pixels
from tests.extensions.face_consistency.story import liquified
from tests.onnx_files import write_arcface, write_gender_age
from webui.images.metadata import COMPOSITE
from webui.plugins.host import PluginHost
from webui.plugins.routes import ExtensionRoutes
from webui.settings import CHECKOUT, Settings, load_settings
from webui.ui.guard import Guard

BASE = "/extensions/face_consistency"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    host = PluginHost(settings, folders=[CHECKOUT / "extensions"])
    host.load(only={"face_consistency"})
    app = FastAPI()
    app.mount("/extensions", ExtensionRoutes(host))
    with TestClient(Guard(app, settings=settings), base_url="http://127.0.0.1") as client:
        yield client
    host.close()


def encoded(pixels: Pixels, fmt: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, fmt)
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def photo(astronaut: Pixels) -> str:
    return encoded(astronaut)


@pytest.fixture(scope="module")
def target(astronaut: Pixels) -> str:
    return encoded(liquified(astronaut))


def test_a_picture_comes_back_with_the_face_the_figures_and_the_mark(
    client: TestClient, photo: str, target: str, astronaut: Pixels
) -> None:
    body = {"consent": True, "image": f"data:image/png;base64,{target}", "sources": [photo], "params": {"color": 0.8}}
    answer = client.post(f"{BASE}/process", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    (face,) = told["faces"]
    assert face["action"] == "warped"
    assert face["similarity_after"] > face["similarity_before"]
    with Image.open(io.BytesIO(base64.b64decode(told["image"]))) as made:
        assert made.size == (512, 512)
        assert COMPOSITE in made.info["XML:com.adobe.xmp"]
        assert not np.array_equal(np.asarray(made), liquified(astronaut))


@pytest.mark.parametrize("consent", [False, None])
def test_without_consent_in_the_call_nothing_is_done(
    consent: bool | None, client: TestClient, photo: str, target: str
) -> None:
    client.post(f"{BASE}/consent", json={"consent": True})
    word = {} if consent is None else {"consent": consent}
    for path, body in (
        ("process", {"image": target, "sources": [photo]}),
        ("faces", {"name": "Ada", "photos": [photo]}),
        ("consent", {}),
    ):
        answer = client.post(f"{BASE}/{path}", json={**body, **word})
        assert answer.status_code == 403
        assert "consent" in answer.json()["detail"]
    assert client.get(f"{BASE}/faces").json() == {"faces": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "not base64!"}, "`image` is not base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "image"),
        ({"sources": []}, "no picture to take the face from"),
        ({"params": {"shape_keep": 7}}, "shape_keep"),
        ({"params": {"refine": True}}, "queue"),
        ({"params": {"swap": True}}, "no face swapper"),
        ({"params": {"photos": ["x"]}}, "sources"),
        ({"params": {"nose": 1}}, "nose"),
    ],
)
def test_a_wrong_call_is_refused_in_words(
    change: dict[str, Any], words: str, client: TestClient, photo: str, target: str
) -> None:
    answer = client.post(f"{BASE}/process", json={"consent": True, "image": target, "sources": [photo], **change})
    assert 400 <= answer.status_code < 500
    assert words in answer.text


def test_faces_are_saved_only_here_listed_without_numbers_and_deleted(
    client: TestClient, photo: str, settings: Settings
) -> None:
    write_arcface(settings.models_dir / "face" / "w600k_r50.onnx")
    saved = client.post(f"{BASE}/faces", json={"consent": True, "name": "Ada", "photos": [photo]})
    assert saved.status_code == 200, saved.text
    (file,) = (settings.data_dir / "extension-data" / "face_consistency" / "faces").iterdir()
    assert file.name == "Ada.safetensors"
    (told,) = client.get(f"{BASE}/faces").json()["faces"]
    assert told["name"] == "Ada"
    assert told["can_be_measured"] and told["can_be_swapped_in"]
    assert not any(isinstance(value, list) for value in told.values())
    again = client.post(f"{BASE}/faces", json={"consent": True, "name": "Ada", "photos": [photo]})
    assert again.status_code == 400
    assert client.delete(f"{BASE}/faces/Ada").status_code == 200
    assert not file.exists()
    assert client.delete(f"{BASE}/faces/Ada").status_code == 400


def test_a_saved_face_measures_but_does_not_warp(client: TestClient, photo: str, target: str) -> None:
    client.post(f"{BASE}/faces", json={"consent": True, "name": "Ada", "photos": [photo]})
    params = {"saved_face": "Ada", "warp": False}
    told = client.post(f"{BASE}/process", json={"consent": True, "image": target, "params": params}).json()
    assert told["faces"][0]["action"] == "kept"
    assert told["faces"][0]["similarity_before"] < 0.5
    refused = client.post(f"{BASE}/process", json={"consent": True, "image": target, "params": {"saved_face": "Ada"}})
    assert refused.status_code == 400
    assert "not its pixels" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["../outside", "a/b", "con", ".hidden"])
def test_a_name_stays_in_its_folder(name: str, client: TestClient, photo: str, settings: Settings) -> None:
    answer = client.post(f"{BASE}/faces", json={"consent": True, "name": name, "photos": [photo]})
    assert answer.status_code == 400
    assert not list(settings.data_dir.rglob("*.safetensors"))


def test_models_are_listed_with_their_problems(client: TestClient, settings: Settings) -> None:
    face = settings.models_dir / "face"
    write_gender_age(face / "buffalo_l" / "genderage.onnx")
    (face / "broken.onnx").write_bytes(b"\x00\x01")
    told = {model["name"]: model for model in client.get(f"{BASE}/models").json()["models"]}
    assert told["buffalo_l/genderage"]["role"] == "gender_age"
    assert told["broken"]["problem"]


def test_consent_is_given_seen_and_taken_back(client: TestClient) -> None:
    assert client.get(f"{BASE}/consent").json()["given"] == ""
    assert client.post(f"{BASE}/consent", json={"consent": True}).json()["given"]
    assert client.get(f"{BASE}/consent").json()["given"]
    assert client.delete(f"{BASE}/consent").json()["given"] == ""


def test_other_websites_cannot_use_it(client: TestClient, photo: str, target: str) -> None:
    body = {"consent": True, "image": target, "sources": [photo]}
    answer = client.post(f"{BASE}/process", json=body, headers={"Origin": "https://example.com"})
    assert answer.status_code == 403
    assert "faces" not in answer.text
    assert client.get(f"{BASE}/faces", headers={"Host": "example.com"}).status_code >= 400

"""Photo sets as the page asks for them, without a browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from tests.training.data.pictures import picture, saved
from webui.services import Services
from webui.settings import Settings, load_settings
from webui.trainings import TRAIN
from webui.ui import training_set_routes
from webui.ui.guard import Guard
from webui.ui.training_set_routes import build_training_set_router
from webui.ui.training_sets import why_no_folders

HOST = "http://127.0.0.1:7860"
HERE, ELSEWHERE = ("127.0.0.1", 50000), ("192.168.0.7", 50000)
SMALL = (96, 64)
STYLE = {"subject": "style", "resolution": "64", "bucket_step": "8", "trigger": "ohwx"}


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setattr(training_set_routes, "ANSWER_WITHIN_S", 60.0)
    services = Services(load_settings(data_dir=tmp_path / "data"))
    yield services
    services.close()


def client_at(services: Services, address: tuple[str, int]) -> TestClient:
    app = FastAPI()
    app.add_middleware(Guard, settings=services.settings)
    app.include_router(build_training_set_router(services))
    return TestClient(app, base_url=HOST, client=address)


@pytest.fixture
def client(services: Services) -> TestClient:
    return client_at(services, HERE)


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = SMALL) -> bytes:
    data = io.BytesIO()
    picture(seed, size).save(data, form)
    return data.getvalue()


def send(client: TestClient, id: str, files: dict[str, bytes]) -> dict[str, Any]:
    answer = client.post(f"/training/sets/{id}/files", files=[("files", (name, data)) for name, data in files.items()])
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def shown(client: TestClient, id: str, **more: str) -> dict[str, Any]:
    answer = client.get(f"/training/sets/{id}", params={**STYLE, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def photo_of(client: TestClient, id: str, name: str) -> dict[str, Any]:
    return next(photo for photo in shown(client, id)["photos"] if photo["name"] == name)


@pytest.fixture
def anna(client: TestClient) -> str:
    """A set of six photos, one of them with a caption and in a folder."""
    assert client.post("/training/sets", json={"name": "Anna"}).json() == {"id": "Anna"}
    files = {f"{i}.png": encoded(i) for i in range(5)}
    told = send(client, "Anna", {**files, "trip/b.png": encoded(9), "trip/b.txt": b"ohwx, a hat"})
    assert (told["added"], told["beside"], told["refused"]) == (6, 1, [])
    return "Anna"


def test_a_new_set_is_listed_and_shown_with_all_that_is_known(client: TestClient, anna: str) -> None:
    listed = client.get("/training/sets").json()
    assert [(each["id"], each["num_photos"], each["own"], each["folder"]) for each in listed["sets"]] == [
        ("Anna", 6, True, "")
    ]
    assert listed["may_use_folders"] and listed["why_not"] == ""
    told = shown(client, anna)
    assert told["checking"] is None and told["problems"] == [] and told["left_out"] == []
    assert told["tags"] == [["a hat", 1], ["ohwx", 1]]
    assert told["split"] == {"train": 5, "held_out": 1, "suggested": 1}
    assert told["buckets"] == [{"size": [80, 48], "num": 6}]
    first, last = told["photos"][0], told["photos"][-1]
    assert (last["name"], last["caption"], first["caption"]) == ("trip/b.png", "ohwx, a hat", None)
    assert (first["width"], first["height"], first["bucket"], first["lost"]) == (96, 64, [80, 48], 0.1)
    assert sum(photo["held_out"] for photo in told["photos"]) == 1


def test_what_was_seen_is_not_sent_again_until_something_changes(client: TestClient, anna: str) -> None:
    version = shown(client, anna)["version"]
    assert shown(client, anna, known=version) == {"version": version, "checking": None}
    client.post(f"/training/sets/{anna}/captions", json={"name": "0.png", "text": "new"})
    assert "photos" in shown(client, anna, known=version)
    assert shown(client, anna, resolution="128")["version"] != shown(client, anna)["version"]


def test_pictures_are_sent_small_and_large_and_as_masks(client: TestClient, anna: str) -> None:
    send(client, anna, {"big.png": encoded(1, size=(1000, 500))})
    sizes = {}
    for size in ("thumb", "large"):
        answer = client.get(f"/training/sets/{anna}/pictures/big.png", params={"size": size})
        sizes[size] = Image.open(io.BytesIO(answer.content)).size
    assert sizes == {"thumb": (320, 160), "large": (1000, 500)}
    known = client.get(f"/training/sets/{anna}/pictures/trip/b.png", params={"v": "x"})
    assert "immutable" in known.headers["cache-control"]
    assert client.get(f"/training/sets/{anna}/pictures/0.png?size=mask").status_code == 422
    mask = Image.new("L", SMALL, 7)
    data = io.BytesIO()
    mask.save(data, "PNG")
    assert client.post(f"/training/sets/{anna}/masks/0.png", content=data.getvalue()).json() == {"changed": True}
    assert photo_of(client, anna, "0.png")["mask"]
    answer = client.get(f"/training/sets/{anna}/pictures/0.png?size=mask")
    assert Image.open(io.BytesIO(answer.content)).getpixel((3, 3)) == 7
    assert client.delete(f"/training/sets/{anna}/masks/0.png").json() == {"changed": True}
    assert client.post(f"/training/sets/{anna}/masks/0.png", content=b"rubbish").status_code == 422


@pytest.mark.parametrize("name", ["../secret.png", "..%2Fsecret.png", "/etc/passwd", "none.png", "%00"])
def test_no_file_beside_the_set_is_sent(name: str, client: TestClient, anna: str, services: Services) -> None:
    saved(services.settings.photos_dir, "secret.png", picture(1, SMALL))
    answer = client.get(f"/training/sets/{anna}/pictures/{name}")
    assert answer.status_code in (404, 422) and not answer.content.startswith(b"\xff\xd8")


def test_photos_are_cut_left_out_and_repeated_and_that_is_taken_back(client: TestClient, anna: str) -> None:
    edits = f"/training/sets/{anna}/edits"
    assert client.post(edits, json={"names": ["0.png"], "crop": [10, 10, 60, 200]}).json() == {"changed": True}
    assert client.post(edits, json={"names": ["0.png", "1.png"], "repeats": 3}).json() == {"changed": True}
    assert client.post(edits, json={"names": ["1.png"], "excluded": True}).json() == {"changed": True}
    cut, out = photo_of(client, anna, "0.png"), photo_of(client, anna, "1.png")
    assert (cut["crop"], cut["repeats"], cut["bucket"]) == ([10, 10, 60, 64], 3, [48, 48])
    assert (out["excluded"], out["repeats"], out["bucket"]) == (True, 3, None)
    assert shown(client, anna)["split"]["train"] + shown(client, anna)["split"]["held_out"] == 5
    assert shown(client, anna)["undo"] == "1 photo left out"
    undone = [client.post(f"/training/sets/{anna}/undo").json()["undone"] for _ in range(3)]
    assert undone == ["1 photo left out", "repeats of 2 photos", "crop of 1 photo"]
    assert photo_of(client, anna, "0.png")["crop"] is None
    assert client.post(f"/training/sets/{anna}/undo").status_code == 422
    client.post(edits, json={"names": ["0.png"], "crop": [10, 10, 60, 60]})
    client.post(edits, json={"names": ["0.png"], "crop": [0, 0, 96, 64]})
    assert photo_of(client, anna, "0.png")["crop"] is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("edits", {"names": ["0.png"]}),
        ("edits", {"names": [], "excluded": True}),
        ("edits", {"names": ["nobody.png"], "excluded": True}),
        ("edits", {"names": ["0.png"], "crop": [50, 50, 40, 60]}),
        ("edits", {"names": ["0.png"], "crop": [200, 0, 300, 60]}),
        ("edits", {"names": ["0.png"], "crop": [1, 2, 3]}),
        ("edits", {"names": ["0.png"], "repeats": 0}),
        ("edits", {"names": ["0.png"], "colour": "red"}),
        ("captions", {"name": "nobody.png", "text": "x"}),
        ("captions/replace", {"find": "", "replace": "x"}),
        ("fix", {"problem": "x", "fix": "0"}),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_sentence(
    path: str, body: dict[str, Any], client: TestClient, anna: str
) -> None:
    answer = client.post(f"/training/sets/{anna}/{path}", json=body)
    assert answer.status_code == 422
    assert answer.json()["message"].endswith(".") and set(answer.json()) == {"message", "hint", "field"}
    assert shown(client, anna)["undo"] == ""


def test_a_problem_is_mended_by_one_click_and_taken_back(client: TestClient, anna: str) -> None:
    client.post(f"/training/sets/{anna}/edits", json={"names": ["0.png"], "repeats": 4})
    send(client, anna, {"small.png": encoded(7, size=(24, 16)), "twin.jpg": encoded(0, "JPEG")})
    problems = {problem["kind"]: problem for problem in shown(client, anna)["problems"]}
    twins = problems["nearly the same"]
    assert set(twins["names"]) == {"0.png", "twin.jpg"} and "small.png" in problems["too small"]["names"]
    fix = {"problem": twins["id"], "fix": twins["fixes"][0]["id"]}
    assert client.post(f"/training/sets/{anna}/fix", json=fix).json() == {"changed": True}
    after = shown(client, anna)
    assert "nearly the same" not in [problem["kind"] for problem in after["problems"]]
    assert next(photo for photo in after["photos"] if photo["name"] == "0.png")["repeats"] == 4
    client.post(f"/training/sets/{anna}/undo")
    assert twins in shown(client, anna)["problems"]


def test_captions_are_written_and_changed_at_once(client: TestClient, anna: str) -> None:
    base = f"/training/sets/{anna}/captions"
    for i, text in enumerate(("a man, red hat", "a woman, Red Hat, hat")):
        assert client.post(base, json={"name": f"{i}.png", "text": text}).json() == {"changed": 1}

    def said() -> list[str | None]:
        return [photo["caption"] for photo in shown(client, anna)["photos"]]

    assert client.post(f"{base}/replace", json={"find": "man", "replace": "boy"}).json() == {"changed": 1}
    assert said()[:2] == ["a boy, red hat", "a woman, Red Hat, hat"]
    wish = {"find": "red hat", "replace": "hat", "whole_tag": True}
    assert client.post(f"{base}/replace", json=wish).json() == {"changed": 2}
    assert said()[:3] == ["a boy, hat", "a woman, hat", None]
    assert client.post(f"{base}/remove-tag", json={"tag": "HAT", "names": ["1.png"]}).json() == {"changed": 1}
    assert client.post(f"{base}/prefix", json={"text": "ohwx"}).json() == {"changed": 5}
    assert said() == ["ohwx, a boy, hat", "ohwx, a woman", "ohwx", "ohwx", "ohwx", "ohwx, a hat"]
    assert client.post(base, json={"name": "0.png", "text": None}).json() == {"changed": 1}
    for _ in range(7):
        client.post(f"/training/sets/{anna}/undo")
    assert said() == [None] * 5 + ["ohwx, a hat"]


def test_files_that_are_too_large_or_too_many_are_refused(
    client: TestClient, anna: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_set_routes, "MOST_BYTES", 2000)
    told = send(client, anna, {"huge.png": encoded(3, size=(400, 300)), "tiny.png": encoded(4, size=(4, 4))})
    assert [each["name"] for each in told["refused"]] == ["huge.png"] and told["names"] == ["tiny.png"]
    monkeypatch.setattr(training_set_routes, "MOST_FILES", 2)
    many = [("files", (f"{i}.txt", b"x")) for i in range(3)]
    answer = client.post(f"/training/sets/{anna}/files", files=many)
    assert answer.status_code == 422 and answer.json()["field"] == "files"


def test_a_folder_of_the_machine_is_for_who_sits_at_it(client: TestClient, services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "Urlaub"
    saved(folder, "a.png", picture(1, SMALL))
    id = client.post("/training/sets", json={"folder": str(folder)}).json()["id"]
    assert shown(client, id)["source"] == str(folder)
    assert client.get("/training/sets").json()["sets"][0]["folder"] == str(folder)
    behind_proxy = {"X-Forwarded-For": "192.168.0.7"}
    for stranger, headers in ((client_at(services, ELSEWHERE), {}), (client, behind_proxy)):
        listed = stranger.get("/training/sets", headers=headers).json()
        assert listed["sets"] == [] and not listed["may_use_folders"] and listed["why_not"]
        for ask in (
            stranger.get(f"/training/sets/{id}", headers=headers),
            stranger.get(f"/training/sets/{id}/pictures/a.png", headers=headers),
            stranger.post("/training/sets", json={"folder": str(folder)}, headers=headers),
            stranger.delete(f"/training/sets/{id}", headers=headers),
        ):
            assert ask.status_code == 422 and str(folder) not in ask.text
    assert client.delete(f"/training/sets/{id}").json() == {"done": True}
    assert (folder / "a.png").is_file()


def test_no_folder_of_the_machine_is_opened_where_others_reach_the_page() -> None:
    assert why_no_folders(Settings(host="127.0.0.1"), from_here=True) == ""
    assert "0.0.0.0" in why_no_folders(Settings(host="0.0.0.0"), from_here=True)


def test_a_folder_that_vanishes_is_told_and_the_other_sets_stay(
    client: TestClient, anna: str, services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "drive"
    saved(folder, "a.png", picture(1, SMALL))
    id = client.post("/training/sets", json={"folder": str(folder)}).json()["id"]
    shown(client, id)
    folder.rename(tmp_path / "gone")
    sets = {each["name"]: (each["num_photos"], each["gone"]) for each in client.get("/training/sets").json()["sets"]}
    assert sets["Anna"] == (6, False) and sets["drive"][1]
    services.photo_sets.open(id).look_again()  # what was there a moment ago is believed for a moment
    answer = client.get(f"/training/sets/{id}")
    assert answer.status_code == 422 and str(folder) in answer.json()["message"]


def test_a_set_that_a_training_waits_for_is_not_removed(client: TestClient, anna: str, services: Services) -> None:
    job = services.queue.submit(TRAIN, {"run": "x", "set": anna, "prior": ""}, owner="user:x")
    answer = client.delete(f"/training/sets/{anna}")
    assert answer.status_code == 422 and "Anna" in answer.json()["message"]
    services.queue.interrupt(job.id)
    assert client.delete(f"/training/sets/{anna}").json() == {"done": True}
    assert not (services.settings.photos_dir / "Anna").exists()


@pytest.mark.parametrize("body", [{}, {"name": " "}, {"name": "a", "folder": "/b"}, {"name": "CON"}, {"name": "../x"}])
def test_a_set_without_a_good_name_is_not_made(body: dict[str, str], client: TestClient) -> None:
    assert client.post("/training/sets", json=body).status_code == 422
    assert client.get("/training/sets").json()["sets"] == []


def test_an_empty_set_is_shown(client: TestClient) -> None:
    client.post("/training/sets", json={"name": "Empty"})
    told = shown(client, "Empty")
    assert (told["photos"], told["split"]["train"], told["checking"]) == ([], 0, None)

"""What the Training tab asks about settings and runs, asked without a browser."""

import tomllib
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.library_files import write_checkpoint
from tests.test_trainings import write_photos
from tests.training_runs import PROMPTS, WEIGHTS, Story, write_story
from webui.jobs.events import Failed, Progress
from webui.services import Services
from webui.settings import load_settings
from webui.training.config import Method, TrainingConfig
from webui.training.events import EventLines, LossReported, ValidationReported
from webui.training.folders import RunFolder
from webui.training.presets import PRESETS
from webui.trainings import TRAIN
from webui.ui.guard import COOKIE
from webui.ui.server import Guard
from webui.ui.stream import JobViews
from webui.ui.training_form import METHODS, SIMPLE, sections
from webui.ui.training_run_routes import build_training_run_router

HOST = "http://127.0.0.1:7860"
OWNER = "a" * 32


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    data_dir = tmp_path_factory.mktemp("training")
    write_photos(data_dir / "photos" / "mia")
    write_checkpoint(data_dir / "models" / "checkpoints" / "paper.safetensors")
    write_story(data_dir, Story(name="boats"))
    services = Services(load_settings(data_dir=data_dir))
    yield services
    services.close()


@pytest.fixture
def client(services: Services) -> TestClient:
    app = FastAPI()
    app.add_middleware(Guard, settings=services.settings)
    app.include_router(build_training_run_router(services))
    return TestClient(app, base_url=HOST, cookies={COOKIE: OWNER})


@pytest.fixture
def story(services: Services) -> Iterator[RunFolder]:
    """A run that stands still after step 20 of 40."""
    folder = write_story(services.settings.data_dir, Story(name="ship 1", last=20))
    yield folder
    for job in services.queue.jobs():
        services.queue.interrupt(job.id)
    services.trainings.delete("ship 1")


def draft(client: TestClient, **more: str) -> dict[str, Any]:
    given = {"preset": "person-small", "base": "starter", "method": "lora", "set": "mia", "trigger": "mia"}
    answer = client.post("/training/draft", json={**given, "class_word": "woman", "name": "mia", **more})
    assert answer.status_code == 200, answer.text
    config: dict[str, Any] = answer.json()["config"]
    return config


def refusal(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 422
    return answer.json()["field"], answer.json()["message"]


def test_every_setting_is_in_the_form_once_with_what_it_means() -> None:
    fields = [field for section in sections() for field in section["fields"]]
    names = [field["name"] for field in fields]
    expected = []
    for name, info in TrainingConfig.model_fields.items():
        parts = getattr(info.annotation, "model_fields", None)
        expected += [name] if parts is None else [f"{name}.{part}" for part in parts]
    assert sorted(names) == sorted(expected)
    assert set(names) >= SIMPLE
    for field in fields:
        assert field["label"]
        assert field["about"], field["name"]
        assert field["kind"] in {"int", "number", "bool", "text", "choice", "list"}
        assert bool(field["choices"]) == (field["kind"] == "choice")
    by_name = {field["name"]: field for field in fields}
    rank, warmup = by_name["network.rank"], by_name["optimizer.warmup"]
    assert (rank["kind"], rank["min"], rank["max"], rank["default"]) == ("int", 1, 1024, 16)
    assert (warmup["min"], warmup["max"]) == (0.0, 1.0)
    assert by_name["data.holdout"]["optional"]
    assert by_name["validation.weights"]["items"] == "number"
    assert by_name["optimizer.rate"]["above"] == 0.0


def test_the_form_has_presets_methods_and_bases(client: TestClient) -> None:
    form = client.get("/training/form").json()
    assert [preset["id"] for preset in form["presets"]] == list(PRESETS)
    assert {method["id"] for method in form["methods"]} == set(get_args(Method)) == set(METHODS)
    (starter,) = [base for base in form["bases"] if base["name"] == "starter"]
    assert (starter["native_size"], starter["problem"]) == (192, "")
    assert form["enabled"] is True


def test_a_draft_becomes_a_run_that_waits(client: TestClient, services: Services) -> None:
    config = draft(client)
    assert config["data"]["photos"] == "mia", "no folder of this machine"
    checked = client.post("/training/check", json={"config": config, "set": "mia"}).json()
    assert checked["problems"] == []
    assert checked["summary"]["num_photos"] == 7
    started = client.post("/training/runs", json={"config": config, "set": "mia"}).json()
    assert started["run"] == "mia"
    assert services.queue.record(started["job"]).owner == f"browser:{OWNER}"
    run = client.get("/training/runs/mia").json()
    assert (run["state"], run["place"], run["set"], run["config"]) == ("queued", 1, "mia", config)
    assert str(services.settings.data_dir) not in client.get("/training/runs/mia").text
    assert client.post("/training/runs/mia/stop").json() == {"done": True}
    assert client.get("/training/runs/mia").json()["state"] == "stopped"
    assert client.delete("/training/runs/mia").json() == {"done": True}
    assert refusal(client.get("/training/runs/mia"))[1].startswith("There is no run named 'mia'")


def test_what_cannot_be_run_is_refused_with_its_field(client: TestClient) -> None:
    config = draft(client)
    wrong = {**config, "network": {**config["network"], "rank": 0}}
    assert refusal(client.post("/training/runs", json={"config": wrong, "set": "mia"}))[0] == "network.rank"
    assert refusal(client.post("/training/runs", json={"config": config, "set": ""}))[0] == "set"
    assert refusal(client.post("/training/runs", json={"config": {**config, "name": "a/b"}, "set": "mia"}))[0] == "name"
    assert refusal(client.post("/training/runs", json={"config": {}, "set": "mia"}))[0] == "name"
    assert client.post("/training/runs", json={"config": [], "set": "mia"}).status_code == 422
    problems = client.post("/training/check", json={"config": {"data": 3}, "set": "mia"}).json()["problems"]
    assert {problem["field"] for problem in problems} == {"name"}


def test_a_finished_run_tells_all_that_happened(client: TestClient, services: Services) -> None:
    run = client.get("/training/runs/boats").json()
    assert (run["state"], run["step"], run["num_steps"], run["kind"]) == ("finished", 40, 40, "lora")
    assert [point[0] for point in run["losses"]] == list(range(1, 41))
    assert set(run["rates"]) == {"unet", "text_encoder"}
    assert len(run["rates"]["unet"]) == 40
    assert [each["step"] for each in run["validation"]] == [10, 20, 30, 40]
    base, trained = run["samples"][: len(PROMPTS)], run["samples"][len(PROMPTS) :]
    assert [(sample["step"], sample["prompt"]) for sample in base] == [(0, prompt) for prompt in PROMPTS]
    assert len(trained) == 4 * len(WEIGHTS) * len(PROMPTS)
    for sample in (base[0], trained[-1]):
        assert client.get(f"/{sample['url']}").headers["content-type"] == "image/png"
    assert run["choice"]["preliminary"] is False
    assert run["in_use"] == {"step": run["best_step"], "weight": run["best_weight"], "by_hand": False}
    assert run["tag"] == f"<lora:{run['adapter']}:{run['best_weight']:g}>"
    assert client.get(f"/{run['download']}").status_code == 200
    assert run["candidates"] == [10, 20, 30, 40]
    assert str(services.settings.data_dir) not in client.get("/training/runs/boats").text
    (row,) = [row for row in client.get("/training/runs").json()["runs"] if row["run"] == "boats"]
    assert {name: run[name] for name in row} == row, "a row of the list says the same"
    assert client.get(f"/{row['preview']}").status_code == 200


def test_what_is_known_is_not_sent_again(client: TestClient, story: RunFolder) -> None:
    version = client.get("/training/runs/ship 1").json()["version"]
    assert client.get("/training/runs/ship 1", params={"known": version}).json() == {"version": version}
    EventLines(story.events)(Failed(message="No memory.", hint="Use less."))
    run = client.get("/training/runs/ship 1", params={"known": version}).json()
    assert (run["state"], run["error"]) == ("failed", {"message": "No memory.", "hint": "Use less."})


def test_a_run_on_its_way_says_what_would_be_chosen(client: TestClient, story: RunFolder) -> None:
    run = client.get("/training/runs/ship 1").json()
    assert (run["state"], run["step"], run["can_resume"]) == ("paused", 20, True)
    assert run["choice"]["preliminary"] is True
    assert (run["tag"], run["download"], run["in_use"], run["finished"]) == ("", "", None, None)
    assert run["preview"].endswith(".png")


def test_numbers_that_are_none_do_not_break_the_page(client: TestClient, story: RunFolder) -> None:
    lines, nan = EventLines(story.events), float("nan")
    lines(
        LossReported(
            step=21, num_steps=40, loss=nan, gradient_norm=float("inf"), rates={"unet": 1e-4}, seconds_per_step=1,
            seconds_left=1,
        )
    )  # fmt: skip
    lines(ValidationReported(step=30, train=nan, held_out=nan, base_train=0.1, base_held_out=0.1))
    run = client.get("/training/runs/ship 1").json()
    assert run["losses"][-1] == [21, None, None, 1.0]
    assert run["error_held_out"] is None
    assert client.get("/training/runs").status_code == 200


def test_a_run_goes_on_with_changes_that_it_can_have(client: TestClient, story: RunFolder) -> None:
    answer = client.post("/training/runs/ship 1/resume", json={"changes": {"network.rank": 4}})
    assert refusal(answer)[0] == "network.rank"
    answer = client.post("/training/runs/ship 1/resume", json={"changes": {"schedule.num_steps": 80}})
    assert answer.json()["run"] == "ship 1"
    run = client.get("/training/runs/ship 1").json()
    assert (run["state"], run["num_steps"]) == ("queued", 80)
    assert client.post("/training/runs/ship 1/pause").json() == {"done": True}
    assert client.get("/training/runs/ship 1").json()["state"] == "paused"
    assert client.post("/training/runs/ship 1/resume").status_code == 200, "without a body"


def test_a_run_whose_base_was_removed_says_so(client: TestClient, services: Services, story: RunFolder) -> None:
    base = services.settings.models_dir / "checkpoints" / "paper.safetensors"
    away = base.with_suffix(".away")
    base.rename(away)
    services.library.refresh()
    try:
        assert "no checkpoint named 'paper'" in refusal(client.post("/training/runs/ship 1/resume"))[1]
    finally:
        away.rename(base)
        services.library.refresh()


@pytest.mark.parametrize(
    ("wish", "field"),
    [({"step": 15, "weight": 1.0}, "step"), ({"step": 0, "weight": 1}, "step"), ({"step": 10}, "weight")],
)
def test_only_a_candidate_that_is_there_can_be_picked(
    client: TestClient, story: RunFolder, wish: dict[str, float], field: str
) -> None:
    answer = client.post("/training/runs/ship 1/pick", json=wish)
    assert answer.status_code == 422
    assert answer.json().get("field", "") == field


def test_a_candidate_is_picked_and_the_run_says_so_meanwhile(client: TestClient, story: RunFolder) -> None:
    assert client.post("/training/runs/ship 1/pick", json={"step": 10, "weight": 0.8}).status_code == 200
    run = client.get("/training/runs/ship 1").json()
    assert run["picking"] == {"step": 10, "weight": 0.8}
    assert run["state"] == "paused"


def test_the_settings_go_home_without_the_folders_of_this_machine(client: TestClient, services: Services) -> None:
    answer = client.get("/training/runs/boats/config.toml")
    assert "boats.toml" in answer.headers["content-disposition"]
    assert tomllib.loads(answer.text)["data"]["photos"] == "boats"
    assert str(services.settings.data_dir) not in answer.text


def test_the_log_has_notes_and_the_last_words(client: TestClient, story: RunFolder, services: Services) -> None:
    story.log.write_text(f"Traceback in {services.settings.data_dir}/x\n")
    EventLines(story.events)(Failed(message="No memory.", hint="Use less."))
    text = client.get("/training/runs/ship 1/log").text
    assert "12 photos to train on" in text
    assert "failed: No memory. Use less." in text
    assert "Traceback in DATA/x" in text


@pytest.mark.parametrize(
    "path",
    [
        "runs/gone",
        "runs/..",
        "runs/%2e%2e",
        "runs/boats/samples/..%2fconfig.toml",
        "runs/boats/samples/config.toml",
        "runs/boats/samples/gone.png",
        "runs/gone/log",
        "runs/gone/config.toml",
        "runs/ship%201/adapter",
    ],
)
def test_nothing_is_given_out_that_is_not_of_a_run(client: TestClient, path: str) -> None:
    assert client.get(f"/training/{path}").status_code in (404, 405, 422)


def test_a_run_that_was_removed_by_hand_is_gone_from_the_list(client: TestClient, services: Services) -> None:
    folder = write_story(services.settings.data_dir, Story(name="brief", last=10))
    assert client.get("/training/runs/brief").status_code == 200
    for path in sorted(folder.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.path.rmdir()
    assert refusal(client.get("/training/runs/brief"))[1].startswith("There is no run")
    assert refusal(client.post("/training/runs/brief/resume"))[1].startswith("There is no run")
    assert "brief" not in [run["run"] for run in client.get("/training/runs").json()["runs"]]


def test_the_side_bar_tells_how_far_a_training_is(client: TestClient, services: Services, story: RunFolder) -> None:
    views = JobViews(services)
    client.post("/training/runs/ship 1/resume")

    def line() -> tuple[str, str]:
        (job,) = views.page(f"browser:{OWNER}", "txt2img", picked="", kept="", seen="")["jobs"]
        return job["prompt"], job["status"]

    assert line() == ("ship 1", "Place 1 in the queue")
    context = services.queue.claim(lambda: False)
    assert context is not None
    assert context.job.kind == TRAIN
    assert line() == ("ship 1", "Training · starting")
    context.report(Progress(step=3, num_steps=9, label="encoding photos"))
    assert line()[1] == "Training · encoding photos, 3 of 9"
    context.report(Progress(step=25, num_steps=40, label="training", seconds_left=240.0))
    assert line()[1] == "Training · step 25 of 40 · 4 min left"
    run = client.get("/training/runs/ship 1").json()
    assert (run["state"], run["step"], run["seconds_left"], run["doing"]) == ("running", 25, 240.0, "")
    services.queue.end(context.job.id, Failed(message="over"))

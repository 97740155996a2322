"""The user prefers another candidate than the run chose."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import CPU
from tests.training.run_helpers import make_photos, own_library, run, settings
from webui.command_train import pick_from_file, pick_in_folder
from webui.errors import InvalidRequest, StorageError
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.training.alone import RunInUse, alone
from webui.training.config_file import read_config
from webui.training.events import TrainingFinished, read_events
from webui.training.folders import RunFolder
from webui.training.picking import pick


@dataclass
class Done:
    """A run that is over, in `folder`, which a test may change."""

    folder: Path
    library: Library
    finished: TrainingFinished

    @property
    def run(self) -> Path:
        return self.folder / "ruby"

    def pick(self, step: int, weight: float | None) -> TrainingFinished:
        return pick(self.run, step, weight, self.library, CPU, report=lambda event: None, cache_dir=self.folder / "c")

    @property
    def other_step(self) -> int:
        return 6 - self.finished.best_step


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_models_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    photos = make_photos(folder / "photos")
    run(folder / "ruby", settings(photos, validation={"samples": True}), own_library(folder, tiny_models_dir))
    shutil.rmtree(photos)
    return folder


@pytest.fixture
def done(trained: Path, tmp_path: Path, tiny_models_dir: Path) -> Iterator[Done]:
    """As if it had been run here; its photos are gone."""
    folder = tmp_path / "own"
    shutil.copytree(trained, folder)
    for path in (folder / "ruby" / "result" / "finished.json", folder / "ruby" / "config.toml"):
        path.write_text(path.read_text().replace(str(trained), str(folder)))
    kept = json.loads((folder / "ruby" / "result" / "finished.json").read_text())
    told = {name: kept[name] for name in ("adapter", "best_step", "best_weight", "run_dir", "validation")}
    library = own_library(folder, tiny_models_dir)
    yield Done(folder=folder, library=library, finished=TrainingFinished(**told))
    library.close()


def metadata(path: Path) -> Mapping[str, Any]:
    with safe_open(path, framework="pt") as file:
        return {**file.metadata(), "validation": json.loads(file.metadata()["atelier.validation"])}


def test_another_candidate_takes_the_place_of_what_came_out(done: Done) -> None:
    path = Path(done.finished.adapter)
    before = load_file(path)
    (path.parent / "someone-elses.safetensors").write_bytes(b"x")
    finished = done.pick(done.other_step, 0.7)
    assert (finished.adapter, finished.best_step, finished.best_weight) == (str(path), done.other_step, 0.7)
    assert {each.name for each in path.parent.glob("*.safetensors")} == {path.name, "someone-elses.safetensors"}
    after = load_file(path)
    assert after.keys() == before.keys()
    assert any(not torch.equal(before[name], after[name]) for name in after)
    told = metadata(path)
    assert told["atelier.recommended_weight"] == "0.7"
    assert told["ss_steps"] == str(done.other_step)
    assert told["validation"]["by_hand"]
    assert told["validation"]["overruled"]["step"] == done.finished.best_step
    notes = json.loads(path.with_suffix(".json").read_text())
    assert notes["preferred weight"] == 0.7
    assert "by hand" in notes["notes"]
    assert path.with_suffix(".png").is_file()


def test_picking_what_was_chosen_takes_it_back(done: Done) -> None:
    path = Path(done.finished.adapter)
    before = load_file(path)
    done.pick(done.other_step, None)
    finished = done.pick(done.finished.best_step, done.finished.best_weight)
    assert finished.validation == done.finished.validation
    after = load_file(path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_was_picked_from_stays_picked(done: Done) -> None:
    finished = done.pick(done.other_step, 1.0)
    events: list[JobEvent] = []
    assert run(done.run, read_config(RunFolder(done.run).config), done.library, events=events) == finished
    assert events == [finished]


def test_a_file_that_was_changed_since_is_not_replaced(done: Done) -> None:
    path = Path(done.finished.adapter)
    path.write_bytes(path.read_bytes() + b" ")
    changed = path.read_bytes()
    assert Path(done.pick(done.other_step, 1.0).adapter).name == "ruby-2.safetensors"
    assert path.read_bytes() == changed


def test_what_the_user_noted_beside_the_file_stays(done: Done) -> None:
    beside = Path(done.finished.adapter).with_suffix(".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "description": "mine"}))
    done.pick(done.other_step, 0.5)
    assert json.loads(beside.read_text())["description"] == "mine"
    assert json.loads(beside.read_text())["preferred weight"] == 0.5


def test_what_cannot_be_picked_is_refused_and_nothing_changes(done: Done) -> None:
    before = Path(done.finished.adapter).read_bytes()
    with pytest.raises(InvalidRequest, match="Step 3 was not kept"):
        done.pick(3, 1.0)
    with pytest.raises(InvalidRequest, match="weight -1"):
        done.pick(2, -1.0)
    with alone(done.run), pytest.raises(RunInUse, match="Another process"):
        done.pick(2, 1.0)
    facts = RunFolder(done.run).facts
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "base_digest": "0"}))
    with pytest.raises(InvalidRequest, match="not the file that this run was trained on"):
        done.pick(2, 1.0)
    facts.unlink()
    with pytest.raises(StorageError, match=r"facts\.json"):
        done.pick(2, 1.0)
    assert Path(done.finished.adapter).read_bytes() == before


def test_whole_models_that_were_not_kept_say_so(done: Done) -> None:
    config = RunFolder(done.run).config
    config.write_text(config.read_text().replace('method = "lora"', 'method = "full"'))
    with pytest.raises(InvalidRequest, match="A whole model is kept only of the best step and the last one"):
        done.pick(1, 1.0)
    with pytest.raises(InvalidRequest, match=r"not at weight 0\.5"):
        done.pick(2, 0.5)


def test_the_commands_tell_what_came_out(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    def picks(run_dir: Path, step: int, weight: float | None, *, report: Any) -> TrainingFinished:
        return pick(run_dir, step, weight, done.library, CPU, report=report)

    shown, settings_file = StringIO(), RunFolder(done.run).config
    assert pick_from_file(settings_file, done.folder, picks, (done.other_step, 0.9), shown) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["best_step"], last["best_weight"]) == (done.other_step, 0.9)
    lines = StringIO()
    assert pick_in_folder(RunFolder(done.run), picks, done.finished.best_step, None, stream=lines) == 0
    names = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert names == ["Progress", "Progress", "TrainingFinished"]
    assert list(read_events(RunFolder(done.run).events))[-1].best_step == done.finished.best_step  # type: ignore[attr-defined]
    refused, before = StringIO(), RunFolder(done.run).events.read_text()
    assert pick_in_folder(RunFolder(done.run), picks, 99, None, stream=refused) == 2
    assert "Step 99 was not kept" in refused.getvalue()
    assert RunFolder(done.run).events.read_text() == before, "the run is as it was"

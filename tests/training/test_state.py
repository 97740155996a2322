"""States: whole or not at all, and only for the run that they belong to."""

from pathlib import Path

import pytest
import torch

from tests.training.loop_helpers import PHOTOS, config, identity_for
from webui.errors import InvalidRequest, StorageError
from webui.library.catalog import Library
from webui.pipeline.sources import open_checkpoint
from webui.training.state import Identity, State, StateFile, base_digest, check_same

CPU = torch.device("cpu")
NOW = identity_for(config())


def a_state(step: int = 3) -> State:
    weights = {"unet.a": torch.randn(3, 4), "unet.b": torch.randn(2)}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(3, 4)}}, "param_groups": [{"lr": 0.1}]}
    return State(step=step, seconds=1.5, weights=weights, optimizer=optimizer, average={}, scaler={})


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    written = a_state()
    StateFile(tmp_path, NOW).write(written)
    read = StateFile(tmp_path, NOW).read(CPU)
    assert read is not None
    assert (read.step, read.seconds) == (3, 1.5)
    assert all(torch.equal(read.weights[name], tensor) for name, tensor in written.weights.items())
    assert torch.equal(read.optimizer["state"][0]["exp_avg"], written.optimizer["state"][0]["exp_avg"])


def test_there_is_no_state_before_the_first(tmp_path: Path) -> None:
    assert StateFile(tmp_path, NOW).read(CPU) is None


def test_a_state_that_was_cut_off_is_no_state(tmp_path: Path) -> None:
    file = StateFile(tmp_path, NOW)
    file.write(a_state())
    file.path.write_bytes(file.path.read_bytes()[:200])
    with pytest.raises(StorageError, match="cannot be read"):
        file.read(CPU)


def test_a_process_that_is_killed_while_it_writes_leaves_the_state_before(tmp_path: Path) -> None:
    file = StateFile(tmp_path, NOW)
    file.write(a_state(3))
    (tmp_path / "state.part").write_bytes(b"half of a state")
    read = file.read(CPU)
    assert read is not None
    assert read.step == 3
    file.write(a_state(4))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        (identity_for(config(), base="other", base_digest="9"), "base", "'tiny', not on 'other'"),
        (identity_for(config(), base_digest="9"), "base", "file has changed since"),
        (identity_for(config(), photos={**PHOTOS, "photo 9": "f"}), "data.photos", "photo 9 is new"),
        (identity_for(config(), photos={**PHOTOS, "photo 1": "f"}), "data.photos", "photo 1 is changed"),
        (identity_for(config(), photos={}), "data.photos", "photo 0, photo 1, photo 2 and 3 more are missing"),
        (identity_for(config(network={"rank": 4})), "network", "network.rank = 16, which is now 4"),
        (identity_for(config(schedule={"seed": 5})), "schedule", "schedule.seed = 0, which is now 5"),
        (identity_for(config(loss={"kind": "huber"})), "loss", "loss.kind = 'mse', which is now 'huber'"),
    ],
)
def test_another_run_is_refused_by_what_differs(tmp_path: Path, changed: Identity, field: str, words: str) -> None:
    StateFile(tmp_path, NOW).write(a_state())
    with pytest.raises(InvalidRequest, match=words) as caught:
        StateFile(tmp_path, changed).read(CPU)
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize(
    "sections",
    [
        {"schedule": {"num_steps": 100, "save_every": 10, "state_every_s": 1.0}},
        {"validation": {"samples": False}},
        {"resources": {"gradient_checkpointing": True}},
        {"optimizer": {"rate": 1e-5}},
        {"data": {"cache": "disk", "photos": "moved"}},
    ],
)
def test_a_run_may_go_on_longer_and_be_measured_otherwise(sections: dict[str, dict[str, object]]) -> None:
    check_same(NOW, identity_for(config(**sections)))


def test_the_digest_tells_checkpoints_apart_and_knows_one_again(library: Library) -> None:
    def digest(name: str) -> str:
        source = open_checkpoint(library.find_checkpoint(name))
        parts = {part: source.component(part) for part in ("unet", "text_encoder")}
        return base_digest({part: found for part, found in parts.items() if found is not None})

    assert digest("tiny") == digest("tiny")
    assert digest("tiny") != digest("tiny-v")

"""Tools as jobs: a new model in the library, or nothing at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapter_files import write_adapter
from tests.held_tools import Hold, hold_tools
from tests.model_files import write_original_layout
from webui.app import build_tool_worker
from webui.errors import InvalidRequest
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import Failed, JobEvent, Progress
from webui.jobs.record import JobState
from webui.library.catalog import SHIPPED
from webui.library.events import ModelSaved
from webui.library.header import read_header
from webui.library.tool_progress import ToolReport
from webui.library.tool_requests import Bake, Convert, Extract, Merge, MergeLoras, Resize, ToolRequest, WeightedLora
from webui.services import TOOL, Services
from webui.settings import load_settings

PATIENCE_S = 120.0
MERGE = Merge(a="first", b="second", destination="mixed.safetensors")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the checkpoints "first" and "second", and the LoRA "ink" in a folder of its own."""
    models = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        path = models / "checkpoints" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_original_layout(path, seed=seed)
    (models / "loras" / "styles").mkdir(parents=True)
    layer = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
    metadata = {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
    write_adapter(models / "loras" / "styles" / "ink.safetensors", {layer: (32, 32)}, rank=4, metadata=metadata)
    return models


@pytest.fixture
def data_dir(models: Path, tmp_path: Path) -> Path:
    shutil.copytree(models, tmp_path / "models", copy_function=os.link)
    return tmp_path


@contextmanager
def running(data_dir: Path, *, at_work: bool = True) -> Iterator[Services]:
    """The program without its page."""
    services = Services(load_settings(data_dir=data_dir))
    worker = build_tool_worker(services)
    if at_work:
        worker.start()
    try:
        yield services
    finally:
        assert worker.stop(PATIENCE_S)
        services.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Hold:
    return hold_tools(monkeypatch)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("to", ["single-file", "diffusers"])
def test_a_tool_makes_a_model_that_is_in_the_list_at_once(data_dir: Path, to: str) -> None:
    with running(data_dir) as services:
        known = {info.name for info in services.checkpoints()}
        name = "mixed.safetensors" if to == "single-file" else "mixed"
        job = services.run_tool(MERGE.model_copy(update={"to": to, "destination": name}), owner="ann")
        events = [event for _, event in job.events(timeout_s=PATIENCE_S)]
        assert job.record().state is JobState.FINISHED
        assert {info.name for info in services.checkpoints()} - known == {"mixed"}
        (saved,) = [event for event in events if isinstance(event, ModelSaved)]
        path = data_dir / "models" / "checkpoints" / name
        assert (saved.path, saved.kind, saved.family) == (str(path), "checkpoint", "sd-custom")
        assert saved.size == sum(file.stat().st_size for file in ([path] if path.is_file() else files_below(path)))


@pytest.mark.parametrize("to", ["single-file", "diffusers"])
def test_a_stopped_tool_leaves_no_file(data_dir: Path, to: str, held: Hold) -> None:
    before = files_below(data_dir / "models")
    with running(data_dir) as services:
        job = services.run_tool(MERGE.model_copy(update={"to": to}), owner="ann")
        assert held.reached.wait(PATIENCE_S)
        assert len(files_below(data_dir / "models")) > len(before)
        assert {info.name for info in services.library.checkpoints() if info.name not in SHIPPED} == {
            "first",
            "second",
        }, "what is half written is no model"
        (progress,) = [event for _, event in job.events(follow=False) if isinstance(event, Progress)]
        assert 0 < progress.num_steps < 100
        assert services.queue.interrupt(job.id)
        assert job.wait(PATIENCE_S).state is JobState.CANCELLED
    assert files_below(data_dir / "models") == before


def test_a_tool_that_the_end_of_the_program_stopped_runs_again_from_the_start(data_dir: Path, held: Hold) -> None:
    with running(data_dir) as services:
        job = services.run_tool(MERGE, owner="ann")
        assert held.reached.wait(PATIENCE_S)
    held.go_on.set()
    with running(data_dir, at_work=False) as services:
        assert services.queue.record(job.id).state is JobState.QUEUED
        assert not (data_dir / "models" / "checkpoints" / "mixed.safetensors").exists()
    with running(data_dir) as services:
        again = services.queue.handle(job.id)
        assert again.wait(PATIENCE_S).state is JobState.FINISHED
        assert sum(isinstance(event, ModelSaved) for _, event in again.events()) == 1
    assert "sd_merge_recipe" in read_header(data_dir / "models" / "checkpoints" / "mixed.safetensors").metadata


def test_a_tool_that_had_made_its_model_is_not_run_again(data_dir: Path) -> None:
    with running(data_dir, at_work=False) as services:
        job = services.run_tool(MERGE, owner="ann")
        context = services.queue.claim(lambda: False, "tools")
        assert context is not None
        context.report(ModelSaved(path="x", kind="checkpoint", family="sd15", size=1))
    with running(data_dir) as services:
        assert services.queue.handle(job.id).wait(PATIENCE_S).state is JobState.FINISHED
    assert not (data_dir / "models" / "checkpoints" / "mixed.safetensors").exists()


def test_tools_do_not_wait_for_the_device(data_dir: Path) -> None:
    with running(data_dir) as services:
        services.queue.submit("generate", {}, owner="ann")
        assert services.run_tool(MERGE, owner="ann").wait(PATIENCE_S).state is JobState.FINISHED


def test_the_same_wish_twice_is_one_job_and_two_cannot_have_one_name(data_dir: Path) -> None:
    with running(data_dir, at_work=False) as services:
        first = services.run_tool(MERGE, owner="ann")
        assert services.run_tool(MERGE, owner="ann").id == first.id
        with pytest.raises(InvalidRequest, match="mixed"):
            services.run_tool(MERGE, owner="bob")
        with pytest.raises(InvalidRequest, match="mixed"):
            services.run_tool(MERGE.model_copy(update={"multiplier": 0.1}), owner="ann")


def every_request(name: str, destination: str) -> list[ToolRequest]:
    """Each tool, with `name` for the last of its models."""
    return [
        Convert(source=name, destination=destination),
        Convert(source="first", vae=name, destination=destination),
        Merge(a=name, b="second", destination=destination),
        Merge(a="first", b=name, destination=destination),
        Merge(a="first", b="second", c=name, destination=destination),
        Bake(checkpoint=name, loras=(WeightedLora(name="ink"),), destination=destination),
        Bake(checkpoint="first", loras=(WeightedLora(name="ink"), WeightedLora(name=name)), destination=destination),
        Extract(base=name, tuned="second", destination=destination),
        Extract(base="first", tuned=name, destination=destination),
        Resize(lora=name, destination=destination),
        MergeLoras(loras=(WeightedLora(name=name),), destination=destination),
    ]


def test_no_request_of_a_page_reads_a_path(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that is there, below the folder that the program was started in, or in the models' own."""
    checkpoint = data_dir / "models" / "checkpoints" / "first.safetensors"
    monkeypatch.chdir(checkpoint.parent)
    with running(data_dir, at_work=False) as services:
        for name in (str(checkpoint), f"./{checkpoint.name}", "../loras/styles/ink.safetensors", "~"):
            for request in every_request(name, "new.safetensors"):
                with pytest.raises(InvalidRequest) as caught:
                    services.run_tool(request, owner="ann")
                assert caught.value.field != "destination"
        assert services.queue.jobs() == []


@pytest.mark.parametrize(
    "destination",
    ["../new.safetensors", "/new.safetensors", "sub/new.safetensors", "sub\\new.safetensors", "~/new.safetensors",
     "..", ".new.safetensors", "con.safetensors", "new\x00.safetensors", "C:new.safetensors", "new.ckpt", ""],
)  # fmt: skip
def test_no_request_of_a_page_writes_outside_of_the_folder(data_dir: Path, destination: str) -> None:
    before = files_below(data_dir)
    requests = [*every_request("first", destination)[:1], Resize(lora="ink", destination=destination)]
    with running(data_dir) as services:
        for request in requests:
            with pytest.raises(InvalidRequest) as caught:
                services.run_tool(request, owner="ann")
            assert caught.value.field == "destination"
    assert [path for path in files_below(data_dir) if path.suffix == ".safetensors"] == [
        path for path in before if path.suffix == ".safetensors"
    ]


def test_a_stored_request_with_a_path_is_refused_when_it_runs(data_dir: Path) -> None:
    outside = data_dir / "outside.safetensors"
    with running(data_dir) as services:
        payload = Convert(source="first", destination=str(outside)).model_dump(mode="json")
        job = services.queue.submit(TOOL, payload, owner="ann")
        assert job.wait(PATIENCE_S).state is JobState.FAILED
        path = str(data_dir / "models" / "checkpoints" / "first.safetensors")
        payload = Convert(source=path, destination="new.safetensors").model_dump(mode="json")
        job = services.queue.submit(TOOL, payload, owner="ann")
        assert job.wait(PATIENCE_S).state is JobState.FAILED
        assert any(isinstance(event, Failed) and path in event.message for _, event in job.events())
    assert not outside.exists()


def test_names_that_are_taken_in_any_format_are_refused(data_dir: Path) -> None:
    (data_dir / "models" / "checkpoints" / "old.ckpt").write_bytes(b"")
    with running(data_dir, at_work=False) as services:
        for name in ("first.safetensors", "FIRST.safetensors", "old.safetensors"):
            with pytest.raises(InvalidRequest, match="already") as caught:
                services.run_tool(Convert(source="second", destination=name), owner="ann")
            assert str(data_dir) not in str(caught.value), "pages are told no paths of the machine"


def test_a_page_may_not_make_the_vae_of_another_checkpoint(data_dir: Path) -> None:
    with running(data_dir, at_work=False) as services:
        for name in ("first.vae.safetensors", "model_index.safetensors"):
            with pytest.raises(InvalidRequest, match=r"would be taken for the VAE|makes a folder a model") as caught:
                services.run_tool(Convert(source="first", destination=name), owner="ann")
            assert caught.value.field == "destination"


def test_a_model_that_is_missing_is_said_with_its_field(data_dir: Path) -> None:
    with running(data_dir, at_work=False) as services:
        for request, field, words in (
            (Merge(a="first", b="secund", destination="x.safetensors"), "b", "second"),
            (Merge(a="first", b="", destination="x.safetensors"), "b", "No checkpoint is chosen"),
            (Bake(checkpoint="first", loras=(WeightedLora(name="inc"),), destination="x.safetensors"),
             "loras.0.name", "ink"),
        ):  # fmt: skip
            with pytest.raises(InvalidRequest, match=words) as caught:
                services.run_tool(request, owner="ann")
            assert caught.value.field == field


def test_progress_is_told_four_times_a_second_with_the_time_left_and_the_stop_is_asked_for_always() -> None:
    now, checks, told = [0.0], [0], []

    def check() -> None:
        checks[0] += 1

    report = ToolReport(MERGE, told.append, check=check, clock=lambda: now[0])
    for done in range(0, 101, 10):
        report(done * 10**6, 100 * 10**6)
        now[0] += 0.1
    assert checks == [11]
    assert [(event.step, event.num_steps, event.label) for event in told] == [
        (step, 100, "MB written") for step in (0, 30, 60, 90, 100)
    ]
    assert told[1].seconds_left == pytest.approx(0.7)
    layers: list[JobEvent] = []
    ToolReport(Resize(lora="a", destination="b"), layers.append)(3, 9)
    assert layers == [Progress(step=3, num_steps=9, label="layers")]


def test_a_stop_passes_through_the_report() -> None:
    def check() -> None:
        raise JobInterrupted

    with pytest.raises(JobInterrupted):
        ToolReport(MERGE, lambda event: None, check=check)(0, 0)

"""What front ends rely on: requests that survive the queue, token counts, settings found in pictures."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from webui.app import build_runners
from webui.errors import InvalidRequest, ModelNotFound
from webui.generation.events import ImageReady
from webui.generation.request import GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.jobs.record import JobState
from webui.jobs.worker import Worker
from webui.services import Services, with_seed
from webui.settings import load_settings

PATIENCE_S = 120


@pytest.fixture
def services(tiny_models_dir: Path, tmp_path: Path) -> Iterator[Services]:
    (tmp_path / "models").symlink_to(tiny_models_dir)
    services = Services(load_settings(data_dir=tmp_path, device="cpu", dtype="fp32"))
    yield services
    services.close()


def request(**changes: object) -> GenerationRequest:
    values = {"checkpoint": "tiny", "width": 64, "height": 64, "sampling": Sampling(num_inference_steps=2)}
    return GenerationRequest(**(values | changes))  # type: ignore[arg-type]


def inpaint() -> Inpaint:
    photo = Image.effect_noise((64, 64), 60).convert("RGB")
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).ellipse((10, 10, 40, 40), fill=255)
    return Inpaint(image=photo, mask=MaskSpec(image=mask, blur_px=2))


def test_a_request_comes_out_of_the_queue_as_it_went_in(services: Services) -> None:
    asked = request(prompt="a (red:1.2) cat", seed=3, init=inpaint())
    assert services.request_of(services.generate(asked, owner="ann").id) == asked


def test_a_job_makes_pictures_that_restore_their_own_settings(services: Services) -> None:
    handle = services.generate(request(prompt="a red cat", num_batches=2, seed=11), owner="ann")
    worker = Worker(services.queue, lambda: build_runners(services))
    worker.start()
    assert handle.wait(PATIENCE_S).state is JobState.FINISHED
    assert worker.stop(PATIENCE_S)
    ready = [event for _, event in handle.events(follow=False) if isinstance(event, ImageReady)]
    assert [(event.index, event.seed) for event in ready] == [(0, 11), (1, 12)]
    restored = services.restore(Path(ready[1].path))
    assert restored.values["prompt"] == "a red cat"
    assert restored.values["seed"] == 12


def test_a_picture_without_settings_says_so(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(InvalidRequest, match="does not say how it was made"):
        services.restore(path)


def test_a_request_for_a_missing_checkpoint_is_refused_before_it_waits(services: Services) -> None:
    with pytest.raises(ModelNotFound, match="tiny"):
        services.generate(request(checkpoint="tinny"), owner="ann")
    assert services.queue.jobs() == []


def test_a_checkpoint_deleted_while_its_job_waits_fails_that_job_only(services: Services, tmp_path: Path) -> None:
    (tmp_path / "models").unlink()
    from tests.models import write_checkpoint

    gone = write_checkpoint(tmp_path / "models" / "checkpoints" / "gone")
    write_checkpoint(tmp_path / "models" / "checkpoints" / "tiny")
    first = services.generate(request(checkpoint="gone"), owner="ann")
    second = services.generate(request(), owner="ann")
    gone.rename(tmp_path / "elsewhere")
    worker = Worker(services.queue, lambda: build_runners(services))
    worker.start()
    states = (first.wait(PATIENCE_S).state, second.wait(PATIENCE_S).state)
    assert worker.stop(PATIENCE_S)
    assert states == (JobState.FAILED, JobState.FINISHED)


def test_a_damaged_starter_fails_its_own_jobs_only(tiny_models_dir: Path, starter_dir: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "tiny").symlink_to(tiny_models_dir / "checkpoints" / "tiny")
    damaged = shutil.copytree(starter_dir, checkpoints / "starter")
    config = damaged / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 100}))
    services = Services(load_settings(data_dir=tmp_path, device="cpu", dtype="fp32"))
    worker = Worker(services.queue, lambda: build_runners(services))
    broken = services.generate(request(checkpoint="starter"), owner="me")
    fine = services.generate(request(seed=1), owner="me")
    worker.start()
    try:
        assert fine.wait(PATIENCE_S).state is JobState.FINISHED
        assert broken.wait(PATIENCE_S).state is JobState.FAILED
    finally:
        assert worker.stop(PATIENCE_S)
        services.close()


def test_inputs_stay_while_their_job_is_kept_and_go_afterwards(services: Services, tmp_path: Path) -> None:
    asked = request(init=Img2Img(image=inpaint().image), seed=1)
    handle = services.generate(asked, owner="ann")
    services.inputs.put(Image.new("RGB", (9, 9)))
    services.discard_unused_inputs()
    assert services.request_of(handle.id) == asked
    assert len([path for path in (tmp_path / "inputs").rglob("*") if path.is_file()]) == 1


def test_tokens_are_counted_by_the_checkpoints_tokenizer(services: Services) -> None:
    assert services.count_tokens("", "tiny") == (0, 75)
    used, limit = services.count_tokens("a red (cat:1.3) <lora:x:1>", "tiny")
    assert (used, limit) == (5, 75)  # "red" is one token of the tiny vocabulary, "cat" three


def test_a_missing_seed_is_drawn_and_leaves_room_for_all_pictures() -> None:
    seeds = {with_seed(request(num_batches=1000)).seed for _ in range(20)}
    assert len(seeds) > 1
    assert all(seed is not None and 0 <= seed <= 2**32 - 1000 for seed in seeds)
    assert with_seed(request(seed=5)).seed == 5


def test_pictures_in_memory_and_on_disk_are_the_same(services: Services) -> None:
    photo = inpaint().image
    assert np.array_equal(np.array(services.inputs.get(services.inputs.put(photo))), np.array(photo))

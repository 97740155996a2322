"""What front ends rely on: requests that survive the queue, token counts, settings found in pictures."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.extension_files import load_host, write_extension
from webui.app import build_runners
from webui.errors import InvalidRequest, ModelNotFound
from webui.generation.events import ImageReady
from webui.generation.postprocess import PostprocessStep
from webui.generation.request import Extras, GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.images.store import HeldPictures
from webui.jobs.record import JobState
from webui.jobs.worker import Worker
from webui.services import Services, with_seed
from webui.settings import load_settings

PATIENCE_S = 120


FACES = """\
class Params(BaseModel):
    model_config = ConfigDict(frozen=True)
    face: Picture = ""
    photos: tuple[Picture, ...] = ()


class Paste:
    id = "paste"
    title = "Paste a face"
    params_model = Params

    def check(self, params, request):
        if not params.face:
            raise InvalidRequest("face", "There is no face to paste.")

    def __call__(self, image, params, context):
        image.paste(context.picture(params.face), (3, 4))
        return Processed(image=image, is_composite=True, details={"pasted": 1}, badge=Badge(text="pasted"))


@hookimpl
def postprocessors():
    return [Paste()]
"""


@pytest.fixture
def services(tiny_models_dir: Path, tmp_path: Path) -> Iterator[Services]:
    """With the extensions "brighten" and "paste"."""
    (tmp_path / "models").symlink_to(tiny_models_dir)
    write_extension(tmp_path / "extensions")
    write_extension(tmp_path / "extensions", "paste", FACES)
    host = load_host(tmp_path)
    services = Services(load_settings(data_dir=tmp_path, device="cpu", dtype="fp32"), host)
    yield services
    services.close()
    host.close()


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


# -- Postprocess steps -------------------------------------------------------------------------------------------------


def paste(**params: object) -> tuple[PostprocessStep, ...]:
    return (PostprocessStep(id="paste", params=params),)


def run(services: Services, asked: GenerationRequest) -> list[ImageReady]:
    handle = services.generate(asked, owner="ann")
    worker = Worker(services.queue, lambda: build_runners(services))
    worker.start()
    try:
        assert handle.wait(PATIENCE_S).state is JobState.FINISHED
    finally:
        assert worker.stop(PATIENCE_S)
    return [event for _, event in handle.events(follow=False) if isinstance(event, ImageReady)]


def test_a_finished_picture_goes_through_the_queue_with_pictures_of_its_steps_and_restores_them(
    services: Services,
) -> None:
    photo, face = Image.new("RGB", (33, 21), "green"), Image.new("RGB", (2, 2), "red")
    asked = request(init=Extras(image=photo), postprocess=paste(face=services.inputs.put(face)), checkpoint="")
    (ready,) = run(services, asked)
    expected = photo.copy()
    expected.paste(face, (3, 4))
    with Image.open(ready.path) as made:
        assert np.array_equal(np.array(made), np.array(expected))
        assert "compositeWithTrainedAlgorithmicMedia" in made.info["XML:com.adobe.xmp"]
    assert ready.details == {"paste": {"pasted": 1}}
    assert [badge.text for badge in ready.badges] == ["pasted"]
    restored = services.restore(Path(ready.path))
    assert restored.notes == ()
    assert restored.values["task"] == "extras"
    assert restored.values["postprocess"] == [{"id": "paste", "params": {"face": face_name(face), "photos": []}}]
    services.inputs.discard_unused(set())
    gone = services.restore(Path(ready.path))
    assert gone.values["postprocess"] == [{"id": "paste", "params": {"face": "", "photos": []}}]
    assert "Paste a face" in gone.notes[0]


def face_name(face: Image.Image) -> str:
    return HeldPictures().put(face)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"postprocess": (PostprocessStep(id="gone"),)}, "postprocess", "'gone' is not installed"),
        ({"postprocess": (PostprocessStep(id="brighten", params={"amount": 300}),)}, "brighten.amount", "300"),
        ({"postprocess": (PostprocessStep(id="brighten", params={"amount": 13}),)}, "brighten.amount", "bad luck"),
        ({"postprocess": paste()}, "paste.face", "no face to paste"),
        ({"postprocess": paste(face="0" * 64)}, "paste.face", "not kept here"),
        ({"postprocess": paste(photos=["/etc/passwd"])}, "paste.photos", "not kept here"),
        ({"init": Extras(image=Image.new("RGB", (8, 8)))}, "postprocess", "No step is switched on"),
    ],
)
def test_steps_that_cannot_run_are_refused_before_they_wait(
    services: Services, changes: dict[str, object], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        services.generate(request(**changes), owner="ann")
    assert caught.value.field == field
    assert services.queue.jobs() == []


def test_a_step_that_waits_has_all_its_parameters(services: Services) -> None:
    handle = services.generate(request(seed=1, postprocess=(PostprocessStep(id="brighten"),)), owner="ann")
    assert services.request_of(handle.id).postprocess == (PostprocessStep(id="brighten", params={"amount": 50}),)


def test_pictures_of_steps_stay_while_their_job_is_kept_also_while_its_extension_is_off(services: Services) -> None:
    names = [services.inputs.put(Image.new("RGB", (4, 4), (shade, 0, 0))) for shade in range(4)]
    services.generate(request(postprocess=paste(face=names[0], photos=names[1:3])), owner="ann")
    services.host.disable("paste")
    services.discard_unused_inputs()
    assert [name in services.inputs for name in names] == [True, True, True, False]


def test_scripts_of_the_http_api_are_steps_by_title(services: Services) -> None:
    face = Image.new("RGB", (3, 2), "red")
    file = io.BytesIO()
    face.save(file, "PNG")
    sent = {"face": base64.b64encode(file.getvalue()).decode(), "photos": [""]}
    steps = services.steps_of_scripts({"paste a FACE": {"args": [sent]}, "Brighten": {"args": [5]}})
    assert steps == (*paste(face=face_name(face), photos=[""]), PostprocessStep(id="brighten", params={"amount": 5}))
    assert services.inputs.get(face_name(face)).tobytes() == face.tobytes()
    assert services.steps_of_scripts({"paste": {"args": [face_name(face)]}}) == paste(face=face_name(face))


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

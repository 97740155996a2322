"""The real path on a tiny model: what must hold for every picture, whatever it shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from torch import Tensor

from tests.conftest import Generate
from webui.errors import ModelNotFound
from webui.generation.events import ImageReady, Note, StepPreview
from webui.generation.request import GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import JobEvent, Progress
from webui.pipeline.latents import LatentCodec
from webui.pipeline.manager import PipelineManager
from webui.pipeline.samplers import SAMPLERS


def request(**changes: object) -> GenerationRequest:
    values = {
        "checkpoint": "tiny",
        "prompt": "a red cat",
        "width": 64,
        "height": 64,
        "seed": 7,
        "sampling": Sampling(num_inference_steps=3),
    }
    return GenerationRequest(**(values | changes))  # type: ignore[arg-type]


def pixels(ready: ImageReady) -> np.ndarray:
    with Image.open(ready.path) as image:
        return np.array(image)


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def mask() -> Image.Image:
    image = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(image).rectangle((20, 24, 40, 44), fill=255)
    return image


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_picture(generate: Generate, sampler: str) -> None:
    asked = request(sampling=Sampling(sampler=sampler, num_inference_steps=3))
    first, second = generate(asked)[0], generate(asked)[0]
    assert first.path != second.path
    assert np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE"])
def test_picture_k_of_a_batch_is_the_single_picture_with_seed_plus_k(generate: Generate, sampler: str) -> None:
    sampling = Sampling(sampler=sampler, num_inference_steps=3)
    together = generate(request(num_batches=2, batch_size=2, sampling=sampling))
    assert [ready.seed for ready in together] == [7, 8, 9, 10]
    alone = generate(request(seed=9, sampling=sampling))
    assert np.array_equal(pixels(together[2]), pixels(alone[0]))
    assert not np.array_equal(pixels(together[1]), pixels(alone[0]))


def test_other_prompts_and_seeds_give_other_pictures(generate: Generate) -> None:
    base = pixels(generate(request())[0])
    for other in (request(prompt="a blue dog"), request(seed=8), request(negative_prompt="grainy")):
        assert not np.array_equal(pixels(generate(other)[0]), base)


def test_emphasis_changes_the_picture(generate: Generate) -> None:
    base = pixels(generate(request(prompt="a red cat"))[0])
    assert not np.array_equal(pixels(generate(request(prompt="a (red:1.5) cat"))[0]), base)
    assert np.array_equal(pixels(generate(request(prompt="a (red:1.0) cat"))[0]), base)


def test_prompts_of_any_length_are_read_to_their_end(generate: Generate) -> None:
    long = "a red cat, " * 40
    assert not np.array_equal(
        pixels(generate(request(prompt=long))[0]), pixels(generate(request(prompt=long + "x"))[0])
    )


def test_an_empty_prompt_gives_a_picture(generate: Generate) -> None:
    assert pixels(generate(request(prompt=""))[0]).shape == (64, 64, 3)


def test_clip_skip_changes_the_picture(generate: Generate) -> None:
    assert not np.array_equal(pixels(generate(request(clip_skip=1))[0]), pixels(generate(request())[0]))


def test_v_prediction_models_run(generate: Generate) -> None:
    assert np.isfinite(pixels(generate(request(checkpoint="tiny-v"))[0])).all()


def test_strength_zero_gives_the_picture_back(generate: Generate, photo: Image.Image) -> None:
    events: list[JobEvent] = []
    ready = generate(request(init=Img2Img(image=photo, strength=0.0)), events=events)
    assert np.array_equal(pixels(ready[0]), np.array(photo))


@pytest.mark.parametrize(("strength", "calls"), [(0.5, 6), (0.75, 8), (1.0, 10)])
def test_strength_decides_how_often_the_model_is_asked(
    generate: Generate, photo: Image.Image, strength: float, calls: int
) -> None:
    events: list[JobEvent] = []
    sampling = Sampling(sampler="Euler", num_inference_steps=10)
    generate(request(init=Img2Img(image=photo, strength=strength), sampling=sampling), events=events)
    progress = [event for event in events if isinstance(event, Progress) and event.label == "Denoising"]
    assert progress[-1].step == progress[-1].num_steps == calls


@pytest.mark.parametrize("content", ["original", "fill", "latent noise", "latent nothing"])
@pytest.mark.parametrize("area", ["whole", "masked"])
def test_pixels_outside_the_mask_are_unchanged(
    generate: Generate, photo: Image.Image, mask: Image.Image, content: str, area: str
) -> None:
    spec = MaskSpec(image=mask, blur_px=2, content=content, area=area, padding_px=8)  # type: ignore[arg-type]
    made = pixels(generate(request(init=Inpaint(image=photo, mask=spec, strength=1.0)))[0])
    reach = np.zeros((64, 64), dtype=bool)
    reach[24 - 6 : 45 + 6, 20 - 6 : 41 + 6] = True  # the mask and what a blur of 2 px reaches
    assert np.array_equal(made[~reach], np.array(photo)[~reach])
    assert not np.array_equal(made[24:45, 20:41], np.array(photo)[24:45, 20:41])


def test_an_inverted_mask_keeps_what_is_painted(generate: Generate, photo: Image.Image, mask: Image.Image) -> None:
    spec = MaskSpec(image=mask, blur_px=0, inverted=True)
    made = pixels(generate(request(init=Inpaint(image=photo, mask=spec, strength=1.0)))[0])
    assert np.array_equal(made[24:45, 20:41], np.array(photo)[24:45, 20:41])
    assert not np.array_equal(made[:20], np.array(photo)[:20])


def test_only_masked_keeps_the_size_of_the_picture(generate: Generate) -> None:
    photo = Image.effect_noise((200, 120), 80).convert("RGB")
    mask = Image.new("L", (200, 120), 0)
    mask.paste(255, (150, 80, 190, 110))
    made = pixels(generate(request(init=Inpaint(image=photo, mask=MaskSpec(image=mask, area="masked"))))[0])
    assert made.shape == (120, 200, 3)
    assert np.array_equal(made[:60, :100], np.array(photo)[:60, :100])


def test_interrupt_stops_within_one_step_and_keeps_what_is_finished(generate: Generate) -> None:
    cancel = CancelToken()

    class StopInSecondPicture(list[JobEvent]):
        def append(self, event: JobEvent) -> None:
            super().append(event)
            if isinstance(event, Progress) and event.step == 5:
                cancel.interrupt()

    events = StopInSecondPicture()
    with pytest.raises(JobInterrupted):
        generate(request(num_batches=3), events=events, cancel=cancel)
    assert max(event.step for event in events if isinstance(event, Progress)) == 5
    kept = [event for event in events if isinstance(event, ImageReady)]
    assert [ready.index for ready in kept] == [0]
    assert Path(kept[0].path).is_file()


def test_a_run_after_an_interrupt_is_the_same_as_without(generate: Generate) -> None:
    before = pixels(generate(request())[0])
    cancel = CancelToken()
    cancel.interrupt()
    with pytest.raises(JobInterrupted):
        generate(request(), cancel=cancel)
    assert np.array_equal(pixels(generate(request())[0]), before)


def test_skip_leaves_one_picture_out(generate: Generate) -> None:
    cancel = CancelToken()
    cancel.skip()
    assert [ready.index for ready in generate(request(num_batches=3), cancel=cancel)] == [1, 2]


def test_pictures_of_a_run_that_was_cut_off_are_not_made_again(generate: Generate) -> None:
    whole = generate(request(num_batches=3))
    rest = generate(request(num_batches=3), finished={0: whole[0], 2: whole[2]})
    assert [ready.path for ready in (rest[0], rest[2])] == [whole[0].path, whole[2].path]
    assert np.array_equal(pixels(rest[1]), pixels(whole[1]))
    assert rest[1].path != whole[1].path


def test_previews_are_pictures_and_progress_only_rises(generate: Generate) -> None:
    events: list[JobEvent] = []
    generate(request(num_batches=2), events=events)
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps)
    previews = [event for event in events if isinstance(event, StepPreview)]
    assert previews
    assert previews[0].jpeg.startswith(b"\xff\xd8")


def test_adapters_that_are_not_applied_are_named(generate: Generate) -> None:
    events: list[JobEvent] = []
    generate(request(prompt="<lora:Fat:0.2>, a red cat"), events=events)
    assert any("Fat" in event.message for event in events if isinstance(event, Note))


def test_a_missing_checkpoint_is_named_with_what_there_is(generate: Generate) -> None:
    with pytest.raises(ModelNotFound, match="tiny"):
        generate(request(checkpoint="tinny"))


def test_a_load_that_fails_leaves_the_old_model_in_place(manager: PipelineManager, generate: Generate) -> None:
    generate(request())
    with pytest.raises(ModelNotFound):
        manager.load("nothing")
    assert manager.is_loaded("tiny")


def test_an_autoencoder_that_changed_its_precision_says_so_once(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = LatentCodec.decode

    def rescued(codec: LatentCodec, latents: Tensor) -> list[Image.Image]:
        codec.was_rescued = True
        return decode(codec, latents)

    monkeypatch.setattr(LatentCodec, "decode", rescued)
    notes: list[list[JobEvent]] = []
    for _ in range(2):
        events: list[JobEvent] = []
        generate(request(num_batches=2), events=events, previews=False)
        notes.append([event for event in events if isinstance(event, Note) and "float32" in event.message])
    assert [len(found) for found in notes] == [1, 0]

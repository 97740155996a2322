"""Pictures on their way through postprocess steps, on a tiny model: what steps may do, and that none is lost."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.conftest import CPU
from tests.generation.additions import Added, Amount, Nothing, Run, Step, brighten, invert
from webui.errors import InvalidRequest, OutOfDeviceMemory, WebUIError
from webui.generation.events import GENERATION_EVENTS, ImageReady, Note
from webui.generation.postprocess import (
    Badge,
    Moment,
    PostprocessContext,
    PostprocessStep,
    Processed,
)
from webui.generation.request import Extras, GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.generation.run import Generator
from webui.images.store import HeldPictures, ImageStore
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.codec import EventCodec
from webui.jobs.events import JobEvent, Progress
from webui.library.catalog import Library
from webui.pipeline.manager import PipelineManager

AS_IT_WAS = "The picture was left as it was."


def request(*steps: str | PostprocessStep, **changes: object) -> GenerationRequest:
    values: dict[str, object] = {
        "checkpoint": "tiny",
        "prompt": "a red cat",
        "width": 64,
        "height": 64,
        "seed": 7,
        "sampling": Sampling(num_inference_steps=2),
        "postprocess": tuple(step if isinstance(step, PostprocessStep) else PostprocessStep(id=step) for step in steps),
    }
    return GenerationRequest(**(values | changes))  # type: ignore[arg-type]


def pixels(ready: ImageReady) -> np.ndarray:
    with Image.open(ready.path) as image:
        return np.array(image)


def notes(events: list[JobEvent]) -> list[str]:
    return [event.message for event in events if isinstance(event, Note)]


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 200, (72, 96, 3), dtype=np.uint8))


@pytest.fixture
def oval() -> Image.Image:
    mask = Image.new("L", (96, 72), 0)
    ImageDraw.Draw(mask).ellipse((30, 20, 60, 50), fill=255)
    return mask


class Studio:
    """The engine with postprocessors and hooks."""

    def __init__(self, manager: PipelineManager, outputs: Path) -> None:
        self.manager = manager
        self.outputs = outputs
        self.inputs = HeldPictures()
        self.events: list[JobEvent] = []
        self.cancel = CancelToken()

    def engine(self, additions: Added) -> Generator:
        return Generator(self.manager, ImageStore(self.outputs), additions, inputs=self.inputs)

    def make(self, asked: GenerationRequest, *steps: Step, **hooks: Any) -> list[ImageReady]:
        self.events.clear()
        generator = self.engine(Added(steps, **hooks))
        return generator.generate(asked, report=self.events.append, cancel=self.cancel, previews=False)


@pytest.fixture
def studio(manager: PipelineManager, tmp_path: Path) -> Studio:
    return Studio(manager, tmp_path / "outputs")


def test_each_picture_goes_through_all_steps_in_their_order_before_it_is_saved(studio: Studio) -> None:
    plain = studio.make(request(num_batches=2))
    steps = (Step(), Step(id="invert", title="Invert", params_model=Nothing, run=invert))
    asked = request(PostprocessStep(id="brighten", params={"amount": 100}), "invert", num_batches=2)
    done = studio.make(asked, *steps)
    for one, other in zip(plain, done, strict=True):
        bright = np.minimum(pixels(one).astype(int) + 100, 255)
        assert np.array_equal(pixels(other), 255 - bright)
    assert notes(studio.events) == []


def test_a_step_sees_the_pasted_back_picture_the_source_in_full_size_and_its_own_pictures(
    studio: Studio, photo: Image.Image, oval: Image.Image
) -> None:
    face = Image.new("RGBA", (5, 4), (255, 0, 0, 255))
    seen: list[PostprocessContext] = []
    sizes = []

    def look(image: Image.Image, params: Amount, context: PostprocessContext) -> Processed:
        seen.append(context)
        sizes.append(image.size)
        assert context.picture(params.face).getpixel((0, 0)) == (255, 0, 0)
        return Processed(image=image)

    step = PostprocessStep(id="brighten", params={"face": studio.inputs.put(face)})
    spec = MaskSpec(image=oval, area="masked", padding_px=8)
    studio.make(request(step, init=Inpaint(image=photo, mask=spec), num_batches=2), Step(run=look))
    assert notes(studio.events) == []
    assert [(context.index, context.seed) for context in seen] == [(0, 7), (1, 8)]
    assert all(context.source is photo for context in seen)
    assert sizes == [photo.size] * 2


def raises(error: BaseException) -> Run:
    def run(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        image.paste(0, (0, 0, *image.size))
        raise error

    return run


def gives(**changes: Any) -> Run:
    return lambda image, params, context: replace(Processed(image=image), **changes)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            raises(WebUIError("There is no face.", hint="Use another picture.")),
            "There is no face. Use another picture.",
        ),
        (raises(OutOfDeviceMemory("The device is full.")), "The device is full."),
        (raises(ZeroDivisionError("division by zero")), "ZeroDivisionError: division by zero"),
        (lambda image, params, context: image, "not Image"),
        (gives(image=None), "Processed with a picture"),
        (gives(image=Image.new("RGB", (0, 5))), "has no pixels"),
        (gives(fields={"a, b: c": "1"}), "'a, b: c' cannot be the name of a field"),
        (gives(fields={"Seed": "1"}), "'Seed' cannot be the name of a field"),
        (gives(fields={"Brighten Amount": "1"}), "'Brighten Amount' cannot"),
        (gives(fields={"Likeness": 0.5}), "'Likeness' is no text but float"),
        (gives(details={"score": float("nan")}), "ValueError"),
        (gives(details={"score": np.float32(1)}), "float32"),
    ],
)
def test_a_step_that_fails_leaves_the_picture_as_it_was_and_is_named(studio: Studio, run: Run, said: str) -> None:
    plain = studio.make(request())
    invert_step = Step(id="invert", title="Invert", params_model=Nothing, run=invert)
    done = studio.make(request("brighten", "invert"), Step(run=run), invert_step)
    assert np.array_equal(pixels(done[0]), 255 - pixels(plain[0]))
    (note,) = notes(studio.events)
    assert note.startswith("Brighten: ")
    assert said in note
    assert note.endswith(AS_IT_WAS)
    assert "Brighten: failed" in done[0].infotext
    assert "Invert: on" in done[0].infotext


def test_a_traceback_of_a_step_that_fails_is_in_the_log(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    studio.make(request("brighten"), Step(run=raises(ZeroDivisionError("half"))))
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


def test_a_step_that_nobody_brings_or_whose_parameters_are_wrong_is_left_out_with_a_note(studio: Studio) -> None:
    plain = studio.make(request())
    for step, said in (
        (PostprocessStep(id="gone"), "gone: it is not installed"),
        (PostprocessStep(id="brighten", params={"amount": 300}), "amount cannot be 300"),
        (PostprocessStep(id="brighten", params={"amout": 3}), "Did you mean 'amount'?"),
    ):
        done = studio.make(request(step), Step())
        assert np.array_equal(pixels(done[0]), pixels(plain[0]))
        (note,) = notes(studio.events)
        assert said in note
        assert note.endswith(AS_IT_WAS)


def test_notes_of_several_pictures_name_theirs_and_the_same_is_said_once(studio: Studio) -> None:
    studio.make(request("brighten", num_batches=2, prompt="<lora:nothing:1>"), Step(run=gives(notes=("No face.",))))
    assert notes(studio.events)[1:] == ["Brighten, picture 1: No face.", "Brighten, picture 2: No face."]
    assert "nothing" in notes(studio.events)[0]


def test_badges_and_details_come_with_the_picture_and_survive_the_database(studio: Studio) -> None:
    badge = Badge(text="0.31 → 0.84", tone="good", title="likeness before and after")
    details = {"faces": [{"box": [1, 2, 3, 4], "action": "warp"}]}
    (ready,) = studio.make(request("brighten"), Step(run=gives(badge=badge, details=details)))
    assert ready.badges == (badge,)
    assert ready.details == {"brighten": details}
    codec = EventCodec(GENERATION_EVENTS)
    assert codec.decode(*codec.encode(ready)) == ready
    assert studio.make(request())[0].badges == ()


def test_fields_go_into_the_text_and_a_name_that_is_taken_gets_the_title(studio: Studio) -> None:
    steps = [Step(id=id, title=id.upper(), run=gives(fields={"Likeness": id})) for id in ("first", "second")]
    (ready,) = studio.make(request("first", "second"), *steps)
    assert "FIRST: on, Likeness: first, SECOND: on, SECOND Likeness: second, Version" in ready.infotext


def test_a_composite_is_marked_and_its_steps_stand_in_the_png(studio: Studio) -> None:
    (ready,) = studio.make(request("brighten"), Step(run=gives(is_composite=True, fields={"Likeness": "0.8"})))
    with Image.open(ready.path) as image:
        assert image.text["brighten"] == "Brighten: on, Likeness: 0.8"  # type: ignore[attr-defined]
        assert "compositeWithTrainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]
    (plain,) = studio.make(request())
    with Image.open(plain.path) as image:
        assert set(image.text) == {"parameters", "atelier"}  # type: ignore[attr-defined]
        assert "postprocess" not in image.text["atelier"]  # type: ignore[attr-defined]


def test_an_interrupt_inside_a_step_keeps_what_is_finished(studio: Studio) -> None:
    def stop(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        if context.index == 1:
            studio.cancel.interrupt()
        context.check()
        return Processed(image=image)

    with pytest.raises(JobInterrupted):
        studio.make(request("brighten", num_batches=3), Step(run=stop))
    assert [event.index for event in studio.events if isinstance(event, ImageReady)] == [0]


def test_a_skip_inside_a_step_leaves_that_picture_out(studio: Studio) -> None:
    def skip(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        if context.index == 1:
            studio.cancel.skip()
        context.check()
        return Processed(image=image)

    assert [ready.index for ready in studio.make(request("brighten", num_batches=3), Step(run=skip))] == [0, 2]


def test_what_a_step_reports_is_seen_beside_the_progress_of_the_job(studio: Studio) -> None:
    def talk(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        context.report("looking for faces")
        return Processed(image=image)

    studio.make(request("brighten", num_batches=2), Step(run=talk))
    labels = [event.label for event in studio.events if isinstance(event, Progress)]
    assert labels.count("Brighten: looking for faces") == 2
    steps = [event.step for event in studio.events if isinstance(event, Progress)]
    assert steps == sorted(steps)


# -- A finished picture ------------------------------------------------------------------------------------------------


def test_extras_process_a_picture_in_its_own_size_without_any_model(
    studio: Studio, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio.manager, "load", None)
    asked = request(PostprocessStep(id="brighten", params={"amount": 9}), init=Extras(image=photo), checkpoint="gone")
    (ready,) = studio.make(asked, Step())
    assert Path(ready.path).parent.parent.name == "extras-images"
    assert np.array_equal(pixels(ready), np.array(photo) + 9)
    assert "Task: Extras" in ready.infotext
    assert "Sampler" not in ready.infotext


def test_extras_that_redraw_load_the_checkpoint_and_say_how_it_was_used(
    studio: Studio, photo: Image.Image, oval: Image.Image
) -> None:
    step = Step(run=redraws(oval, strength=1.0))
    (ready,) = studio.make(request("brighten", init=Extras(image=photo)), step)
    assert not np.array_equal(pixels(ready), np.array(photo))
    assert "Sampler: Euler a" in ready.infotext
    studio.make(request("brighten", init=Extras(image=photo), checkpoint="gone"), step)
    (note,) = notes(studio.events)
    assert "There is no checkpoint named 'gone'" in note


# -- Repainting --------------------------------------------------------------------------------------------------------


def redraws(mask: Image.Image, **options: Any) -> Run:
    def run(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        return Processed(image=context.redraw(image, mask, **options))

    return run


OWN_WORDS: Mapping[str, Any] = {
    "prompt": "a (blue:1.3) dog",
    "negative_prompt": "red",
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "width": 80,
    "height": 72,
    "seed": 99,
    "padding_px": 5,
    "blur_px": 2,
}


@pytest.mark.parametrize("options", [{}, OWN_WORDS])
def test_a_redraw_is_the_inpainting_of_the_masked_area(
    studio: Studio, photo: Image.Image, oval: Image.Image, options: Mapping[str, Any]
) -> None:
    step = Step(run=redraws(oval, strength=0.8, **options))
    (redrawn,) = studio.make(request("brighten", init=Extras(image=photo)), step)
    spec = MaskSpec(
        image=oval, area="masked", padding_px=options.get("padding_px", 32), blur_px=options.get("blur_px", 4)
    )
    sampling = Sampling(
        num_inference_steps=options.get("num_inference_steps", 2), guidance_scale=options.get("guidance_scale", 7.0)
    )
    same = {name: options[name] for name in ("prompt", "negative_prompt", "width", "height", "seed") if name in options}
    (painted,) = studio.make(request(init=Inpaint(image=photo, mask=spec, strength=0.8), sampling=sampling, **same))
    assert np.array_equal(pixels(redrawn), pixels(painted))


def test_a_redraw_changes_nothing_outside_of_its_mask_and_nothing_of_the_next_picture(
    studio: Studio, oval: Image.Image
) -> None:
    mask = oval.resize((64, 64))
    plain = studio.make(request(num_batches=2))
    done = studio.make(request("brighten", num_batches=2), Step(run=redraws(mask, strength=1.0, **OWN_WORDS)))
    reach = np.zeros((64, 64), dtype=bool)
    box = mask.getbbox()
    assert box is not None
    reach[max(box[1] - 6, 0) : box[3] + 6, max(box[0] - 6, 0) : box[2] + 6] = True
    for one, other in zip(plain, done, strict=True):
        assert np.array_equal(pixels(one)[~reach], pixels(other)[~reach])
        assert not np.array_equal(pixels(one)[reach], pixels(other)[reach])


def test_pictures_of_one_batch_are_processed_one_after_the_other(
    studio: Studio, oval: Image.Image, library: Library
) -> None:
    at_once = PipelineManager(library, replace(CPU, images_at_once=True))
    batches = Studio(at_once, studio.outputs)
    step = Step(run=redraws(oval.resize((64, 64)), strength=1.0, **OWN_WORDS))
    stages: list[tuple[str, tuple[int, ...]]] = []

    def before(moment: Moment) -> list[str]:
        stages.append((moment.stage, moment.indices))
        return []

    together = batches.make(request("brighten", num_batches=2, batch_size=2), step, before=before)
    alone = studio.make(request("brighten", seed=9), step)
    assert [ready.index for ready in together] == [0, 1, 2, 3]
    # A sum over a batch is rounded in another order.
    assert np.abs(pixels(together[2]).astype(int) - pixels(alone[0])).max() <= 1
    assert stages[1:7] == [
        ("denoise", (0, 1)),
        ("decode", (0, 1)),
        ("postprocess", (0,)),
        ("save", (0,)),
        ("postprocess", (1,)),
        ("save", (1,)),
    ]


def test_pictures_that_are_finished_are_not_processed_again(studio: Studio) -> None:
    seen: list[int] = []

    def look(image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        seen.append(context.index)
        return Processed(image=image)

    asked = request("brighten", num_batches=3)
    ready = studio.make(asked, Step(run=look))
    seen.clear()
    finished = {0: ready[0], 2: ready[2]}
    engine = studio.engine(Added([Step(run=look)]))
    again = engine.generate(asked, report=studio.events.append, cancel=studio.cancel, finished=finished)
    assert seen == [1]
    assert [one.path for one in (again[0], again[2])] == [ready[0].path, ready[2].path]


def test_an_interrupt_stops_a_redraw_within_a_step(studio: Studio, photo: Image.Image, oval: Image.Image) -> None:
    class StopAtSecondStep(list[JobEvent]):
        def append(self, event: JobEvent) -> None:
            super().append(event)
            if isinstance(event, Progress) and event.label == "Brighten: redrawing 2/9":
                studio.cancel.interrupt()

    studio.events = StopAtSecondStep()
    step = Step(run=redraws(oval, strength=1.0, num_inference_steps=9))
    with pytest.raises(JobInterrupted):
        studio.make(request("brighten", init=Extras(image=photo)), step)
    assert [event for event in studio.events if isinstance(event, Progress)][-1].label == "Brighten: redrawing 2/9"
    studio.cancel = CancelToken()
    assert studio.make(request())


def test_an_empty_mask_is_told_by_the_step_that_gave_it(studio: Studio, photo: Image.Image) -> None:
    step = Step(run=redraws(Image.new("L", photo.size, 0), strength=1.0))
    (ready,) = studio.make(request("brighten", init=Extras(image=photo)), step)
    assert np.array_equal(pixels(ready), np.array(photo))
    assert "mask is empty" in notes(studio.events)[0]


# -- For commands ------------------------------------------------------------------------------------------------------


def test_processing_saves_nothing_and_joins_what_the_steps_say(studio: Studio, photo: Image.Image) -> None:
    first = Step(run=gives(fields={"First": "1"}, notes=("one",), badge=Badge(text="1"), details={"a": 1, "b": 1}))
    second = Step(id="second", title="Second", run=gives(fields={"Other": "2"}, details={"b": 2}, is_composite=True))
    generator = studio.engine(Added([first, second]))
    asked = request("brighten", "second", init=Extras(image=photo))
    (processed,) = generator.process(asked, report=studio.events.append, cancel=studio.cancel)
    assert np.array_equal(np.array(processed.image), np.array(photo))
    assert processed.fields == {"First": "1", "Other": "2"}
    assert processed.notes == ("Brighten: one",)
    assert processed.badge == Badge(text="1")
    assert processed.details == {"a": 1, "b": 2}
    assert processed.is_composite
    assert not studio.outputs.exists()


# -- Stages ------------------------------------------------------------------------------------------------------------


def test_extensions_are_told_of_every_stage_with_its_pictures(studio: Studio) -> None:
    told: list[tuple[str, str, tuple[int, ...]]] = []
    paths = []

    def before(moment: Moment) -> list[str]:
        told.append(("before", moment.stage, moment.indices))
        return []

    def after(moment: Moment, result: Any) -> Any:
        told.append(("after", moment.stage, moment.indices))
        if moment.path is not None:
            paths.append(str(moment.path))
        return result

    ready = studio.make(request(num_batches=2), before=before, after=after)
    one = [("encode", (0, 1))]
    for index in (0, 1):
        one += [(stage, (index,)) for stage in ("denoise", "decode", "postprocess", "save")]
    assert told == [(when, *moment) for moment in one for when in ("before", "after")]
    assert paths == [picture.path for picture in ready]


@pytest.mark.parametrize("stage", ["denoise", "decode", "postprocess"])
def test_what_an_extension_puts_in_place_of_a_result_is_used(studio: Studio, stage: str) -> None:
    replaced: Mapping[str, Callable[[Any], Any]] = {
        "denoise": torch.zeros_like,
        "decode": lambda images: [Image.new("RGB", image.size, "red") for image in images],
        "postprocess": lambda image: image.resize((128, 128)),
    }

    def after(moment: Moment, result: Any) -> Any:
        return replaced[stage](result) if moment.stage == stage else result

    plain = studio.make(request())
    (ready,) = studio.make(request(), after=after)
    if stage == "decode":
        assert (pixels(ready) == (255, 0, 0)).all()
    elif stage == "postprocess":
        assert pixels(ready).shape == (128, 128, 3)
        assert "Saved size: 128x128" in ready.infotext
    else:
        assert not np.array_equal(pixels(ready), pixels(plain[0]))


def test_what_lies_outside_of_the_mask_stays_whatever_the_decode_hook_does(
    studio: Studio, photo: Image.Image, oval: Image.Image
) -> None:
    def after(moment: Moment, result: Any) -> Any:
        return [Image.new("RGB", image.size) for image in result] if moment.stage == "decode" else result

    asked = request(init=Inpaint(image=photo, mask=MaskSpec(image=oval, area="masked", blur_px=0)))
    (ready,) = studio.make(asked, after=after)
    outside = np.array(oval) == 0
    assert np.array_equal(pixels(ready)[outside], np.array(photo)[outside])
    assert (pixels(ready)[~outside] == 0).all()


def test_redraws_are_no_stages_of_their_own(studio: Studio, photo: Image.Image, oval: Image.Image) -> None:
    stages: list[str] = []

    def before(moment: Moment) -> list[str]:
        stages.append(moment.stage)
        return []

    studio.make(request("brighten", init=Extras(image=photo)), Step(run=redraws(oval, strength=1.0)), before=before)
    assert stages == ["postprocess", "save"]


def test_notes_of_hooks_are_told(studio: Studio) -> None:
    studio.make(request(), before=lambda moment: ["Hello."] if moment.stage == "save" else [])
    assert notes(studio.events) == ["Hello."]


def test_an_img2img_that_keeps_its_picture_is_processed_too(studio: Studio, photo: Image.Image) -> None:
    asked = request("brighten", init=Img2Img(image=photo, strength=0.0), width=96, height=72)
    (ready,) = studio.make(asked, Step(run=brighten))
    assert np.array_equal(pixels(ready), np.minimum(np.array(photo).astype(int) + 50, 255))


def test_a_finished_picture_is_one_and_a_step_is_named_once(photo: Image.Image) -> None:
    with pytest.raises(InvalidRequest, match="finished one") as caught:
        request("brighten", init=Extras(image=photo), num_batches=2)
    assert caught.value.field == "num_batches"
    with pytest.raises(InvalidRequest, match="named 2 times"):
        request("brighten", "brighten")


def test_pictures_are_read_only_by_the_names_they_were_given(studio: Studio) -> None:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")

    def look(image: Image.Image, params: Amount, context: PostprocessContext) -> Processed:
        return Processed(image=context.picture(params.face))

    for name, said in (("", "No picture was chosen"), ("/etc/passwd", "is not there")):
        studio.make(request(PostprocessStep(id="brighten", params={"face": name})), Step(run=look))
        assert said in notes(studio.events)[0]

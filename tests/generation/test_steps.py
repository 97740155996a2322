"""Postprocess steps as values: checked before they wait, and found again in a picture's text."""

import base64
import io
from dataclasses import replace
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from tests.generation.additions import Added, Amount, Nothing, Step
from webui.errors import InvalidRequest, UnreadableImage, WebUIError
from webui.generation.infotext import OWN_KEYS, metadata_of, restore_settings
from webui.generation.outcome import Outcome, StepResult
from webui.generation.parameters import build_request, parameters_of, parse_parameters
from webui.generation.postprocess import Picture, PostprocessStep, Processed
from webui.generation.request import Extras, GenerationRequest
from webui.generation.scripts import picture_of, steps_of_scripts
from webui.generation.steps import checked_steps, complete, infotext_key, parse_params, picture_names
from webui.images.metadata import ImageMetadata

IMAGE = Image.new("RGB", (64, 64), "red")


def request(*steps: PostprocessStep, **changes: Any) -> GenerationRequest:
    return GenerationRequest(checkpoint="tiny", seed=1, postprocess=steps, **changes)


class Look(StrEnum):
    OVAL = "oval, wide"
    BROWS = "brows"


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True)

    weight: float = 0.5
    face: Picture = ""


texts = st.text(st.characters(codec="utf-8"), max_size=20)
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "flag": (bool, st.booleans()),
    "count": (int, st.integers(-(10**6), 10**6)),
    "share": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "words": (
        str,
        st.one_of(texts, st.sampled_from(['"', "a, b", "x: y", "1", "true", "null", " ", "on", '"a"', "[1"])),
    ),
    "perhaps": (int | str | None, st.one_of(st.none(), st.integers(), texts)),
    "choice": (Literal["a, b", "1", "none"], st.sampled_from(["a, b", "1", "none"])),
    "look": (Look, st.sampled_from(Look)),
    "several": (tuple[str, ...], st.lists(texts, max_size=3).map(tuple)),
    "table": (dict[str, float], st.dictionaries(texts, st.integers(0, 9).map(float), max_size=3)),
    "inner": (Inner, st.builds(Inner, weight=st.integers(0, 9).map(float))),
}
titles = st.text(st.characters(categories=["L", "N"], include_characters=" -()&,:/'_"), min_size=2, max_size=20).filter(
    lambda title: (
        len(title.strip(" -/()&,:'")) >= 2 and title.strip()[0].isalnum() and infotext_key(title) not in OWN_KEYS
    )
)


@st.composite
def steps_with_values(draw: st.DrawFn) -> tuple[Step, BaseModel]:
    """A postprocessor with parameters of any kind, and an instance of them."""
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, max_size=6))
    fields: dict[str, Any] = {}
    for name in names:
        kind, values = KINDS[name]
        title = draw(st.none() | titles)
        fields[name] = (kind, Field(default=draw(values), title=title))
    model = create_model("Params", __config__=ConfigDict(frozen=True), **fields)
    values = {name: draw(KINDS[name][1]) for name in names}
    return Step(id="step", title=draw(titles), params_model=model), model(**values)


@given(steps_with_values())
def test_a_pictures_text_alone_rebuilds_its_steps(made: tuple[Step, BaseModel]) -> None:
    postprocessor, params = made
    additions = Added([postprocessor])
    asked = request(PostprocessStep(id="step", params=complete(params)))
    processed = Processed(image=IMAGE, fields={"Likeness, before".replace(",", ""): '0.3, "so"'})
    outcome = Outcome(
        image=IMAGE, results=(StepResult(postprocessor=postprocessor, params=params, processed=processed),)
    )
    metadata = metadata_of(asked, seed=1, size=(64, 64), outcome=outcome)
    for known in (metadata, replace(metadata, request_json="")):
        restored = restore_settings(known, additions)
        assert restored.notes == ()
        assert restored.values["postprocess"] == [{"id": "step", "params": complete(params)}]
        parameters = {**parameters_of(asked).model_dump(), **restored.values}
        assert build_request(parse_parameters(parameters)) == asked


def test_the_text_names_a_step_by_its_title_and_what_differs_from_the_defaults() -> None:
    params = Amount(amount=3, words='say "hi", twice')
    step = StepResult(postprocessor=Step(title="Brighten (fast)"), params=params, processed=Processed(image=IMAGE))
    outcome = Outcome(image=IMAGE, results=(step,))
    text = metadata_of(request(), seed=1, size=(512, 512), outcome=outcome).infotext
    told = 'Brighten fast: on, Brighten fast Amount: 3, Brighten fast Words any: "say \\"hi\\", twice", Version'
    assert told in text


def test_steps_of_several_extensions_keep_their_order() -> None:
    steps = [Step(id=id, title=id.title(), params_model=Nothing) for id in ("zebra", "ant", "cat")]
    results = tuple(StepResult(postprocessor=step, params=Nothing(), processed=None) for step in steps)
    text = metadata_of(request(), seed=1, size=(64, 64), outcome=Outcome(image=IMAGE, results=results)).infotext
    restored = restore_settings(
        ImageMetadata(infotext=text, request_json=""), Added(sorted(steps, key=lambda one: one.id))
    )
    assert [step["id"] for step in restored.values["postprocess"]] == ["zebra", "ant", "cat"]


def restored(*steps: PostprocessStep, as_text: bool, gone: set[str] = frozenset(), **here: Any) -> tuple[Any, Any]:  # type: ignore[assignment]
    """What a program with the one step `here` makes of a picture made with `steps` elsewhere, by any means."""

    class Elsewhere(BaseModel):
        amount: int | str = 50
        words: str = ""
        face: str = ""
        faces: tuple[str, ...] = ()

    class Newer(Elsewhere):
        colour: str = ""

    models = [Newer if "colour" in step.params else Elsewhere for step in steps]
    results = tuple(
        StepResult(
            postprocessor=Step(id=step.id, title=step.id.title(), params_model=model),
            params=model(**step.params),
            processed=Processed(image=IMAGE),
        )
        for step, model in zip(steps, models, strict=True)
    )
    metadata = metadata_of(request(*steps), seed=1, size=(64, 64), outcome=Outcome(image=IMAGE, results=results))
    found = restore_settings(
        replace(metadata, request_json="") if as_text else metadata,
        Added([Step(**here)]),
        has_picture=lambda name: name not in gone,
    )
    return found.values["postprocess"], found.notes


@pytest.mark.parametrize("as_text", [False, True])
def test_a_step_of_an_extension_that_is_not_here_is_told(as_text: bool) -> None:
    steps, notes = restored(PostprocessStep(id="upscale"), PostprocessStep(id="brighten"), as_text=as_text)
    assert [step["id"] for step in steps] == ["brighten"]
    assert len(notes) == 1
    assert "upscale" in notes[0].lower()


def test_settings_that_another_version_has_are_told_and_the_others_taken() -> None:
    params = {"amount": 900, "words": "hi", "colour": "red"}
    steps, notes = restored(PostprocessStep(id="brighten", params=params), as_text=False)
    assert steps[0]["params"] == complete(Amount(words="hi"))
    assert sorted(notes) == [
        "Brighten has no setting 'colour' here; it was left out.",
        "Brighten: Amount '900' is not known here and was left as it is by default.",
    ]


@pytest.mark.parametrize("as_text", [False, True])
def test_pictures_that_are_gone_are_left_out_with_a_note(as_text: bool) -> None:
    params = {"face": "a" * 64, "faces": ["b" * 64]}
    step = PostprocessStep(id="brighten", params=params)
    assert restored(step, as_text=as_text)[0][0]["params"] == complete(Amount()) | params
    steps, notes = restored(step, as_text=as_text, gone={"a" * 64})
    assert steps[0]["params"] == complete(Amount()) | params | {"face": ""}
    assert "choose them again" in notes[0]


class Consent(BaseModel):
    amount: int = 1
    consent: bool = Field(default=False, json_schema_extra={"personal": True})


def test_a_persons_answer_goes_neither_into_a_picture_nor_out_of_one() -> None:
    postprocessor, params = Step(params_model=Consent), Consent(amount=2, consent=True)
    asked = request(PostprocessStep(id="brighten", params=complete(params)))
    result = StepResult(postprocessor=postprocessor, params=params, processed=Processed(image=IMAGE))
    metadata = metadata_of(asked, seed=1, size=(64, 64), outcome=Outcome(image=IMAGE, results=(result,)))
    assert "onsent" not in metadata.infotext + metadata.request_json + str(metadata.texts)
    (forged,) = checked_steps(asked, Added([postprocessor]), lambda name: True)
    assert forged.params["consent"] is True, "but a job has it"
    for told in (
        metadata,
        replace(metadata, request_json=parameters_of(asked).model_dump_json()),
        replace(metadata, request_json="", infotext=metadata.infotext + ", Brighten Consent: true"),
    ):
        (step,) = restore_settings(told, Added([postprocessor])).values["postprocess"]
        assert step["params"] == {"amount": 2, "consent": False}


def test_a_picture_without_steps_restores_none() -> None:
    metadata = metadata_of(request(), seed=1, size=(64, 64))
    assert restore_settings(metadata).values["postprocess"] == []


# -- Before they wait --------------------------------------------------------------------------------------------------


def checked(step: PostprocessStep, postprocessor: Step | None = None, **changes: Any) -> PostprocessStep:
    (found,) = checked_steps(request(step, **changes), Added([postprocessor or Step()]), lambda name: name == "there")
    return found


def test_a_checked_step_has_all_its_parameters() -> None:
    step = PostprocessStep(id="brighten", params={"amount": 3, "faces": ["there"]})
    assert checked(step).params == {"amount": 3, "words": "", "face": "", "faces": ["there"]}


class Range(BaseModel):
    low: int = 0
    high: int = 9
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


@pytest.mark.parametrize(
    ("step", "field", "said"),
    [
        (PostprocessStep(id="brigthen"), "postprocess", "'brigthen' is not installed here.* There is: brighten"),
        (PostprocessStep(id="brighten", params={"low": "x"}), "brighten.low", "low cannot be 'x'"),
        (PostprocessStep(id="brighten", params={"hihg": 1}), "brighten.hihg", "Did you mean 'high'"),
        (PostprocessStep(id="brighten", params={"zzz": 1}), "brighten.zzz", "It has: low, high, inner"),
        (PostprocessStep(id="brighten", params={"low": 10}), "brighten", "low is above high"),
        (PostprocessStep(id="brighten", params={"inner": {"weight": "w"}}), "brighten.inner.weight", "cannot be 'w'"),
        (
            PostprocessStep(id="brighten", params={"inner": {"face": "ab"}}),
            "brighten.inner.face",
            "ab is not kept here",
        ),
    ],
)
def test_a_step_that_cannot_run_is_refused_by_the_name_of_its_control(
    step: PostprocessStep, field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        checked(step, Step(params_model=Range))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("error", "field", "said"),
    [
        (InvalidRequest("amount", "13 brings bad luck."), "brighten.amount", "bad luck"),
        (InvalidRequest("width", "Too wide."), "width", "Too wide"),
        (ZeroDivisionError("by zero"), "brighten", "ZeroDivisionError: by zero"),
    ],
)
def test_what_a_step_objects_to_names_its_control(error: Exception, field: str, said: str) -> None:
    def check(params: Amount, asked: GenerationRequest) -> None:
        assert params.amount == 13
        assert asked.checkpoint == "tiny"
        raise error

    with pytest.raises(InvalidRequest, match=said) as caught:
        checked(PostprocessStep(id="brighten", params={"amount": 13}), Step(checked=check))
    assert caught.value.field == field


def test_other_errors_of_a_check_pass() -> None:
    def check(params: Amount, asked: GenerationRequest) -> None:
        raise WebUIError("The model is missing.")

    with pytest.raises(WebUIError, match="missing"):
        checked(PostprocessStep(id="brighten"), Step(checked=check))


def test_pictures_are_found_wherever_they_are_in_the_parameters() -> None:
    class Params(BaseModel):
        one: Picture = Field(default="a", title="One")
        several: tuple[Picture, ...] = ("b", "c")
        perhaps: Picture | None = None
        inner: Inner = Inner(face="d")
        text: str = "e"

    found = list(picture_names(Params()))
    assert found == [("one", "a"), ("several", "b"), ("several", "c"), ("inner.face", "d")]


def test_parameters_are_read_from_json_as_it_comes() -> None:
    params = parse_params(Step(), {"amount": "7", "faces": ["x", "y"]})
    assert params == Amount(amount=7, faces=("x", "y"))


def test_a_finished_picture_and_its_steps_are_two_forms_of_one_thing() -> None:
    asked = request(PostprocessStep(id="brighten", params={"amount": 3}), init=Extras(image=IMAGE))
    assert build_request(parameters_of(asked), image=IMAGE) == asked
    with pytest.raises(InvalidRequest, match="no picture"):
        build_request(parameters_of(asked))


# -- A1111's words -----------------------------------------------------------------------------------------------------

BY_FIELD: dict[str, Any] = {"amount": 3, "words": "hi"}


@pytest.mark.parametrize(
    ("scripts", "params"),
    [
        ({"Brighten": {"args": [BY_FIELD]}}, BY_FIELD),
        ({"bRIGHTEN": {"args": [BY_FIELD]}}, BY_FIELD),
        ({"brighten": {"args": BY_FIELD}}, BY_FIELD),
        ({" Brighten ": {"args": [3, "hi"]}}, BY_FIELD),
        ({"Brighten": {"args": [3]}}, {"amount": 3}),
        ({"Brighten": {"args": []}}, {}),
        ({"Brighten": {}}, {}),
    ],
)
def test_scripts_are_steps_by_title_with_arguments_by_name_or_place(scripts: Any, params: Any) -> None:
    assert steps_of_scripts(scripts, [Step()], str) == (PostprocessStep(id="brighten", params=params),)


def test_several_scripts_keep_their_order() -> None:
    steps = [Step(), Step(id="invert", title="Invert colours")]
    found = steps_of_scripts({"invert COLOURS": {"args": []}, "brighten": {"args": [1]}}, steps, str)
    assert [step.id for step in found] == ["invert", "brighten"]


@pytest.mark.parametrize(
    ("scripts", "said"),
    [
        ([], r"\[\], not an object"),
        ({"ControlNet": {"args": []}}, "no script 'ControlNet'.* There is: Brighten"),
        ({"Brighten": [1]}, "not of the form"),
        ({"Brighten": {"args": "x"}}, "not of the form"),
        ({"Brighten": {"args": [1, 2, 3, 4, 5]}}, "has 4 settings, but 5 arguments.*amount, words, face, faces"),
    ],
)
def test_scripts_that_mean_nothing_are_refused(scripts: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        steps_of_scripts(scripts, [Step()], str)
    assert caught.value.field == "alwayson_scripts"


def test_pictures_in_scripts_are_kept_and_known_by_name_from_then_on() -> None:
    named = {"a": "A", "b": "B", "c": "C"}
    (step,) = steps_of_scripts({"Brighten": {"args": [1, "a", "b", ["a", "c"]]}}, [Step()], named.__getitem__)
    assert step.params == {"amount": 1, "words": "a", "face": "B", "faces": ["A", "C"]}


def test_a_picture_comes_in_base64_or_as_a_data_address() -> None:
    file = io.BytesIO()
    IMAGE.save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    for text in (encoded, f"data:image/png;base64,{encoded}"):
        assert picture_of(text, max_pixels=64 * 64).tobytes() == IMAGE.tobytes()
    for text, error in (("/etc/passwd?", InvalidRequest), (encoded[:40], UnreadableImage), ("é", InvalidRequest)):
        with pytest.raises(error):
            picture_of(text, max_pixels=64 * 64)
    with pytest.raises(UnreadableImage, match="limit"):
        picture_of(encoded, max_pixels=64 * 64 - 1)


@given(st.dictionaries(texts, texts, max_size=8))
def test_no_text_of_another_program_keeps_a_picture_from_being_read(fields: dict[str, str]) -> None:
    line = ", ".join(
        f"{key}: {value}" for key, value in {"Steps": "1", "Seed": "2", "Brighten": "on", **fields}.items()
    )
    found = restore_settings(ImageMetadata(infotext=line.replace("\n", " "), request_json=""), Added([Step()]))
    assert "postprocess" in found.values


def test_a_text_that_says_on_is_no_step_of_its_own() -> None:
    step = Step(id="sign", title="Sign", params_model=Amount)
    results = (StepResult(postprocessor=step, params=Amount(words="on"), processed=None),)
    text = metadata_of(request(), seed=1, size=(64, 64), outcome=Outcome(image=IMAGE, results=results)).infotext
    told = restore_settings(ImageMetadata(infotext=text, request_json=""), Added([step]))
    assert told.notes == ()
    assert [one["params"]["words"] for one in told.values["postprocess"]] == ["on"]

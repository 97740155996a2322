"""Any model of parameters as controls: what is drawn, what comes back, and what is never trusted."""

import json
import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from webui.errors import InvalidRequest
from webui.generation.postprocess import Picture
from webui.ui import forms
from webui.ui.picture_input import PictureInput


class Shape(StrEnum):
    ROUND = "round"
    SQUARE = "square"


class Refine(BaseModel):
    model_config = ConfigDict(frozen=True)

    strength: float = Field(0.3, ge=0, le=1, json_schema_extra={"step": 0.05})
    steps: int | None = None


class Everything(BaseModel):
    """One field of each kind."""

    model_config = ConfigDict(frozen=True)

    shape_keep: float = Field(0.5, ge=0, le=1, title="Keep the shape", description="0 the new one, 1 the old one")
    size: int = Field(64, ge=60, le=130, multiple_of=8)
    border: int = Field(3, ge=0)
    limit: float | None = Field(None, gt=0)
    seed: int = Field(0, ge=0, le=2**32 - 1)
    on: bool = True
    maybe: bool | None = None
    area: Literal["auto", "oval"] = Field("auto", json_schema_extra={"labels": {"auto": "As it comes"}})
    factor: Literal[1, 2, 4] = 1
    shape: Shape = Shape.ROUND
    words: str = Field("", json_schema_extra={"lines": 3, "placeholder": "a face"})
    faces: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ()
    genders: tuple[Literal["man", "woman"], ...] = ("man", "woman")
    source: Picture = Field("", json_schema_extra={"group": "Source"})
    photos: tuple[Picture, ...] = Field((), json_schema_extra={"group": "Source"})
    corner: tuple[int, int] = (1, 2)
    weights: dict[str, float] = {}
    internal: int = Field(7, json_schema_extra={"hidden": True})
    refine: Refine = Field(Refine(strength=0.5), title="Refine the face")


FIELDS = {field.name: field for field in forms.fields_of(Everything)}
COMPONENTS = {
    "shape_keep": gr.Slider,
    "size": gr.Slider,
    "border": gr.Number,
    "limit": gr.Textbox,
    "seed": gr.Number,
    "on": gr.Checkbox,
    "maybe": gr.Dropdown,
    "area": gr.Dropdown,
    "factor": gr.Dropdown,
    "shape": gr.Dropdown,
    "words": gr.Textbox,
    "faces": gr.Textbox,
    "names": gr.Textbox,
    "genders": gr.CheckboxGroup,
    "source": PictureInput,
    "photos": PictureInput,
    "corner": gr.Textbox,
    "weights": gr.Textbox,
    "refine.strength": gr.Slider,
    "refine.steps": gr.Textbox,
}


@pytest.fixture(scope="module", autouse=True)
def page() -> Iterator[gr.Blocks]:
    """One page for all: making one takes half a second."""
    with gr.Blocks() as blocks:
        yield blocks


def drawn(model: type[BaseModel]) -> dict[str, Any]:
    return dict(forms.draw(forms.fields_of(model), id_of=lambda name: f"test-{name}").controls)


def defaults_of(fields: Any) -> dict[str, Any]:
    return forms.control_values(tuple(fields), {})


@pytest.fixture(scope="module")
def controls() -> dict[str, Any]:
    return drawn(Everything)


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_kind_of_field_has_its_control(controls: dict[str, Any], name: str) -> None:
    assert type(controls[name]) is COMPONENTS[name]
    assert controls[name].elem_id == f"test-{name}"


def test_there_is_a_control_for_each_field_but_hidden_ones(controls: dict[str, Any]) -> None:
    assert list(controls) == list(COMPONENTS)
    assert {field.kind for field in FIELDS.values()} == set(forms.KINDS)


def test_what_the_page_is_told_of_a_control_is_plain_json(controls: dict[str, Any]) -> None:
    for control in controls.values():
        json.dumps(control.get_config())


def test_title_and_description_are_shown_and_names_read_like_words(controls: dict[str, Any]) -> None:
    assert (controls["shape_keep"].label, controls["shape_keep"].info) == (
        "Keep the shape",
        "0 the new one, 1 the old one",
    )
    assert controls["border"].label == "Border"
    assert controls["refine.strength"].label == "Strength"


def test_a_slider_goes_from_bound_to_bound_in_steps_that_the_model_accepts(controls: dict[str, Any]) -> None:
    size, keep, strength = controls["size"], controls["shape_keep"], controls["refine.strength"]
    assert (size.minimum, size.maximum, size.step) == (64, 128, 8)
    assert (keep.minimum, keep.maximum, keep.step) == (0, 1, 0.01)
    assert strength.step == 0.05


def test_choices_have_their_labels(controls: dict[str, Any]) -> None:
    assert controls["area"].choices == [("As it comes", "auto"), ("oval", "oval")]
    assert [label for label, _ in controls["maybe"].choices] == ["Automatic", "On", "Off"]
    assert [label for label, _ in controls["factor"].choices] == ["1", "2", "4"]


def test_groups_and_nested_models_are_accordions_of_their_name() -> None:
    with gr.Column() as column:
        form = forms.draw(forms.fields_of(Everything), id_of=lambda name: name)
    accordions = [child for child in column.children if isinstance(child, gr.Accordion)]
    assert [accordion.label for accordion in accordions] == ["Source", "Refine the face"]
    assert form.folds["refine.steps"] == (accordions[1],)
    assert form.folds["border"] == ()


def test_fields_of_a_group_come_together_where_the_first_one_stands() -> None:
    class Mixed(BaseModel):
        first: int = Field(1, json_schema_extra={"group": "Together"})
        between: int = 2
        last: int = Field(3, json_schema_extra={"group": "Together"})

    assert list(drawn(Mixed)) == ["first", "last", "between"]


def test_untouched_controls_read_as_the_defaults() -> None:
    assert forms.read(Everything, tuple(FIELDS.values()), defaults_of(FIELDS.values())) == Everything().model_dump(
        mode="json"
    )


plain_words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)
everything = st.builds(
    Everything,
    shape_keep=st.floats(0, 1),
    size=st.sampled_from(range(64, 129, 8)),
    border=st.integers(0, 10**6),
    limit=st.none() | st.floats(0.001, 1e6),
    seed=st.integers(0, 2**32 - 1),
    on=st.booleans(),
    maybe=st.none() | st.booleans(),
    area=st.sampled_from(["auto", "oval"]),
    factor=st.sampled_from([1, 2, 4]),
    shape=st.sampled_from(Shape),
    words=st.text(max_size=30),
    faces=st.lists(st.integers(-5, 99), max_size=4).map(tuple),
    names=st.lists(plain_words, max_size=3).map(tuple),
    genders=st.lists(st.sampled_from(["man", "woman"]), unique=True).map(tuple),
    source=plain_words | st.just(""),
    photos=st.lists(plain_words, max_size=3).map(tuple),
    corner=st.tuples(st.integers(), st.integers()),
    weights=st.dictionaries(plain_words, st.floats(-9, 9), max_size=3),
    refine=st.builds(Refine, strength=st.floats(0, 1), steps=st.none() | st.integers(0, 99)),
)


@given(params=everything)
def test_what_is_shown_reads_as_what_it_was(params: Everything) -> None:
    fields = tuple(FIELDS.values())
    stored = params.model_dump(mode="json")
    shown = forms.control_values(fields, stored)
    assert forms.misfits(fields, stored) == []
    assert forms.read(Everything, fields, json.loads(json.dumps(shown))) == stored


def a_field(draw: st.DrawFn) -> tuple[Any, Any]:
    """(type, default with its constraints) of some field an author could write."""
    low = draw(st.integers(-100, 100))
    high = low + draw(st.integers(1, 200))
    inside = draw(st.integers(low, high))
    extra: Any = draw(st.sampled_from([None, {"group": "Some"}, {"step": 2}, {"lines": 2}]))
    choices = tuple(draw(st.lists(plain_words, min_size=1, max_size=4, unique=True)))
    chosen: Any = Literal[choices]
    return draw(
        st.sampled_from(
            [
                (bool, Field(draw(st.booleans()), json_schema_extra=extra)),
                (int, Field(inside, ge=low, le=high, json_schema_extra=extra)),
                (int, Field(inside, ge=low)),
                (float, Field(float(inside), ge=low, le=high)),
                (float, Field(inside + 0.5, gt=low, lt=high + 1)),
                (int | None, Field(draw(st.none() | st.just(inside)), ge=low)),
                (Annotated[int, Field(ge=low, le=high)] | None, Field(None)),
                (str, Field(draw(plain_words), title=draw(plain_words), json_schema_extra=extra)),
                (chosen, Field(choices[0], json_schema_extra={"labels": {choices[0]: "One"}})),
                (chosen | None, Field(None)),
                (tuple[chosen, ...], Field(choices[:1])),
                (tuple[float, ...], Field((0.5, float(inside)))),
                (Refine, Field(Refine(strength=0.5), title=draw(plain_words))),
                (Picture, Field("")),
                (set[int], Field({inside})),
            ]
        )
    )


@st.composite
def models(draw: st.DrawFn) -> type[BaseModel]:
    names = draw(st.lists(st.from_regex(r"[a-z]{3}(_[a-z]{2})?", fullmatch=True), min_size=1, max_size=5, unique=True))
    fields: Any = {f"f_{name}": a_field(draw) for name in names}
    return create_model("Generated", __config__=ConfigDict(frozen=True), **fields)


rubbish = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers() | st.text(max_size=3) | st.none(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
)


@given(model=models())
def test_every_model_can_be_drawn_and_reads_as_its_defaults(model: type[BaseModel]) -> None:
    fields = forms.fields_of(model)
    assert set(drawn(model)) == {field.name for field in fields}
    assert forms.read(model, fields, defaults_of(fields)) == model().model_dump(mode="json")


@given(model=models(), data=st.data())
def test_remembered_values_that_no_longer_fit_are_left_out(model: type[BaseModel], data: st.DataObject) -> None:
    fields = forms.fields_of(model)
    names = [*(field.name for field in fields), "unknown"]
    remembered = data.draw(st.dictionaries(st.sampled_from(names), rubbish))
    kept = forms.usable(fields, remembered)
    assert "unknown" not in kept
    try:
        forms.read(model, fields, {**defaults_of(fields), **kept})
    except InvalidRequest as error:
        assert error.field in kept  # a control that shows it, and that can be mended


@given(model=models(), data=st.data())
def test_foreign_parameters_never_break_a_form(model: type[BaseModel], data: st.DataObject) -> None:
    fields = forms.fields_of(model)
    params = data.draw(st.dictionaries(st.sampled_from([*(field.name.split(".")[0] for field in fields)]), rubbish))
    shown = forms.control_values(fields, params)
    assert all(forms.KINDS[field.kind].fits(field, shown[field.name]) for field in fields)
    assert all(isinstance(label, str) for label in forms.misfits(fields, params))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("border", -1, "Border is -1: input should be greater than or equal to 0."),
        ("border", None, "Border is empty."),
        ("border", 1.5, "Border"),
        ("size", 65, "multiple of 8"),
        ("faces", "one, two", "whole numbers with commas"),
        ("area", "everywhere", "none of its choices"),
        ("corner", "[1, 2", "not JSON"),
        ("corner", "[1]", "Corner"),
        ("refine.strength", 7, "Strength is 7"),
        ("limit", "many", "'many' is no number"),
        ("seed", math.nan, "Seed"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_control(name: str, value: Any, said: str) -> None:
    fields = tuple(FIELDS.values())
    with pytest.raises(InvalidRequest) as caught:
        forms.read(Everything, fields, {**defaults_of(fields), name: value})
    assert caught.value.field == name
    assert said in str(caught.value)


def test_the_authors_own_checks_speak_in_their_words() -> None:
    class Careful(BaseModel):
        low: int = 1
        high: int = 2

        @field_validator("low")
        @classmethod
        def not_unlucky(cls, value: int) -> int:
            if value == 13:
                raise ValueError("thirteen brings bad luck")
            return value

        @model_validator(mode="after")
        def in_order(self) -> "Careful":
            if self.low > self.high:
                raise ValueError("Low is above high")
            return self

    fields = forms.fields_of(Careful)
    with pytest.raises(InvalidRequest, match="Low is 13: thirteen brings bad luck") as caught:
        forms.read(Careful, fields, {"low": 13, "high": 20})
    assert caught.value.field == "low"
    with pytest.raises(InvalidRequest, match="Low is above high") as together:
        forms.read(Careful, fields, {"low": 3, "high": 2})
    assert together.value.field == ""


def test_markup_in_a_title_stays_text() -> None:
    class Odd(BaseModel):
        photo: Picture = Field("", title="</script>{{value}}${1}<b>")

    control = drawn(Odd)["photo"]
    assert "<b>" not in control.html_template
    assert "{{" not in control.html_template

"""The postprocessors of a tab: from controls to steps and back, and what happens to an author's mistakes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webui.errors import InvalidRequest, UnreadableImage
from webui.generation.postprocess import Picture, Postprocessor
from webui.ui.picture_input import PicturesValue
from webui.ui.sections import sections_of, steps_of, usable_values, values_of


class Params(BaseModel):
    model_config = ConfigDict(frozen=True)

    amount: int = Field(50, ge=0, le=100)
    photo: Picture = ""
    more: tuple[Picture, ...] = ()
    agreed: bool = Field(False, json_schema_extra={"personal": True})


class Needy(BaseModel):
    needed: int


def a_postprocessor(id: str, model: type[BaseModel]) -> Postprocessor:
    return SimpleNamespace(id=id, title=id.title(), params_model=model)  # type: ignore[return-value]


SECTIONS = sections_of([a_postprocessor("tint", Params), a_postprocessor("blur", Params)])


def a_form(**tint: Any) -> dict[str, Any]:
    values = {"amount": 50, "photo": [], "more": [], "agreed": False}
    both = {"tint": True, "blur": False}
    return {
        **both,
        **{f"{id}.{name}": value for id in both for name, value in values.items()},
        **{f"tint.{name}": value for name, value in tint.items()},
    }


def keep(path: Path) -> str:
    return f"name of {path.name}"


def test_what_is_switched_on_becomes_a_step_and_comes_back(tmp_path: Path) -> None:
    photos = [tmp_path / name for name in ("one.png", "two.png")]
    form = a_form(amount=70, photo=photos[:1], more=photos, agreed=True)
    steps = steps_of(SECTIONS, form, keep)
    names = ["name of one.png", "name of two.png"]
    assert steps == [
        {"id": "tint", "params": {"amount": 70, "photo": names[0], "more": names, "agreed": True}},
    ]
    places = dict(zip(names, photos, strict=True))
    values, notes = values_of(SECTIONS, steps, places.get)
    assert values == {"tint": True, "tint.amount": 70, "tint.photo": photos[:1], "tint.more": photos, "blur": False}
    assert notes == []


def test_pictures_that_are_gone_are_left_out() -> None:
    steps = [{"id": "tint", "params": {"photo": "gone", "more": ["gone"]}}]
    values, _ = values_of(SECTIONS, steps, lambda name: None)
    assert (values["tint.photo"], values["tint.more"]) == ([], [])


def test_a_value_that_the_slider_cannot_show_is_told() -> None:
    values, notes = values_of(SECTIONS, [{"id": "tint", "params": {"amount": 500}}], lambda name: None)
    assert values["tint.amount"] == 50
    assert notes == ["Tint: Amount cannot be shown here and is as by default."]


def test_an_error_names_its_control() -> None:
    with pytest.raises(InvalidRequest) as wrong:
        steps_of(SECTIONS, a_form(amount=None), keep)
    assert wrong.value.field == "tint.amount"

    def unreadable(path: Path) -> str:
        raise UnreadableImage(f"'{path.name}' is not a picture.")

    with pytest.raises(InvalidRequest, match=r"More: 'notes\.txt' is not a picture") as refused:
        steps_of(SECTIONS, a_form(more=[Path("notes.txt")]), unreadable)
    assert refused.value.field == "tint.more"


def test_what_is_switched_off_is_not_read() -> None:
    assert steps_of(SECTIONS, a_form() | {"tint": False, "tint.amount": None}, keep) == []


def test_remembered_switches_and_values_are_checked_and_pictures_are_not_remembered() -> None:
    remembered = {
        "tint": True,
        "blur": "yes",
        "tint.amount": 7,
        "blur.amount": 700,
        "tint.photo": "x",
        "gone.amount": 1,
    }
    assert usable_values(SECTIONS, remembered) == {"tint": True, "tint.amount": 7}


def test_settings_that_cannot_be_drawn_say_why_and_leave_the_others_alone() -> None:
    needy, tint = sections_of([a_postprocessor("needy", Needy), a_postprocessor("tint", Params)])
    assert needy.problem.startswith("Needy cannot show its settings: ValidationError")
    assert not tint.problem
    assert steps_of([needy], {}, keep) == []


def test_a_path_that_was_not_uploaded_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    forged = {"files": [{"path": str(tmp_path / "private.png")}]}
    with pytest.raises(ValidationError):
        PicturesValue.model_validate(forged, context={"validate_meta": True})  # as Gradio does with what it is sent

"""Postprocess steps as a user types them."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

from tests.generation.additions import Added, Step
from webui.command_steps import with_steps
from webui.errors import InvalidRequest, UnreadableImage
from webui.generation.postprocess import Picture
from webui.generation.request import GenerationRequest
from webui.images.store import HeldPictures


class Inner(BaseModel):
    weight: float = 0.5


class Params(BaseModel):
    amount: int = 50
    words: str = ""
    flag: bool = False
    faces: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    face: Picture = ""
    photos: tuple[Picture, ...] = ()
    inner: Inner = Inner()


ADDED = Added([Step(params_model=Params), Step(id="invert", title="Invert", params_model=Params)])


def typed(*assignments: str, ids: tuple[str, ...] = (), pictures: HeldPictures | None = None) -> dict[str, Any]:
    """The parameters of each step."""
    held = HeldPictures() if pictures is None else pictures
    request = GenerationRequest(checkpoint="tiny")
    asked = with_steps(request, ids, assignments, additions=ADDED, pictures=held, max_pixels=10_000)
    return {step.id: step.params for step in asked.postprocess}


def test_with_and_set_name_the_steps_and_their_order() -> None:
    assert list(typed("invert.amount=3")) == ["invert"]
    assert list(typed("brighten.amount=3", "brighten.words=x", ids=("invert",))) == ["invert", "brighten"]
    assert typed(ids=("brighten",))["brighten"] == Params().model_dump(mode="json")
    assert typed() == {}


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("amount=3", "amount", 3),
        ("words=3", "words", "3"),
        ("words=a, b = c", "words", "a, b = c"),
        ("words=", "words", ""),
        ("flag=true", "flag", True),
        ("flag=on", "flag", True),
        ("faces=0,2", "faces", [0, 2]),
        ("faces=1", "faces", [1]),
        ("faces=[1, 2]", "faces", [1, 2]),
        ("names=ann, bob", "names", ["ann", "bob"]),
        ("inner.weight=0.25", "inner", {"weight": 0.25}),
    ],
)
def test_a_value_is_what_its_field_takes(text: str, field: str, value: Any) -> None:
    assert typed(f"brighten.{text}")["brighten"][field] == value


def test_pictures_are_given_by_path(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (5, 4), colour).save(tmp_path / f"{name}.png")
    pictures = HeldPictures()
    params = typed(
        f"brighten.face={tmp_path / 'a.png'}",
        f"brighten.photos={tmp_path / 'a.png'}",
        f"brighten.photos={tmp_path / 'b.png'}",
        pictures=pictures,
    )["brighten"]
    assert pictures.get(params["face"]).getpixel((0, 0)) == (255, 0, 0)
    assert [pictures.get(name).getpixel((0, 0)) for name in params["photos"]] == [(255, 0, 0), (0, 0, 255)]
    assert typed(f"brighten.face={tmp_path / 'a.png'}", "brighten.face=")["brighten"]["face"] == ""
    with pytest.raises(UnreadableImage, match=r"no file .*c\.png"):
        typed(f"brighten.face={tmp_path / 'c.png'}")


@pytest.mark.parametrize(
    ("assignment", "field", "said"),
    [
        ("brighten", "set", "not of the form ID.FIELD=VALUE"),
        ("brighten=3", "set", "not of the form"),
        ("brighten.amount", "set", "not of the form"),
        ("darken.amount=3", "postprocess", "'darken' is not installed"),
        ("brighten.amout=3", "brighten.amout", "Did you mean 'amount'"),
        ("brighten.amount=much", "brighten.amount", "cannot be 'much'"),
    ],
)
def test_mistakes_are_named(assignment: str, field: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        typed(assignment)
    assert caught.value.field == field

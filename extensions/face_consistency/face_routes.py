"""The extension's HTTP: a picture through the stages, which models and saved faces there are, consent.

All that changes or describes a face needs `"consent": true` in the very call. Embeddings are never sent.
"""

import base64
import binascii
import json
from typing import Any

from fastapi import APIRouter, HTTPException
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webui.hooks import ExtensionContext, InvalidRequest, flatten, open_image

from .checking import check_faces
from .consent import NOT_GIVEN, TERMS
from .engine import Engine, engine_of
from .face_models import Method, SavedFace
from .params import MAX_PHOTOS, FaceParams
from .process import improve_faces
from .report import processed_of
from .saving import encoded, save_person
from .sources import Given


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProcessBody(Body):
    """Pictures are base64, with or without "data:...;base64,". `params` are fields of FaceParams."""

    consent: bool = False
    image: str
    sources: list[str] = Field(default_factory=list, max_length=MAX_PHOTOS)
    reference: str = ""
    params: dict[str, Any] = Field(default_factory=dict)


class FaceBody(Body):
    consent: bool = False
    name: str
    photos: list[str] = Field(min_length=1, max_length=MAX_PHOTOS)
    method: Method = "mean"
    replace: bool = False


class ConsentBody(Body):
    consent: bool = False


def face_routes(context: ExtensionContext) -> APIRouter:
    router = APIRouter()
    engine = engine_of(context)

    @router.post("/process")
    def process(body: ProcessBody) -> dict[str, Any]:
        _agree(body.consent, engine)
        return processed(body, engine, context)

    @router.get("/models")
    def models() -> dict[str, Any]:
        return {"models": [described(model) for model in engine.backends.models().entries]}

    @router.get("/faces")
    def faces() -> dict[str, Any]:
        return {"faces": [face_words(face) for face in engine.saved.list()]}

    @router.post("/faces")
    def save_face(body: FaceBody) -> dict[str, Any]:
        _agree(body.consent, engine)
        photos = [_image(photo, "photos", context) for photo in body.photos]
        return face_words(save_person(body.name, photos, engine, method=body.method, replace=body.replace))

    @router.delete("/faces/{name}")
    def delete_face(name: str) -> dict[str, Any]:
        engine.saved.delete(name)
        return {"deleted": name}

    @router.get("/consent")
    def consent() -> dict[str, str]:
        return {"terms": TERMS, "given": engine.consent.given()}

    @router.post("/consent")
    def give_consent(body: ConsentBody) -> dict[str, str]:
        _agree(body.consent, engine)
        return consent()

    @router.delete("/consent")
    def take_consent_back() -> dict[str, str]:
        engine.consent.take_back()
        return consent()

    return router


def processed(body: ProcessBody, engine: Engine, context: ExtensionContext) -> dict[str, Any]:
    if {"photos", "reference"} & body.params.keys():
        raise InvalidRequest("params", "Pictures are given as `sources` and `reference`, not among `params`.")
    params = _params(body.params)
    if params.refine:
        raise InvalidRequest("params", "Refining needs the queue: send the step with a generation or the Extras page.")
    told = params.model_copy(update={"photos": ("",) * len(body.sources), "reference": body.reference})
    check_faces(told, engine, has_init=False, can_refine=False)
    outcome = improve_faces(
        _image(body.image, "image", context),
        params,
        given=Given(
            photos=tuple(_image(source, "sources", context) for source in body.sources),
            saved=engine.saved.read(params.saved_face) if params.saved_face else None,
            reference=_image(body.reference, "reference", context) if body.reference else None,
        ),
        engine=engine,
    )
    made = processed_of(outcome.image, outcome.faces, outcome.reason, outcome.notes)
    data = encoded(made.image, made.fields, "png", is_changed=made.is_composite)
    return {"image": base64.b64encode(data).decode(), "notes": list(made.notes), **made.details}


def _params(values: dict[str, Any]) -> FaceParams:
    try:
        return FaceParams.model_validate_json(json.dumps({**values, "consent": True}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(field, f"{field}: {first['msg']}.") from error


def described(model: Any) -> dict[str, Any]:
    names = ("name", "role", "size_bytes", "size_px", "licence", "problem")
    return {name: getattr(model, name) for name in names}


def face_words(face: SavedFace) -> dict[str, Any]:
    """Without the numbers."""
    return {
        "name": face.name,
        "can_be_measured": not face.cannot_compare_message,
        "can_be_swapped_in": not face.cannot_swap_message,
        "num_photos": face.num_photos,
        "created": face.created,
        "is_reactor": face.is_reactor,
        "problem": face.problem,
    }


def _agree(consent: bool, engine: Engine) -> None:
    if not consent:
        raise HTTPException(403, f'{NOT_GIVEN} Send "consent": true with the call to say: {TERMS}')
    engine.consent.give()


def _image(text: str, field: str, context: ExtensionContext) -> Image.Image:
    encoded_part = text.split(",", 1)[1] if text.startswith("data:") and "," in text else text
    try:
        data = base64.b64decode(encoded_part, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(field, f"`{field}` is not base64.") from error
    return flatten(open_image(data, max_pixels=context.max_image_pixels, name=field))

"""The face stays the person's own after the body was changed; and faces and hands, found and repainted.

What is heavy is imported when it is first needed: the program starts with all extensions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from webui.hooks import Command, ExtensionContext, FaceReader, Postprocessor, SubjectMasker, Tab, hookimpl

from .params import FaceSettings
from .postprocessor import Detailer, FaceConsistency

if TYPE_CHECKING:
    from fastapi import APIRouter

    from .face import Pixels
    from .masks import Mask


@hookimpl
def settings_model() -> type[BaseModel]:
    return FaceSettings


@hookimpl
def postprocessors(context: ExtensionContext) -> Sequence[Postprocessor]:
    # In the order in which they run: the detailer knows nobody, so the person's own face comes after it.
    return Detailer(context), FaceConsistency(context)


@hookimpl
def tabs(context: ExtensionContext) -> Sequence[Tab]:
    def build() -> None:
        from .tab import build_tab

        build_tab(context)

    return (Tab(id="faces", label="Faces", build=build),)


@hookimpl
def routes(context: ExtensionContext) -> "APIRouter":
    from .face_routes import face_routes

    return face_routes(context)


@hookimpl
def commands(context: ExtensionContext) -> Sequence[Command]:
    from .command import face_command

    return (face_command(context),)


@hookimpl
def face_reader(context: ExtensionContext) -> FaceReader:
    from .engine import engine_of
    from .reading import PhotoFaces

    return PhotoFaces(engine_of(context).models)


@hookimpl
def subject_maskers(context: ExtensionContext) -> Sequence[SubjectMasker]:
    def people(pixels: "Pixels") -> "Mask":
        from .engine import engine_of
        from .person import person_mask

        return person_mask(pixels, models=engine_of(context).models)

    return (SubjectMasker(id="people", label="People", mask=people),)


@hookimpl
def unload(context: ExtensionContext) -> None:
    from .engine import engine_of

    engine_of(context).close()

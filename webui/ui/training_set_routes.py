"""The Training tab's routes to photo sets: make and fill them, look at them, and change what is said of photos.

Sets belong to the installation: whoever may open the page has its own sets. Folders of this machine are for whoever
sits at it.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from webui.errors import InvalidRequest, StorageError
from webui.services import Services
from webui.training.config import Subject
from webui.training.data.captions import prefixed, replaced, tag_replaced, tags_of, without_tag
from webui.training.data.edits import Edit
from webui.training.data.set_checks import Purpose
from webui.training.data.set_contents import SetPhoto
from webui.training.data.sets import OpenSet, PhotoSets
from webui.training.data.uploads import MOST_BYTES, Refused, Upload, incoming
from webui.ui.extensions_page import comes_from_here
from webui.ui.refusing import RefusingRoute
from webui.ui.training_sets import fix_of, set_json, sets_json, taken_json, why_no_folders

MOST_FILES = 1000
"""In one request."""
CHUNK_BYTES = 1 << 20
MOST_MASK_BYTES = 50_000_000
SMALLEST_CROP = 8
ANSWER_WITHIN_S = 0.4
"""So long a request waits for checks, so that small sets are there at once and as a whole."""
CACHED = {"Cache-Control": "private, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "private, no-cache"}
Name = Annotated[str, Field(max_length=1000)]
Names = Annotated[list[Name], Field(max_length=100_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSet(_Body):
    """Of name and folder, one is given. `similar`: a free name like it will do."""

    name: str = Field(default="", max_length=1000)
    similar: bool = False
    folder: str = Field(default="", max_length=4096)


class EditWish(_Body):
    """What is not given stays as it is; `crop` null takes the whole photo."""

    names: Names
    excluded: bool = False
    crop: tuple[int, int, int, int] | None = None
    repeats: int | None = Field(default=None, ge=1, le=1000)


class FixWish(_Body):
    problem: str = Field(max_length=100)
    fix: str = Field(max_length=100)


class CaptionWish(_Body):
    """`text` null: nothing is said of the photo."""

    name: Name
    text: str | None = Field(max_length=10_000)


class ReplaceWish(_Body):
    """`names` null: all photos. `whole_tag`: only tags that are `find` and nothing else."""

    find: str = Field(min_length=1, max_length=1000)
    replace: str = Field(default="", max_length=1000)
    whole_tag: bool = False
    whole_words: bool = True
    names: Names | None = None


class PrefixWish(_Body):
    text: str = Field(min_length=1, max_length=1000)
    names: Names | None = None


class TagWish(_Body):
    tag: str = Field(min_length=1, max_length=1000)
    names: Names | None = None


class _Sets:
    """The sets, for who asks."""

    def __init__(self, services: Services) -> None:
        self._settings = services.settings
        self.sets: PhotoSets = services.photo_sets

    def why_no_folders(self, request: Request) -> str:
        client = "" if request.client is None else request.client.host
        return why_no_folders(self._settings, from_here=comes_from_here(client, request.headers))

    def open(self, request: Request, id: str) -> OpenSet:
        """Raises InvalidRequest for sets that are not there, or not for them."""
        info = self.sets.info(id)
        if not info.own and (reason := self.why_no_folders(request)):
            raise InvalidRequest("set", reason)
        return self.sets.opened(info.id)


def build_training_set_router(services: Services) -> APIRouter:
    router = APIRouter(route_class=RefusingRoute, prefix="/training/sets")
    sets = _Sets(services)
    _add_sets(router, sets)
    _add_files(router, sets)
    _add_pictures(router, sets)
    _add_edits(router, sets)
    _add_captions(router, sets)
    _add_masks(router, sets)
    return router


def _purpose(
    subject: Subject = "person",
    resolution: Annotated[int, Query(ge=64, le=2048)] = 512,
    bucket_step: Annotated[int, Query(ge=8, le=256)] = 64,
    holdout: Annotated[int | None, Query(ge=0)] = None,
    trigger: Annotated[str, Query(max_length=64)] = "",
    class_word: Annotated[str, Query(max_length=64)] = "",
    masks: bool = False,
) -> Purpose:
    return Purpose(
        subject=subject,
        resolution=resolution // 8 * 8,
        bucket_step=bucket_step // 8 * 8,
        holdout=holdout,
        trigger=trigger,
        class_word=class_word,
        masks=masks,
    )


def _add_sets(router: APIRouter, sets: _Sets) -> None:
    @router.get("")
    def list_sets(request: Request) -> dict[str, Any]:
        return sets_json(sets.sets, sets.why_no_folders(request))

    @router.post("")
    def new_set(request: Request, wish: NewSet) -> dict[str, str]:
        if bool(wish.name.strip()) == bool(wish.folder.strip()):
            raise InvalidRequest("name", "A set has a name, or a folder of this machine.", hint="Give one of them.")
        if not wish.folder.strip():
            return {"id": sets.sets.create(wish.name, similar=wish.similar)}
        if reason := sets.why_no_folders(request):
            raise InvalidRequest("folder", reason)
        return {"id": sets.sets.refer(wish.folder)}

    @router.delete("/{id}")
    def remove(request: Request, id: str) -> dict[str, bool]:
        sets.sets.remove(sets.open(request, id).photos.info.id)
        return {"done": True}

    @router.get("/{id}")
    def show(
        request: Request,
        id: str,
        purpose: Annotated[Purpose, Depends(_purpose)],
        known: Annotated[str, Query(max_length=100)] = "",
    ) -> Response:
        with_path = not sets.why_no_folders(request)
        wait_s = 0.0 if known else ANSWER_WITHIN_S
        opened = sets.open(request, id)
        return JSONResponse(set_json(opened, purpose, known=known, wait_s=wait_s, with_path=with_path))


def _add_files(router: APIRouter, sets: _Sets) -> None:
    @router.post("/{id}/files")
    async def add_files(request: Request, id: str) -> dict[str, Any]:
        info = sets.open(request, id).photos.info
        sets.sets.require_own(info)
        try:
            async with request.form(max_files=MOST_FILES, max_fields=10) as form:
                files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
                return await run_in_threadpool(_take, sets.sets, info.id, files)
        except HTTPException as error:
            raise InvalidRequest(
                "files", f"The files could not be taken: {error.detail}", hint=f"Send {MOST_FILES} at once at most."
            ) from error


def _take(sets: PhotoSets, id: str, files: list[UploadFile]) -> dict[str, Any]:
    with incoming(sets.source(id)) as room:
        uploads, refused = [], []
        for i, file in enumerate(files):
            name, path = file.filename or "file", room / f"{i}{Path(file.filename or '').suffix[:10]}"
            if _saved(file, path):
                uploads.append(Upload(name=name, path=path))
            else:
                sentence = f"'{name}' is larger than {MOST_BYTES // 10**6} MB."
                refused.append(Refused(name=name, sentence=sentence))
        taken = sets.add(id, uploads, room)
    return taken_json(replace(taken, refused=[*refused, *taken.refused]))


def _saved(file: UploadFile, path: Path) -> bool:
    """Whether it is small enough. Raises StorageError."""
    if file.size is not None and file.size > MOST_BYTES:
        return False
    try:
        with path.open("wb") as sink:
            shutil.copyfileobj(file.file, sink, CHUNK_BYTES)
    except OSError as error:
        raise StorageError(
            f"'{file.filename}' could not be saved: {error.strerror or error}.", hint="Check that the disk has room."
        ) from error
    return True


def _add_pictures(router: APIRouter, sets: _Sets) -> None:
    @router.get("/{id}/pictures/{name:path}")
    def picture(
        request: Request, id: str, name: str, size: Literal["thumb", "large", "mask"] = "thumb", v: str = ""
    ) -> Response:
        photo = sets.open(request, id).photos.contents().photo(name)
        headers = CACHED if v else FRESH
        try:
            if size == "mask":
                return Response(
                    sets.sets.thumbnails.mask(photo, sets.sets.reader), headers=FRESH, media_type="image/png"
                )
            data = sets.sets.thumbnails.get(photo.path, size, sets.sets.reader)
        except OSError as error:
            raise StorageError(f"'{name}' cannot be read: {error.strerror or error}.") from error
        return Response(data, headers=headers, media_type="image/jpeg")


def _add_edits(router: APIRouter, sets: _Sets) -> None:
    @router.post("/{id}/edits")
    def edit(request: Request, id: str, wish: EditWish) -> dict[str, bool]:
        opened = sets.open(request, id)
        given = {name: getattr(wish, name) for name in wish.model_fields_set - {"names"}}
        if not given or not wish.names:
            raise InvalidRequest("names", "Nothing was chosen to be changed.")
        contents = opened.photos.contents()
        edits = {name: _edit(contents.photo(name), opened, given) for name in wish.names}
        with opened.photos.changing(_what(given, len(edits))) as change:
            return {"changed": change.edit(edits)}

    @router.post("/{id}/fix")
    def apply_fix(request: Request, id: str, wish: FixWish) -> dict[str, bool]:
        opened = sets.open(request, id)
        fix = fix_of(opened.checker.known_problems(), wish.problem, wish.fix)
        if fix is None:
            raise InvalidRequest("problem", "This problem is not there any more.", hint="Look at the set as it is now.")
        there = {photo.name for photo in opened.photos.photos()}
        with opened.photos.changing(fix.label) as change:
            return {"changed": change.edit({name: edit for name, edit in fix.edits.items() if name in there})}

    @router.post("/{id}/undo")
    def undo(request: Request, id: str) -> dict[str, str]:
        return {"undone": sets.open(request, id).photos.undo()}


def _edit(photo: SetPhoto, opened: OpenSet, given: Mapping[str, Any]) -> Edit:
    values = dict(given)
    if values.get("crop") is not None:
        values["crop"] = _crop(photo, opened, values["crop"])
    if "repeats" in values and values["repeats"] == photo.listed.repeats:
        values["repeats"] = None
    return Edit(**values)


def _crop(photo: SetPhoto, opened: OpenSet, crop: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """Within the photo; None for all of it. Raises InvalidRequest for next to nothing."""
    width, height = opened.checker.size_of(photo)
    left, top, right, bottom = max(0, crop[0]), max(0, crop[1]), crop[2], crop[3]
    if width:
        right, bottom = min(right, width), min(bottom, height)
    if right - left < SMALLEST_CROP or bottom - top < SMALLEST_CROP:
        raise InvalidRequest(
            "crop",
            f"The part of '{photo.name}' would be {max(0, right - left)} x {max(0, bottom - top)} pixels.",
            hint=f"Take {SMALLEST_CROP} x {SMALLEST_CROP} at least.",
        )
    return None if (left, top, right, bottom) == (0, 0, width, height) else (left, top, right, bottom)


def _what(given: Mapping[str, Any], count: int) -> str:
    photos = "1 photo" if count == 1 else f"{count} photos"
    if "excluded" in given:
        return f"{photos} {'left out' if given['excluded'] else 'taken in again'}"
    return f"crop of {photos}" if "crop" in given else f"repeats of {photos}"


def _add_captions(router: APIRouter, sets: _Sets) -> None:
    @router.post("/{id}/captions")
    def caption(request: Request, id: str, wish: CaptionWish) -> dict[str, int]:
        opened = sets.open(request, id)
        with opened.photos.changing(f"caption of '{wish.name}'") as change:
            return {"changed": int(change.caption(wish.name, wish.text))}

    @router.post("/{id}/captions/replace")
    def replace_text(request: Request, id: str, wish: ReplaceWish) -> dict[str, int]:
        def new(caption: str) -> str:
            if wish.whole_tag:
                return tag_replaced(caption, wish.find, wish.replace)
            return replaced(caption, wish.find, wish.replace, whole_words=wish.whole_words)

        what = f"'{wish.find}' replaced by '{wish.replace}'"
        return _rewritten(sets.open(request, id), wish.names, what, lambda old: None if old is None else new(old))

    @router.post("/{id}/captions/prefix")
    def prefix(request: Request, id: str, wish: PrefixWish) -> dict[str, int]:
        what = f"'{wish.text}' put in front"
        return _rewritten(sets.open(request, id), wish.names, what, lambda old: prefixed(old or "", wish.text))

    @router.post("/{id}/captions/remove-tag")
    def remove_tag(request: Request, id: str, wish: TagWish) -> dict[str, int]:
        def new(caption: str) -> str:
            gone = without_tag(caption, wish.tag)
            return gone if len(tags_of(gone)) < len(tags_of(caption)) else caption

        what = f"tag '{wish.tag}' removed"
        return _rewritten(sets.open(request, id), wish.names, what, lambda old: None if old is None else new(old))


def _rewritten(
    opened: OpenSet, names: list[str] | None, what: str, new: Callable[[str | None], str | None]
) -> dict[str, int]:
    """Captions of `names`, or of all photos of the subject."""
    wanted = None if names is None else set(names)
    photos = [
        photo for photo in opened.photos.photos() if (not photo.is_prior if wanted is None else photo.name in wanted)
    ]
    with opened.photos.changing(what) as change:
        return {"changed": sum(change.caption(photo.name, new(photo.caption)) for photo in photos)}


def _add_masks(router: APIRouter, sets: _Sets) -> None:
    @router.post("/{id}/masks/{name:path}")
    async def paint(request: Request, id: str, name: str) -> dict[str, bool]:
        body = await _body(request)
        return await run_in_threadpool(_mask, sets.open(request, id), name, body)

    @router.delete("/{id}/masks/{name:path}")
    def remove(request: Request, id: str, name: str) -> dict[str, bool]:
        return _mask(sets.open(request, id), name, None)


def _mask(opened: OpenSet, name: str, picture: bytes | None) -> dict[str, bool]:
    with opened.photos.changing(f"mask of '{name}'") as change:
        return {"changed": change.mask(name, picture)}


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_MASK_BYTES:
            raise InvalidRequest("mask", f"The mask is larger than {MOST_MASK_BYTES // 10**6} MB.")
    return bytes(data)

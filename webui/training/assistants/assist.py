"""One run of an assistant over photos: captions or masks, photo by photo. What is done stays when it is stopped.

A photo that cannot be read, or of which nothing can be made, is named in the end and holds up no other.
"""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Protocol

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from webui.errors import InvalidRequest, WebUIError
from webui.jobs.events import JobEvent, Progress
from webui.training.assistants import masks, taggers
from webui.training.assistants.catalog import Assistant, Kind, open_captioner, open_masker
from webui.training.assistants.events import Assisted
from webui.training.data.captions import CAPTION_SUFFIXES, joined_lines, prefixed, read_caption
from webui.training.data.listings import MASK_END
from webui.training.data.photos import open_pixels

MAX_TOLD = 200
"""Photos with a problem that are named."""

Share = Annotated[float, Field(ge=0, le=1)]
Work = Callable[[Image.Image], "str | bytes"]


class AssistRequest(BaseModel):
    """What is asked of an assistant; with "set" also the payload of the job. `names` None is all that are not left out.

    `threshold` None is the kind's own. `without` are tags that are never written, `prefix` (the trigger word) stands
    in front of captions. `grow` and `feather` as in Outline.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    assistant: str = Field(min_length=1, max_length=255)
    kind: Kind
    overwrite: bool = False
    names: tuple[str, ...] | None = Field(default=None, max_length=100_000)
    threshold: Share | None = None
    character_threshold: Share = taggers.CHARACTER_THRESHOLD
    without: tuple[Annotated[str, Field(max_length=200)], ...] = Field(default=(), max_length=1000)
    prefix: str = Field(default="", max_length=500)
    grow: float = Field(default=1.0, ge=-10, le=10)
    feather: float = Field(default=1.0, ge=0, le=10)


class PhotoFile(Protocol):
    """A photo as it lies in its set."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def caption(self) -> str | None: ...
    @property
    def mask(self) -> Path | None: ...
    @property
    def excluded(self) -> bool: ...
    @property
    def is_prior(self) -> bool: ...


class Changes(Protocol):
    """Where captions and masks (PNG) go, each at once; whether it was another one before."""

    def caption(self, name: str, text: str | None) -> bool: ...
    def mask(self, name: str, picture: bytes | None) -> bool: ...


def chosen_photos(photos: Sequence[PhotoFile], names: Collection[str] | None) -> list[PhotoFile]:
    """Those of `names`, or all that are not left out. Raises InvalidRequest for a name that is not there."""
    if names is None:
        return [photo for photo in photos if not photo.excluded]
    wanted = set(names)
    if unknown := sorted(wanted - {photo.name for photo in photos}):
        raise InvalidRequest("names", f"There is no photo '{unknown[0]}' in the set.", hint="Reload the page.")
    return [photo for photo in photos if photo.name in wanted]


def assist(
    request: AssistRequest,
    assistant: Assistant,
    photos: Sequence[PhotoFile],
    changes: Changes,
    *,
    report: Callable[[JobEvent], None],
    check: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> Assisted:
    """`check` is asked before each photo, and stops by raising. Raises WebUIError where no network can be opened."""
    report(Progress(step=0, num_steps=len(photos), label=f"Opening {assistant.name}"))
    work = _captions(request, assistant) if request.kind == "captions" else _masks(request, assistant)
    changed, kept, worked = 0, 0, 0
    problems: list[tuple[str, str]] = []
    started_at = clock()
    try:
        for i, photo in enumerate(photos):
            check()
            left = (clock() - started_at) / worked * (len(photos) - i) if worked else None
            report(Progress(step=i, num_steps=len(photos), label=photo.name, seconds_left=left))
            if _has(photo, request.kind) and not request.overwrite:
                kept += 1
                continue
            worked += 1
            try:
                if _write(changes, photo, work(open_pixels(photo.path)), request.prefix):
                    changed += 1
                else:
                    kept += 1
            except (WebUIError, OSError, MemoryError) as error:
                problems.append((photo.name, _told(error)))
    finally:
        done = Assisted(kind=request.kind, changed=changed, kept=kept, problems=tuple(problems[:MAX_TOLD]))
        report(done)
    return done


def _captions(request: AssistRequest, assistant: Assistant) -> Work:
    general = taggers.GENERAL_THRESHOLD if request.threshold is None else request.threshold
    thresholds = taggers.Thresholds(general=general, character=request.character_threshold)
    captioner = open_captioner(assistant, thresholds, request.without)

    def caption(image: Image.Image) -> str:
        text = joined_lines(captioner.caption(image).splitlines())
        if not text:
            raise WebUIError("Nothing was found to say of it.")
        return text

    return caption


def _masks(request: AssistRequest, assistant: Assistant) -> Work:
    threshold = masks.THRESHOLD if request.threshold is None else request.threshold
    outline = masks.Outline(threshold=threshold, grow=request.grow, feather=request.feather)
    masker = open_masker(assistant)
    return lambda image: masks.png_of(masks.mask_of(masker.mask(image), outline))


def _write(changes: Changes, photo: PhotoFile, made: str | bytes, prefix: str) -> bool:
    if isinstance(made, bytes):
        return changes.mask(photo.name, made)
    # A picture of the class is none of the subject, whose name the prefix is.
    return changes.caption(photo.name, made if photo.is_prior else prefixed(made, prefix))


def _has(photo: PhotoFile, kind: Kind) -> bool:
    """Also what was put beside the photo since the set was read."""
    if kind == "masks":
        return photo.mask is not None or photo.path.with_name(f"{photo.path.stem}{MASK_END}.png").is_file()
    if photo.caption:
        return True
    beside = (photo.path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    return any(path.is_file() and read_caption(path) for path in beside)


def _told(error: Exception) -> str:
    if isinstance(error, WebUIError):
        return error.message
    reason = "there is not enough memory" if isinstance(error, MemoryError) else getattr(error, "strerror", None)
    return f"It could not be done: {reason or error}."

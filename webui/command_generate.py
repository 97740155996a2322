"""`launch.py generate`: options to a request, events to lines on the terminal. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from webui.errors import InvalidRequest, ModelNotFound, UnreadableImage
from webui.generation.events import ImageReady, Note
from webui.generation.parameters import build_request, parse_parameters
from webui.generation.request import GenerationRequest
from webui.images.masks import load_mask
from webui.images.reading import flatten, open_image
from webui.jobs.events import JobEvent, Progress
from webui.library.catalog import STARTER, CheckpointInfo

SIZE_STEP_PX = 8


def request_from_options(
    values: Mapping[str, Any],
    *,
    init: Path | None,
    mask: Path | None,
    checkpoints: Sequence[CheckpointInfo],
    max_pixels: int,
) -> GenerationRequest:
    """`values` are fields of `Parameters` as typed.

    A size that is not given is the picture's or the checkpoint's own; steps and CFG scale are the checkpoint's.
    """
    if mask is not None and init is None:
        raise InvalidRequest("mask", "--mask needs a picture to paint on.", hint="Add --init PICTURE.")
    usable = [info for info in checkpoints if not info.problem]
    if not usable:
        raise ModelNotFound("checkpoint", str(values.get("checkpoint", STARTER)), [])
    preferred = {info.name: info for info in usable}
    info = preferred.get(str(values.get("checkpoint", STARTER)), usable[0])
    image = flatten(open_file(init, max_pixels)) if init else None
    width, height = _native_or_own_size(image, info.native_size)
    own = {
        "checkpoint": info.name,
        "width": width,
        "height": height,
        "num_inference_steps": info.num_inference_steps,
        "guidance_scale": info.guidance_scale,
    }
    filled: dict[str, Any] = {**own, **values}
    filled["task"] = "txt2img" if init is None else "img2img" if mask is None else "inpaint"
    return build_request(
        parse_parameters(filled), image=image, mask=load_mask(open_file(mask, max_pixels)) if mask else None
    )


def open_file(path: Path, max_pixels: int) -> Image.Image:
    """The picture at `path`. Raises UnreadableImage, also where there is no file."""
    if not path.is_file():
        raise UnreadableImage(f"There is no file {path}.", hint="Check the path.")
    return open_image(path, max_pixels=max_pixels)


def _native_or_own_size(image: Image.Image | None, native_size: int) -> tuple[int, int]:
    """The picture's size rounded down to what models take; the native square without a picture."""
    if image is None:
        return native_size, native_size
    return tuple(max(side // SIZE_STEP_PX * SIZE_STEP_PX, 64) for side in image.size)  # type: ignore[return-value]


class CommandReport:
    """Writes progress over one line of a terminal; notes get lines of their own. Elsewhere only notes are written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()

    def __call__(self, event: JobEvent) -> None:
        match event:
            case Note():
                self._stream.write(f"{event.message}\n")
            case Progress() if self._live:
                left = f", {event.seconds_left:.0f} s left" if event.seconds_left is not None else ""
                self._stream.write(f"\r{event.label} {event.step}/{event.num_steps}{left}\x1b[K")
            case ImageReady() if self._live:
                self._stream.write("\r\x1b[K")
        self._stream.flush()

    def close(self) -> None:
        """Leaves the line clean."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

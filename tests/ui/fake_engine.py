"""A runner that draws plain pictures and reports what the real engine reports, for tests of the pages' behaviour.

Only what runs is replaced: queue, worker, events, files and pages are the real ones.
"""

import colorsys
import io
import threading
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, PngImagePlugin

from webui.errors import OutOfDeviceMemory
from webui.generation.events import ImageReady, Note, StepPreview
from webui.generation.infotext import metadata_of
from webui.generation.request import GenerationRequest
from webui.jobs.cancel import ImageSkipped
from webui.jobs.events import Progress
from webui.jobs.worker import JobContext, Runner
from webui.services import Services

PREVIEW_SIDE_PX = 64


class Gate:
    """Lets a test hold every job at a step."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._steps_left: int | None = None

    def hold(self, *, after_steps: int = 0) -> None:
        """After so many more steps no job gets on until `release`."""
        with self._changed:
            self._steps_left = after_steps
            self._changed.notify_all()

    def release(self) -> None:
        with self._changed:
            self._steps_left = None
            self._changed.notify_all()

    def step(self, check: Callable[[], None]) -> None:
        """Returns when a step may be done; `check` is asked meanwhile, as the real engine does before each step."""
        with self._changed:
            check()
            while self._steps_left == 0:
                self._changed.wait(timeout=0.02)
                check()
            if self._steps_left is not None:
                self._steps_left -= 1


def fake_runner(services: Services, folder: Path, gate: Gate) -> Runner:
    """`folder` takes the pictures. A prompt with the word "fail" fails, one with "crash" has a bug."""

    def run(context: JobContext) -> None:
        request = services.from_payload(context.job.payload)
        if "fail" in request.prompt:
            raise OutOfDeviceMemory("There is not enough memory for 64 x 64.", hint="Use a smaller size.")
        if "crash" in request.prompt:
            raise RuntimeError("a bug, on purpose")
        if "<lora:" in request.prompt:
            context.report(Note(message="The LoRA 'nowhere' was not found."))
        for index in range(request.num_images):
            try:
                _draw(context, request, index, folder, gate)
            except ImageSkipped:
                continue

    return run


def _draw(context: JobContext, request: GenerationRequest, index: int, folder: Path, gate: Gate) -> None:
    steps = request.sampling.num_inference_steps
    total = steps * request.num_images
    seed = (request.seed or 0) + index
    for step in range(steps):
        gate.step(context.cancel.check)
        done = index * steps + step + 1
        context.report(Progress(step=done, num_steps=total, seconds_left=(total - done) * 0.02))
        context.report(StepPreview(jpeg=_jpeg(_picture(request, seed, (step + 1) / steps))))
    path = folder / f"{context.job.id}-{index}.png"
    metadata = metadata_of(request, seed=seed, size=(request.width, request.height))
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", metadata.infotext)
    chunks.add_text("atelier", metadata.request_json)
    _picture(request, seed, 1.0).save(path, pnginfo=chunks)
    context.report(ImageReady(index=index, path=str(path), seed=seed, infotext=metadata.infotext))


def _picture(request: GenerationRequest, seed: int, done: float) -> Image.Image:
    """A disc that grows, in a colour of the seed; over the input picture if there is one."""
    size = (request.width, request.height)
    canvas = Image.new("RGB", size, "#d4d4d8") if request.init is None else request.init.image.resize(size)
    red, green, blue = colorsys.hsv_to_rgb(seed % 97 / 97, 0.5, 0.8)
    radius = min(size) * 0.4 * done
    centre = (size[0] / 2, size[1] / 2)
    box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    ImageDraw.Draw(canvas).ellipse(box, fill=(int(red * 255), int(green * 255), int(blue * 255)))
    return canvas


def _jpeg(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX))
    data = io.BytesIO()
    small.save(data, "JPEG")
    return data.getvalue()

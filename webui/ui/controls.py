"""The user's words in, a GenerationRequest out, and back. The one place where the two vocabularies meet.

A form is a mapping from control names (the table `LABELS`) to what Gradio delivers for them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from webui.errors import InvalidRequest
from webui.generation import parameters as flat
from webui.generation import recommended
from webui.generation.request import (
    MAX_BATCH_SIZE,
    MAX_BATCHES,
    MAX_SEED,
    MAX_SIDE_PX,
    MAX_STEPS,
    GenerationRequest,
)
from webui.images.masks import load_mask
from webui.images.reading import flatten, open_image
from webui.pipeline.samplers import SAMPLERS
from webui.pipeline.schedules import SCHEDULES
from webui.ui.mask_painter import PaintedImage

Task = Literal["txt2img", "img2img", "inpaint", "extras"]
TASKS: tuple[Task, ...] = ("txt2img", "img2img", "inpaint", "extras")

LABELS: Mapping[str, str] = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "sampler": "Sampling method",
    "schedule": "Schedule type",
    "steps": "Steps",
    "cfg_scale": "CFG scale",
    "image_cfg_scale": "Image CFG scale",
    "width": "Width",
    "height": "Height",
    "batch_count": "Batch count",
    "batch_size": "Batch size",
    "seed": "Seed",
    "clip_skip": "Clip skip",
    "vae": "VAE",
    "image_format": "File format",
    "strength": "Denoising strength",
    "resize_mode": "Resize mode",
    "mask_blur": "Mask blur",
    "masked_content": "Masked content",
    "mask_area": "Inpaint area",
    "mask_padding": "Only masked padding",
    "mask_mode": "Mask mode",
    "picture": "Picture",
    "checkpoint": "Checkpoint",
}

RESIZE_MODES = (("Just resize", "stretch"), ("Crop and resize", "crop"), ("Resize and fill", "fill"))
IMAGE_FORMATS = (("PNG", "png"), ("JPEG", "jpeg"), ("WebP", "webp"))
MASK_AREAS = (("Whole picture", "whole"), ("Only masked", "masked"))
MASK_MODES = (("Inpaint masked", "masked"), ("Inpaint not masked", "not masked"))
EXIF_ORIENTATION = 0x0112
MAX_IMAGE_CFG_SCALE = 3.0
MAX_NATIVE_AREAS = 1.5
"""Up to this many times the native area a picture keeps its own size."""
MASKED_CONTENTS = ("fill", "original", "latent noise", "latent nothing")

_PARAMETERS: Mapping[str, str] = {
    "checkpoint": "checkpoint",
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "sampler": "sampler",
    "schedule": "schedule",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "image_cfg_scale": "image_guidance_scale",
    "width": "width",
    "height": "height",
    "batch_count": "num_batches",
    "batch_size": "batch_size",
    "seed": "seed",
    "clip_skip": "clip_skip",
    "vae": "vae",
    "image_format": "image_format",
    "strength": "strength",
    "resize_mode": "resize_mode",
    "mask_blur": "mask_blur_px",
    "masked_content": "mask_content",
    "mask_area": "mask_area",
    "mask_padding": "mask_padding_px",
    "mask_mode": "mask_inverted",
}
"""The parameter that each control sets."""

_CONTROL_OF_FIELD: Mapping[str, str] = {
    **{parameter: control for control, parameter in _PARAMETERS.items()},
    "blur_px": "mask_blur",
    "padding_px": "mask_padding",
    "content": "masked_content",
    "area": "mask_area",
    "image": "picture",
    "mask": "picture",
}
"""Also for the fields of MaskSpec, Img2Img and Inpaint."""

_WHOLE_NUMBERS = frozenset(
    {"steps", "width", "height", "batch_count", "batch_size", "clip_skip", "mask_blur", "mask_padding"}
)
_NUMBERS = frozenset({"cfg_scale", "image_cfg_scale", "strength"})


def build_request(
    task: Task, form: Mapping[str, Any], *, max_pixels: int, steps: Sequence[Mapping[str, Any]] = ()
) -> GenerationRequest:
    """`steps` go through all pictures when they are made: {"id": ..., "params": {...}}.

    Raises InvalidRequest whose `field` is a control's name, or UnreadableImage.
    """
    image = mask = None
    if task != "txt2img":
        image = _picture(form["picture"], max_pixels)
    if task == "inpaint" and image is not None:
        mask = _mask(form["picture"], image, inverted=form["mask_mode"] == "not masked", max_pixels=max_pixels)
    unused = {"checkpoint"} if task == "extras" and not form["checkpoint"] else frozenset[str]()
    values = {
        _PARAMETERS[name]: _value(name, form[name]) for name in _PARAMETERS if name in form and name not in unused
    }
    try:
        parameters = flat.parse_parameters({"checkpoint": "", **values, "task": task, "postprocess": steps})
        return flat.build_request(parameters, image=image, mask=mask)
    except InvalidRequest as error:
        raise _in_user_words(error) from error


def form_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The control values that set these parameters, as far as the controls can show them."""
    form = {name: parameters[parameter] for name, parameter in _PARAMETERS.items() if parameter in parameters}
    for name, to_control in _TO_CONTROL.items():
        if name in form:
            form[name] = to_control(form[name])
    return usable_values(form)


def controls_for(text: str) -> dict[str, list[Any]]:
    """Settings that a model is made for, as [lowest, highest] by control; {} for "".

    Raises InvalidRequest for `recommended.FIELD` if the text cannot be understood, or a control cannot be set to it.
    """
    found: dict[str, list[Any]] = {}
    for name, ends in recommended.parse_recommended(text).ranges.items():
        control = _CONTROL_OF_FIELD[name]
        for end in ends:
            if control not in form_of({name: end}):
                raise InvalidRequest(recommended.FIELD, f"{LABELS[control]} {end:g} cannot be set on the page.")
        found[control] = list(ends)
    return found


def usable_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of remembered or restored values only those that their control can show; the rest keeps its default."""
    return {name: value for name, value in values.items() if name in _SHOWABLE and _SHOWABLE[name](value)}


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height as the picture is looked at, from the header alone; (0, 0) if it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
    return (height, width) if turned else (width, height)


def size_for(picture: tuple[int, int], native: tuple[int, int]) -> tuple[int, int]:
    """A size in the picture's shape and in multiples of 8: its own, or about the native area if it is much larger."""
    width, height = picture
    scale = min(1.0, math.sqrt(MAX_NATIVE_AREAS * native[0] * native[1] / (width * height)))
    if scale < 1:
        scale = math.sqrt(native[0] * native[1] / (width * height))
    return _in_range(width * scale), _in_range(height * scale)


def _in_range(side: float) -> int:
    return min(max(round(side / 8) * 8, 64), MAX_SIDE_PX)


def _value(name: str, value: Any) -> Any:
    """One control's value as its parameter's."""
    if name == "checkpoint" and not value:
        raise InvalidRequest(
            "checkpoint",
            "No checkpoint is chosen.",
            hint="Put one into models/checkpoints, press Refresh in the side bar and choose it.",
        )
    if name in _WHOLE_NUMBERS:
        value = _whole(name, value)
    elif name in _NUMBERS:
        value = _number(name, value)
    return _FROM_CONTROL[name](value) if name in _FROM_CONTROL else value


def _number(name: str, value: Any) -> float:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(name, f"{LABELS[name]} is empty.", hint="Type a number.")
    return value


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise InvalidRequest(name, f"{LABELS[name]} is {value}.", hint="Use a whole number.")
    return int(number)


def _seed(value: Any) -> int | None:
    """Empty and -1 mean: draw one."""
    return None if value in (None, -1) else _whole("seed", value)


_FROM_CONTROL: Mapping[str, Callable[[Any], Any]] = {
    "prompt": lambda text: text or "",
    "negative_prompt": lambda text: text or "",
    "seed": _seed,
    "clip_skip": lambda number: number - 1,
    "mask_mode": lambda mode: mode == "not masked",
}
_TO_CONTROL: Mapping[str, Callable[[Any], Any]] = {
    "seed": lambda seed: -1 if seed is None else seed,
    "clip_skip": lambda number: number + 1,
    "mask_mode": lambda inverted: "not masked" if inverted else "masked",
}
"""Where the words differ and not only the names."""


def _picture(painted: PaintedImage | None, max_pixels: int) -> Image.Image:
    if painted is None or painted.image is None:
        raise InvalidRequest("picture", "There is no picture to start from.", hint="Open, drop or paste one.")
    return flatten(open_image(painted.image, max_pixels=max_pixels, name=painted.image.name))


def _mask(painted: PaintedImage, image: Image.Image, *, inverted: bool, max_pixels: int) -> Image.Image:
    if painted.mask is None:
        mask = Image.new("L", image.size, 0)
    else:
        mask = load_mask(open_image(painted.mask, max_pixels=max_pixels, name=painted.mask.name))
    darkest, brightest = mask.getextrema()
    if inverted and darkest == 255:
        raise InvalidRequest("picture", "Nothing is left to repaint.", hint="The mask covers all, and is inverted.")
    if not inverted and brightest == 0:
        raise InvalidRequest("picture", "The mask is empty.", hint="Paint over what should change, then Generate.")
    return mask


def _in_user_words(error: InvalidRequest) -> InvalidRequest:
    control = _CONTROL_OF_FIELD.get(error.field, error.field)
    label = LABELS.get(control, control)
    return InvalidRequest(control, error.message.replace(error.field, label, 1), hint=error.hint)


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _one_of(choices: Iterable[str]) -> Callable[[Any], bool]:
    known = frozenset(choices)
    return lambda value: isinstance(value, str) and value in known


_SHOWABLE: Mapping[str, Callable[[Any], bool]] = {
    "checkpoint": lambda value: isinstance(value, str),
    "prompt": lambda value: isinstance(value, str),
    "negative_prompt": lambda value: isinstance(value, str),
    "sampler": _one_of(SAMPLERS),
    "schedule": _one_of(SCHEDULES),
    "steps": _between(1, MAX_STEPS),
    "cfg_scale": _between(1, 30),
    "image_cfg_scale": _between(0, MAX_IMAGE_CFG_SCALE),
    "width": _between(64, MAX_SIDE_PX),
    "height": _between(64, MAX_SIDE_PX),
    "batch_count": _between(1, MAX_BATCHES),
    "batch_size": _between(1, MAX_BATCH_SIZE),
    "seed": _between(-1, MAX_SEED),
    "clip_skip": _between(1, 12),
    "vae": lambda value: isinstance(value, str),
    "image_format": _one_of(value for _, value in IMAGE_FORMATS),
    "strength": _between(0, 1),
    "resize_mode": _one_of(value for _, value in RESIZE_MODES),
    "mask_blur": _between(0, 64),
    "masked_content": _one_of(MASKED_CONTENTS),
    "mask_area": _one_of(value for _, value in MASK_AREAS),
    "mask_padding": _between(0, 256),
    "mask_mode": _one_of(value for _, value in MASK_MODES),
}
"""Which values a control can show."""

"""Finds faces, hands or other things and repaints each in its own crop, large enough for the model to do it well.

It knows nothing of who somebody is: the wrong face becomes a crisp wrong face.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.hooks import Badge, InvalidRequest, PostprocessContext, Processed, WebUIError

from .backends.catalog import FaceModel, MissingModel
from .backends.objects import ObjectDetector
from .detection import Box, find_faces
from .engine import Engine
from .face import Pixels
from .hands import can_find_hands, find_hands
from .params import DetailerParams, Target
from .person import person_mask
from .sources import pixels_of

SEPARATOR = "[SEP]"
MIN_FACE_SCORE, MIN_PALM_SCORE, MIN_PERSON_SCORE, MIN_FILE_SCORE = 0.6, 0.75, 0.5, 0.3
"""Of YuNet, of MediaPipe's palm detector and person mask, and of YOLO networks: these mean different things."""
MIN_PERSON_SHARE = 0.01
"""Of the picture; smaller patches of the mask are no people."""
WORDS: Mapping[Target, tuple[str, str]] = MappingProxyType(
    {
        "faces": ("face", "faces"),
        "hands": ("hand", "hands"),
        "people": ("person", "people"),
        "objects": ("thing", "things"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """`box` left, top, right, bottom in pixels of the picture, inside it."""

    box: tuple[int, int, int, int]
    score: float
    label: str
    shape: NDArray[np.uint8] | None = field(default=None, compare=False)
    """(height, width) of the picture, 255 on what was found; None: all of the box."""

    @property
    def area(self) -> int:
        left, top, right, bottom = self.box
        return max(right - left, 0) * max(bottom - top, 0)

    def json(self) -> dict[str, Any]:
        return {"box": list(self.box), "score": round(self.score, 4), "label": self.label}


Finder = Callable[[Pixels], list[Detail]]
"""What a detector sees in a picture, of all sizes and counts."""


def check_detailer(params: DetailerParams, engine: Engine) -> None:
    """Raises InvalidRequest if there is no detector for it."""
    if params.min_area > params.max_area:
        message = f"Nothing is between the least area, {params.min_area:g}, and the largest, {params.max_area:g}."
        raise InvalidRequest("min_area", message)
    try:
        finder_of(params, engine)
    except WebUIError as error:
        field = "detector" if params.detector else "target"
        raise InvalidRequest(field, error.message, hint=error.hint) from error


def improve_details(
    image: Image.Image, params: DetailerParams, context: PostprocessContext, engine: Engine
) -> Processed:
    """Raises MissingModel or BrokenModel, and what `context.redraw` and `context.check` raise."""
    context.report("looking")
    pixels = pixels_of(image)
    found = chosen(finder_of(params, engine)(pixels), params, pixels.shape[0] * pixels.shape[1])
    one, many = WORDS[params.target]
    if not found:
        sure = "" if params.min_confidence is None else f" from confidence {params.min_confidence:g} on"
        note = f"No {one} was found{sure}; nothing was repainted."
        return Processed(image=image, fields={"Detailer found": "nothing"}, notes=(note,), details={"found": []})
    prompts = _parts(params.prompt, len(found))
    negatives = _parts(params.negative_prompt, len(found))
    made = image
    for number, (detail, prompt, negative) in enumerate(zip(found, prompts, negatives, strict=True), 1):
        context.check()
        context.report(f"{one} {number} of {len(found)}")
        made = context.redraw(
            made,
            Image.fromarray(mask_of(detail, params.dilate_px, pixels.shape[:2])),
            strength=params.strength,
            width=params.size,
            height=params.size,
            prompt=prompt or None,
            negative_prompt=negative or None,
            num_inference_steps=params.num_inference_steps,
            guidance_scale=params.guidance_scale,
            padding_px=params.padding_px,
            blur_px=params.blur_px,
            seed=None if number == 1 else (context.seed + number - 1) % 2**32,
        )
    count = f"{len(found)} {one if len(found) == 1 else many}"
    return Processed(
        image=made,
        fields={"Detailer found": count},
        badge=Badge(text=count, title=f"The detailer repainted {count}."),
        is_composite=context.source is not None,
        details={"found": [detail.json() for detail in found]},
    )


def chosen(found: Sequence[Detail], params: DetailerParams, num_pixels: int) -> list[Detail]:
    """Those of the right size, the `max_count` first ones, from left to right."""
    fitting = [detail for detail in found if params.min_area <= detail.area / num_pixels <= params.max_area]
    by: Callable[[Detail], float] = (lambda one: -one.area) if params.by == "area" else (lambda one: -one.score)
    first = sorted(fitting, key=by)[: params.max_count or None]
    return sorted(first, key=lambda detail: detail.box[0])


def mask_of(detail: Detail, dilate_px: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """(height, width) of `size`: 255 on what was found, grown by `dilate_px`; never empty."""
    if detail.shape is not None:
        return grown(detail.shape, dilate_px)
    left, top, right, bottom = detail.box
    shrink = min(0, max(dilate_px, -(right - left - 1) // 2, -(bottom - top - 1) // 2))
    grow = dilate_px if dilate_px > 0 else shrink
    mask = np.zeros((size[0], size[1]), np.uint8)
    cv2.rectangle(mask, (left - grow, top - grow), (right + grow - 1, bottom + grow - 1), 255, -1)
    if not mask.any():
        mask[top:bottom, left:right] = 255
    return mask


def grown(shape: NDArray[np.uint8], by_px: int) -> NDArray[np.uint8]:
    """`shape` itself where shrinking would leave nothing of it."""
    side = 2 * abs(by_px) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    changed = np.asarray(cv2.dilate(shape, kernel) if by_px >= 0 else cv2.erode(shape, kernel), np.uint8)
    return changed if changed.any() else shape


def finder_of(params: DetailerParams, engine: Engine) -> Finder:
    """Raises MissingModel or BrokenModel, or WebUIError if nothing here finds what is asked for."""
    least = params.min_confidence
    if params.target == "faces" and not params.detector:
        return lambda pixels: faces_in(pixels, least or MIN_FACE_SCORE, engine)
    if params.target == "people" and not params.detector:
        return lambda pixels: people_in(pixels, least or MIN_PERSON_SCORE, engine)
    word = WORDS[params.target][0] if params.target != "objects" else ""
    name = params.detector or _first_for(word, engine)
    if name:
        network = engine.backends.objects(name)
        return lambda pixels: objects_in(pixels, least or MIN_FILE_SCORE, network, word)
    if params.target == "hands" and can_find_hands(engine.models):
        return lambda pixels: hands_in(pixels, max(least or 0.0, MIN_PALM_SCORE), engine)
    if params.target == "hands":
        hint = "Get palm_detection_full.tflite on the Extensions page, or put a YOLO file (.onnx) under models/face."
        raise WebUIError("There is nothing here that finds hands.", hint=hint)
    raise MissingModel("objects", "")


def faces_in(pixels: Pixels, least: float, engine: Engine) -> list[Detail]:
    faces = find_faces(pixels, models=engine.models, min_score=least)
    return _details(pixels, [(face.box, face.score, "face") for face in faces])


def hands_in(pixels: Pixels, least: float, engine: Engine) -> list[Detail]:
    hands = find_hands(pixels, models=engine.models, min_score=least)
    return _details(pixels, [(box, score, "hand") for box, score in hands])


def people_in(pixels: Pixels, least: float, engine: Engine) -> list[Detail]:
    """Silhouettes that don't touch: two people arm in arm are one. `least` 0 to 1, of the person mask."""
    mask = person_mask(pixels, models=engine.models)
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats((mask >= least).astype(np.uint8))
    people = []
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in boxes[number])
        shape = np.where(numbers == number, 255, 0).astype(np.uint8)
        score = float(mask[numbers == number].mean())
        if area >= MIN_PERSON_SHARE * mask.size:
            box = (left, top, left + width, top + height)
            people.append(Detail(box=box, score=score, label="person", shape=shape))
    return people


def objects_in(pixels: Pixels, least: float, network: ObjectDetector, word: str) -> list[Detail]:
    """What is called `word`; all of it if none of the network's labels is."""
    # A network that knows one thing may call it "0", and one trained on hands alone calls it what it likes.
    knows = word and any(word in label.lower() for label in network.labels)
    found = network.find(pixels, min_score=least)
    return _details(
        pixels, [(one.box, one.score, one.label) for one in found if not knows or word in one.label.lower()]
    )


def _first_for(word: str, engine: Engine) -> str:
    """Name of the first network that knows `word`, by its labels or its name; "" if none does."""

    def fits(model: FaceModel) -> bool:
        return word in model.name.lower() or any(word in label.lower() for label in model.labels)

    return next((model.name for model in engine.backends.models().of("objects") if fits(model)), "")


def _parts(prompt: str, count: int) -> list[str]:
    """One prompt for each; the last one stands for those that have none of their own."""
    parts = [part.strip() for part in prompt.split(SEPARATOR)]
    return [parts[min(index, len(parts) - 1)] for index in range(count)]


def _details(pixels: Pixels, found: Sequence[tuple[Box, float, str]]) -> list[Detail]:
    """Within the picture; those outside of it are left out."""
    height, width = pixels.shape[:2]
    details = [Detail(box=_inside(box, width, height), score=score, label=label) for box, score, label in found]
    return [detail for detail in details if detail.area]


def _inside(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return (
        min(max(int(left), 0), width),
        min(max(int(top), 0), height),
        min(max(round(right), 0), width),
        min(max(round(bottom), 0), height),
    )

"""The stages that a face goes through, each by itself: what it does, and when it had better not.

A stage gives a new picture in which only pixels around the face differ. Whether that is better is measured elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from webui.hooks import Redraw

from . import topology
from .engine import Engine
from .face import Face, Pixels, Points
from .mesh import MAX_WARP_YAW, MAX_YAW_DIFFERENCE
from .params import FaceParams
from .refine import repainted
from .seen import Photo
from .sources import Person, mean_of
from .warp import warp_face

FLAT_SHARE = 0.5
"""Of a face's pixels that are exactly their neighbours' colour, from which it is drawn: a photo has noise."""
LENS_LIGHTNESS = 0.45
"""Of the cheeks' lightness: what is darker around the eyes is no skin."""
LENS_SHARE = 0.6
"""Of the skin around the eyes that is that dark, from which they are covered."""

# fmt: off
RIGHT_SOCKET = (226, 31, 228, 229, 230, 231, 232, 233, 244, 190, 56, 28, 27, 29, 30, 247)
LEFT_SOCKET = (446, 261, 448, 449, 450, 451, 452, 453, 464, 414, 286, 258, 257, 259, 260, 467)
# fmt: on

Mask = NDArray[np.float32]


class NotDone(Exception):
    """The stage leaves the face as it is; part of a sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the stages may use for one face."""

    params: FaceParams
    engine: Engine
    person: Person
    redraw: Redraw | None
    check: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`tolerance`: by how much it may lower the likeness without being taken back."""

    name: str
    done: str
    tolerance: float
    run: Callable[[Scene, Pixels, Face], tuple[Pixels, Mask]]

    def is_on(self, params: FaceParams) -> bool:
        return bool(getattr(params, self.name))


def warp(scene: Scene, pixels: Pixels, face: Face) -> tuple[Pixels, Mask]:
    photo = scene.person.photo_for(face)
    if photo is None:
        raise NotDone(scene.person.saved.needs_pixels_message if scene.person.saved else "there is no photo to warp")
    if reason := why_not_warp(photo, pixels, face):
        raise NotDone(reason)
    params = scene.params
    source_is_gray = is_gray(photo.pixels, photo.face)
    target_is_gray = is_gray(pixels, face)
    warped = warp_face(
        grayed(photo.pixels) if target_is_gray else photo.pixels,
        photo.face,
        pixels,
        face,
        strength=params.strength,
        shape_keep=params.shape_keep,
        color=params.color,
        area=params.area,
        feather=params.feather,
        blend=params.blend,
    )
    made = warped.pixels
    if source_is_gray and not target_is_gray:
        made = in_colors_of(pixels, made, warped.mask)
    return made, warped.mask


def refine(scene: Scene, pixels: Pixels, face: Face) -> tuple[Pixels, Mask]:
    if scene.redraw is None:
        raise NotDone("nothing can be repainted here: refining needs a checkpoint")
    return repainted(pixels, face, scene.params, scene.redraw)


def swap(scene: Scene, pixels: Pixels, face: Face) -> tuple[Pixels, Mask]:
    backends, person = scene.engine.backends, scene.person
    swapper = backends.swapper(scene.params.swap_model)
    if person.photos:
        arcface = backends.arcface()
        embedding = mean_of([arcface.embed(photo.pixels, photo.face) for photo in person.photos])
    elif person.saved is not None and person.saved.arcface is not None:
        embedding = person.saved.arcface
    else:
        raise NotDone(person.saved.cannot_swap_message if person.saved else "there is nobody to swap in")
    params = scene.params
    swapped = swapper.swap(
        pixels, face, embedding, pixel_boost=params.pixel_boost, color=params.swap_color, check=scene.check
    )
    return swapped.pixels, swapped.mask


def restore(scene: Scene, pixels: Pixels, face: Face) -> tuple[Pixels, Mask]:
    params = scene.params
    restorer = scene.engine.backends.restorer(params.restore_model)
    restored = restorer.restore(pixels, face, weight=params.restore_weight, visibility=params.restore_visibility)
    return restored.pixels, restored.mask


STAGES = (
    Stage(name="warp", done="warped", tolerance=0.0, run=warp),
    Stage(name="refine", done="refined", tolerance=0.05, run=refine),
    Stage(name="swap", done="swapped", tolerance=0.0, run=swap),
    Stage(name="restore", done="restored", tolerance=0.05, run=restore),
)


def why_not_warp(photo: Photo, pixels: Pixels, face: Face) -> str:
    """Part of a sentence; "" if the warp may be tried."""
    ours, theirs = photo.face.yaw_degrees, face.yaw_degrees
    turn = abs(ours - theirs)
    if turn > MAX_YAW_DIFFERENCE:
        return f"turned too far to warp: {turn:.0f} degrees away from the photo, at most {MAX_YAW_DIFFERENCE:.0f} work"
    for whose, yaw in (("the photo's face is", ours), ("it is", theirs)):
        if abs(yaw) > MAX_WARP_YAW:
            return f"turned too far to warp: {whose} {abs(yaw):.0f} degrees from the front"
    covered = eyes_covered(photo.pixels, photo.face), eyes_covered(pixels, face)
    if covered[0] != covered[1]:
        where = "in the photo" if covered[0] else "in the picture"
        return f"the eyes are covered {where}, by sunglasses or a deep shadow"
    if is_drawn(pixels, face) and not is_drawn(photo.pixels, photo.face):
        return "it is drawn, and a photo would not fit in"
    return ""


def is_gray(pixels: Pixels, face: Face) -> bool:
    piece = _around(pixels, face)[0].astype(np.int16)
    return bool(piece.size) and int((piece.max(axis=2) - piece.min(axis=2)).max()) <= 2


def grayed(pixels: Pixels) -> Pixels:
    gray: Pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return gray


def in_colors_of(picture: Pixels, made: Pixels, mask: Mask) -> Pixels:
    """`made` where `mask` is not 0, with the colours of `picture` and its own lightness."""
    ours, theirs = (cv2.cvtColor(one, cv2.COLOR_RGB2LAB) for one in (made, picture))
    ours[..., 1:] = theirs[..., 1:]
    colored: Pixels = np.where(mask[..., None] > 0, cv2.cvtColor(ours, cv2.COLOR_LAB2RGB), picture)
    return colored


def eyes_covered(pixels: Pixels, face: Face) -> bool:
    """Whether the skin around both eyes is far darker than the cheeks."""
    piece, points = _around(pixels, face)
    if not piece.size:
        return False
    lightness = cv2.cvtColor(piece, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cheeks = _filled((topology.RIGHT_CHEEK, topology.LEFT_CHEEK), points, piece)
    sockets = _filled((RIGHT_SOCKET, LEFT_SOCKET), points, piece)
    sockets &= ~_filled((topology.RIGHT_EYE, topology.LEFT_EYE), points, piece)
    if not cheeks.any() or not sockets.any():
        return False
    dark = lightness < LENS_LIGHTNESS * float(np.median(lightness[cheeks]))
    return float(dark[sockets].mean()) > LENS_SHARE


def is_drawn(pixels: Pixels, face: Face) -> bool:
    """Whether most of the face is flat colour, exactly."""
    piece, points = _around(pixels, face)
    inside = _filled((topology.OVAL,), points, piece)
    if not inside.any():
        return False
    values = piece.astype(np.int16)
    flat = np.zeros(inside.shape, bool)
    flat[:-1, :-1] = (values[1:, :-1] == values[:-1, :-1]).all(axis=2) & (values[:-1, 1:] == values[:-1, :-1]).all(
        axis=2
    )
    return float(flat[inside].mean()) > FLAT_SHARE


def _around(pixels: Pixels, face: Face) -> tuple[Pixels, Points]:
    """The part of the picture that has the mesh in it, and the mesh's points there; empty if it is outside."""
    height, width = pixels.shape[:2]
    low = np.clip(np.floor(face.points[:, :2].min(axis=0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(face.points[:, :2].max(axis=0)) + 1, 0, (width, height)).astype(int)
    corner = np.array([low[0], low[1]], np.float32)
    return pixels[low[1] : high[1], low[0] : high[0]], (face.points[:, :2] - corner).astype(np.float32)


def _filled(parts: tuple[tuple[int, ...], ...], points: Points, piece: Pixels) -> NDArray[np.bool_]:
    mask = np.zeros(piece.shape[:2], np.uint8)
    for part in parts:
        cv2.fillPoly(mask, [np.round(np.clip(points[list(part)], -1e4, 1e4)).astype(np.int32)], 1)
    return mask > 0

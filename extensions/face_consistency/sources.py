"""Whose face it is to be: people, each with photos that have pixels or with a saved face that has none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from .detection import find_faces
from .engine import Engine
from .face import SAME_PERSON, Face, Pixels
from .face_models import SavedFace
from .identity import MIN_FACE_PX, Embedding, embed, similarity
from .mesh import pose_of
from .places import ResizeMode
from .seen import Photo, Seen, SeenFace

MIN_INSIDE = 0.8
"""Of the mesh's points that have to lie in the picture: a face that is cut further has no half to measure."""


class Unusable(Exception):
    """There is nothing that could be worked with; the sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a call brings. With photos or a saved face, `init` is only compared with them."""

    photos: tuple[Image.Image, ...] = ()
    saved: SavedFace | None = None
    init: Image.Image | None = None
    """The picture that the target was made from, RGB."""
    resize_mode: ResizeMode = "stretch"
    """How `init` got the target's size."""
    reference: Image.Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """`embedding` is the mean over the photos, of unit length; None for a saved face that has no SFace numbers."""

    photos: tuple[Photo, ...]
    embedding: Embedding | None
    saved: SavedFace | None = None

    def photo_for(self, face: Face) -> Photo | None:
        """The one whose head is held most like `face`'s."""
        if not self.photos:
            return None
        wanted = pose_of(face.points)

        def away(photo: Photo) -> float:
            pose = pose_of(photo.face.points)
            return abs(pose.yaw - wanted.yaw) + abs(pose.pitch - wanted.pitch)

        return min(self.photos, key=away)


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """`from_init`: they are the people of the picture that the target was made from, each in their place.

    `there` are those people in any case; none where nobody can be made out in it.
    """

    people: tuple[Person, ...]
    from_init: bool
    there: tuple[Person, ...] = ()
    notes: tuple[str, ...] = field(default=())


def find_people(given: Given, engine: Engine, check: Callable[[], None]) -> People:
    """Raises Unusable if nobody can be made out."""
    if given.photos:
        return replace(_of_photos(given, engine, check), there=_there(given, engine))
    if given.saved is not None:
        if given.saved.cannot_compare_message and given.saved.cannot_swap_message:
            raise Unusable(given.saved.cannot_compare_message)
        person = Person(photos=(), embedding=given.saved.sface, saved=given.saved)
        return People(people=(person,), from_init=False, there=_there(given, engine))
    if given.init is None:
        raise Unusable("There is no photo of the person, and no picture that this one was made from.")
    return _of_init(given.init, engine)


def pixels_of(image: Image.Image) -> Pixels:
    return np.array(image.convert("RGB"), np.uint8)


def share_inside(face: Face, pixels: Pixels) -> float:
    """Of the mesh's points that lie in the picture, 0 to 1."""
    height, width = pixels.shape[:2]
    x, y = face.points[:, 0], face.points[:, 1]
    return float(((x >= 0) & (y >= 0) & (x < width) & (y < height)).mean())


def why_unusable(face: Face, pixels: Pixels, min_px: int = MIN_FACE_PX) -> str:
    """Why likeness cannot be judged here, part of a sentence; "" if it can."""
    if face.width_px < min_px:
        limit = "below which likeness cannot be measured" if min_px <= MIN_FACE_PX else "as set"
        return f"too small to judge: it is {face.width_px:.0f} px wide, under {min_px} px, {limit}"
    inside = share_inside(face, pixels)
    if inside < MIN_INSIDE:
        return f"cut off: {1 - inside:.0%} of it lies outside of the picture"
    return ""


def _of_init(init: Image.Image, engine: Engine) -> People:
    seen = see(init, engine)
    if not seen:
        raise Unusable("No face was found in the picture that this one was made from.")
    photos = [face.photo for face in seen if face.photo is not None]
    if not photos:
        raise Unusable(f"The face in the picture that this one was made from is {seen[0].problem}.")
    people = tuple(Person(photos=(photo,), embedding=photo.embedding) for photo in photos)
    return People(people=people, from_init=True, there=people)


def _there(given: Given, engine: Engine) -> tuple[Person, ...]:
    try:
        return () if given.init is None else _of_init(given.init, engine).people
    except Unusable:
        return ()


def see(image: Image.Image, engine: Engine) -> Seen:
    """The faces of a photo or of the picture that was started from; looked for once."""
    pixels = pixels_of(image)

    def look() -> Seen:
        faces = find_faces(pixels, models=engine.models)
        return tuple(_seen(face, pixels, engine) for face in faces)

    return engine.seen.of(pixels, look)


def _seen(face: Face, pixels: Pixels, engine: Engine) -> SeenFace:
    if problem := why_unusable(face, pixels):
        return SeenFace(photo=None, problem=problem)
    return SeenFace(photo=Photo(pixels=pixels, face=face, embedding=embed(pixels, face, models=engine.models)))


def _of_photos(given: Given, engine: Engine, check: Callable[[], None]) -> People:
    photos: list[Photo] = []
    notes: list[str] = []
    for number, image in enumerate(given.photos, 1):
        check()
        name = "the photo" if len(given.photos) == 1 else f"photo {number}"
        seen = see(image, engine)
        if not seen:
            notes.append(f"No face was found in {name}.")
        elif seen[0].photo is None:
            notes.append(f"The face in {name} is {seen[0].problem}.")
        else:
            if len(seen) > 1:
                notes.append(f"{name[:1].upper()}{name[1:]} shows {len(seen)} faces; the largest was taken.")
            photos.append(seen[0].photo)
    if not photos:
        raise Unusable(" ".join(notes))
    notes += _strangers(photos)
    embedding = mean_of([photo.embedding for photo in photos])
    if given.saved is not None and given.saved.sface is not None:
        embedding = given.saved.sface
    person = Person(photos=tuple(photos), embedding=embedding, saved=given.saved)
    return People(people=(person,), from_init=False, notes=tuple(notes))


def _strangers(photos: Sequence[Photo]) -> list[str]:
    """Notes on photos that don't look like the first one."""
    alike = [similarity(photos[0].embedding, photo.embedding) for photo in photos[1:]]
    return [
        f"Face {number} of your photos is only {value:.2f} like the first: is it the same person?"
        for number, value in enumerate(alike, 2)
        if value < SAME_PERSON
    ]


def mean_of(embeddings: Sequence[Embedding]) -> Embedding:
    total = np.sum(embeddings, axis=0)
    mean: Embedding = (total / max(float(np.linalg.norm(total)), 1e-9)).astype(np.float32)
    return mean

"""Whose face it is to be: people, each with photos that have pixels or with a saved face that has none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .detection import find_faces
from .engine import Engine
from .face import SAME_PERSON, Face, Pixels
from .face_models import SavedFace
from .identity import MIN_FACE_PX, Embedding, embed, similarity
from .mesh import pose_of

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
    reference: Image.Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One face in one picture."""

    pixels: Pixels
    face: Face
    embedding: Embedding


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
    """`from_init`: they are the people of the picture that the target was made from, each in their place."""

    people: tuple[Person, ...]
    from_init: bool
    notes: tuple[str, ...] = field(default=())


def find_people(given: Given, engine: Engine, check: Callable[[], None]) -> People:
    """Raises Unusable if nobody can be made out."""
    if given.photos:
        return _of_photos(given, engine, check)
    if given.saved is not None:
        if given.saved.cannot_compare_message and given.saved.cannot_swap_message:
            raise Unusable(given.saved.cannot_compare_message)
        return People(people=(Person(photos=(), embedding=given.saved.sface, saved=given.saved),), from_init=False)
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
    pixels = pixels_of(init)
    faces = find_faces(pixels, models=engine.models)
    if not faces:
        raise Unusable("No face was found in the picture that this one was made from.")
    problems = [why_unusable(face, pixels) for face in faces]
    photos = [_photo(pixels, face, engine) for face, problem in zip(faces, problems, strict=True) if not problem]
    if not photos:
        raise Unusable(f"The face in the picture that this one was made from is {problems[0]}.")
    people = tuple(Person(photos=(photo,), embedding=photo.embedding) for photo in photos)
    return People(people=people, from_init=True)


def _of_photos(given: Given, engine: Engine, check: Callable[[], None]) -> People:
    photos: list[Photo] = []
    notes: list[str] = []
    for number, image in enumerate(given.photos, 1):
        check()
        name = "the photo" if len(given.photos) == 1 else f"photo {number}"
        pixels = pixels_of(image)
        faces = find_faces(pixels, models=engine.models)
        problem = why_unusable(faces[0], pixels) if faces else ""
        if not faces:
            notes.append(f"No face was found in {name}.")
        elif problem:
            notes.append(f"The face in {name} is {problem}.")
        else:
            if len(faces) > 1:
                notes.append(f"{name[:1].upper()}{name[1:]} shows {len(faces)} faces; the largest was taken.")
            photos.append(_photo(pixels, faces[0], engine))
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


def _photo(pixels: Pixels, face: Face, engine: Engine) -> Photo:
    return Photo(pixels=pixels, face=face, embedding=embed(pixels, face, models=engine.models))


def mean_of(embeddings: Sequence[Embedding]) -> Embedding:
    total = np.sum(embeddings, axis=0)
    mean: Embedding = (total / max(float(np.linalg.norm(total)), 1e-9)).astype(np.float32)
    return mean

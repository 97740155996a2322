"""Which of a picture's faces are worked on, and who each of them is to be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .detection import find_faces
from .engine import Engine
from .face import Face, Pixels
from .identity import embed, similarity
from .params import FaceParams, Order
from .sources import Given, People, Person, Unusable, pixels_of

FAR = 1.2
"""Face widths between where a face is and where it was, above which it is somebody else's."""

ORDERS: Mapping[Order, Callable[[Face], float]] = MappingProxyType(
    {
        "left-right": lambda face: face.center[0],
        "right-left": lambda face: -face.center[0],
        "top-bottom": lambda face: face.center[1],
        "bottom-top": lambda face: -face.center[1],
        "large-small": lambda face: -face.width_px * face.height_px,
        "small-large": lambda face: face.width_px * face.height_px,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A face of the target and who it is to be; None: nobody is known for it."""

    face: Face
    person: Person | None


def choose(pixels: Pixels, params: FaceParams, people: People, given: Given, engine: Engine) -> list[Pair]:
    """The faces to work on, in the order of `params`. Raises Unusable if there are none."""
    found = find_faces(pixels, models=engine.models)
    if not found:
        raise Unusable("No face was found in the picture.")
    faces = _of_gender(pixels, found, params, engine)
    chosen = _chosen(pixels, sorted(faces, key=ORDERS[params.order]), params, people, given, engine)
    if not people.from_init:
        return [Pair(face=face, person=people.people[0]) for face in chosen]
    return paired(chosen, people.people, pixels, others=len(found) - len(chosen))


def _chosen(
    pixels: Pixels, faces: Sequence[Face], params: FaceParams, people: People, given: Given, engine: Engine
) -> list[Face]:
    match params.faces:
        case "all":
            return list(faces)
        case "auto" if people.from_init:
            return list(faces)
        case "auto" | "largest":
            return [max(faces, key=lambda face: face.width_px * face.height_px)]
        case "numbers":
            return _by_number(faces, params)
        case "alike":
            return _alike(pixels, faces, params, given, engine)


def _by_number(faces: Sequence[Face], params: FaceParams) -> list[Face]:
    there = [faces[number - 1] for number in dict.fromkeys(params.numbers) if 1 <= number <= len(faces)]
    if not there:
        wanted = ", ".join(str(number) for number in params.numbers) or "none"
        raise Unusable(f"Face {wanted} was asked for, but the picture has {len(faces)}, counted {params.order}.")
    return there


def _alike(pixels: Pixels, faces: Sequence[Face], params: FaceParams, given: Given, engine: Engine) -> list[Face]:
    if given.reference is None:
        raise Unusable("No reference picture was given to compare the faces with.")
    reference = pixels_of(given.reference)
    there = find_faces(reference, models=engine.models)
    if not there:
        raise Unusable("No face was found in the reference picture.")
    wanted = embed(reference, there[0], models=engine.models)
    scores = [similarity(wanted, embed(pixels, face, models=engine.models)) for face in faces]
    alike = [face for face, score in zip(faces, scores, strict=True) if score >= params.reference_similarity]
    if not alike:
        limit = params.reference_similarity
        raise Unusable(f"No face is like the reference: the nearest has {max(scores):.2f}, {limit:g} is asked for.")
    return alike


def _of_gender(pixels: Pixels, faces: Sequence[Face], params: FaceParams, engine: Engine) -> Sequence[Face]:
    if params.gender == "any":
        return faces
    network = engine.backends.gender_age()
    there = [face for face in faces if network.read(pixels, face.box).gender == params.gender]
    if not there:
        raise Unusable(f"None of the {len(faces)} faces was taken for {params.gender}.")
    return there


def paired(faces: Sequence[Face], people: Sequence[Person], pixels: Pixels, *, others: int = 0) -> list[Pair]:
    """Each face with whom the original picture shows in its place, nearest first; two faces are not one person.

    The only face of a picture with one person is that person, wherever it is: a crop may have moved it.
    """
    if len(faces) == 1 and len(people) == 1 and not others:
        return [Pair(face=faces[0], person=people[0])]
    height, width = pixels.shape[:2]
    there = np.array([_place(person, width, height) for person in people])
    here = np.array([face.center for face in faces])
    widths = np.array([face.width_px for face in faces])
    away = np.linalg.norm(here[:, None] - there[None], axis=2) / np.maximum(widths[:, None], 1)
    partners: dict[int, Person] = {}
    for index in np.argsort(away, axis=None).tolist():
        face, person = divmod(index, len(people))
        taken = any(people[person] is partner for partner in partners.values())
        if face not in partners and not taken and away[face, person] <= FAR:
            partners[face] = people[person]
    return [Pair(face=face, person=partners.get(number)) for number, face in enumerate(faces)]


def _place(person: Person, width: int, height: int) -> tuple[float, float]:
    """Where the person's face would be in a picture of `width` x `height` that shows the same."""
    photo = person.photos[0]
    x, y = photo.face.center
    return x * width / photo.pixels.shape[1], y * height / photo.pixels.shape[0]

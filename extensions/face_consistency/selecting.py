"""Which of a picture's faces are worked on, and who each of them is to be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .detection import find_faces
from .engine import Engine
from .face import SAME_PERSON, Face, Pixels
from .identity import embed, similarity
from .params import FaceParams, Order
from .places import ResizeMode, place_of
from .sources import Given, People, Person, Unusable, pixels_of

FAR = 1.2
"""Face widths between where a face is and where it was, above which it is somebody else's."""
WEAK_SCORE = 0.8
"""Of the detector: what has less and is like nobody may be no face at all. True ones, changed in all ways of
`bench faces`, have at least 0.82, and a likeness of 0.25 or more."""
NO_LIKENESS = 0.1

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
    """A face of the target and who it is to be; None: nobody is known for it.

    `refused`: why it is not worked on though it was chosen, a sentence.
    """

    face: Face
    person: Person | None
    refused: str = ""


def choose(pixels: Pixels, params: FaceParams, people: People, given: Given, engine: Engine) -> list[Pair]:
    """The faces to work on, in the order of `params`. Raises Unusable if there are none."""
    found = find_faces(pixels, models=engine.models)
    if not found:
        raise Unusable("No face was found in the picture.")
    faces = sorted(_of_gender(pixels, found, params, engine), key=ORDERS[params.order])
    if params.faces == "auto":
        return _automatic(pixels, faces, people, given, engine, others=len(found) - len(faces))
    chosen = _chosen(pixels, faces, params, given, engine)
    if not people.from_init:
        return [Pair(face=face, person=people.people[0]) for face in chosen]
    return paired(chosen, people.people, pixels, given.resize_mode, others=len(found) - len(chosen))


def _automatic(
    pixels: Pixels, faces: Sequence[Face], people: People, given: Given, engine: Engine, *, others: int
) -> list[Pair]:
    """Everybody of the picture that was started from, or the largest face; what is hardly theirs is refused."""
    is_alone = len(faces) + others == len(people.people) == 1
    refusals = {id(face): _why_refused(pixels, face, people, given, engine, is_alone=is_alone) for face in faces}
    good = [face for face in faces if not refusals[id(face)]]
    if not people.from_init:
        best = _largest(good or faces)
        return [Pair(face=best, person=people.people[0], refused=refusals[id(best)])]
    pairs = paired(good, people.people, pixels, given.resize_mode, others=others + len(faces) - len(good))
    pairs += [Pair(face=face, person=None, refused=refusals[id(face)]) for face in faces if refusals[id(face)]]
    return sorted(pairs, key=lambda pair: faces.index(pair.face))


def _why_refused(pixels: Pixels, face: Face, people: People, given: Given, engine: Engine, *, is_alone: bool) -> str:
    """Why nobody should be put here unasked, a sentence; "" if nothing speaks against it."""
    wanted = [person.embedding for person in people.people if person.embedding is not None]

    def likeness() -> float | None:
        own = embed(pixels, face, models=engine.models) if wanted else None
        return None if own is None else max(similarity(own, each) for each in wanted)

    places = [place_of(person.photos[0], pixels, given.resize_mode) for person in people.there]
    # Where everybody gets their own face back, the places of several people and faces are compared in `paired`.
    by_place = places and (is_alone or not people.from_init)
    if by_place and all(place.is_far(face, pixels) for place in places):
        like = likeness()
        if like is None or like < SAME_PERSON:
            widths = min(place.widths_away(face) for place in places)
            told = "" if like is None else f" and {like:.2f} like the person"
            return f"No face where the photo's was: this one is {widths:.1f} face widths away{told}."
        return ""
    if face.score >= WEAK_SCORE or any(place.is_near(face) for place in places):
        return ""
    if (like := likeness()) is not None and like < NO_LIKENESS:
        return (
            f"Hardly a face: the detector is {100 * face.score:.0f} % sure of it, and it is {like:.2f} like the person."
        )
    return ""


def _largest(faces: Sequence[Face]) -> Face:
    return max(faces, key=lambda face: face.width_px * face.height_px)


def _chosen(pixels: Pixels, faces: Sequence[Face], params: FaceParams, given: Given, engine: Engine) -> list[Face]:
    match params.faces:
        case "all":
            return list(faces)
        case "auto" | "largest":
            return [_largest(faces)]
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


def paired(
    faces: Sequence[Face], people: Sequence[Person], pixels: Pixels, mode: ResizeMode, *, others: int = 0
) -> list[Pair]:
    """Each face with whom the original picture shows in its place, nearest first; two faces are not one person.

    The only face of a picture with one person is that person, wherever it is.
    """
    if not faces:
        return []
    if len(faces) == 1 and len(people) == 1 and not others:
        return [Pair(face=faces[0], person=people[0])]
    places = [place_of(person.photos[0], pixels, mode) for person in people]
    away = np.array([[place.away(face) / max(face.width_px, 1) for place in places] for face in faces])
    partners: dict[int, Person] = {}
    for index in np.argsort(away, axis=None).tolist():
        face, person = divmod(index, len(people))
        taken = any(people[person] is partner for partner in partners.values())
        if face not in partners and not taken and away[face, person] <= FAR:
            partners[face] = people[person]
    return [Pair(face=face, person=partners.get(number)) for number, face in enumerate(faces)]

"""Checks of photos of one person: whether a face is there, one only, large enough, and always the same person's."""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from webui.errors import UnreadableImage
from webui.images.reading import flatten
from webui.training.data.edits import Edit
from webui.training.data.faces import FaceReader, SeenFace
from webui.training.data.photos import Box, Photo, open_pixels
from webui.training.data.problems import Fix, Problem, leave_out

FEWEST_FOR_A_PERSON = 3
"""Photos with one face in common from which on another one is out of line."""
SMALL_FACE = 0.08
"""Of the photo's shorter side: the height of a face below which it is hardly learnt."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    photo: Photo
    faces: tuple[SeenFace, ...]


KnownFaces = MutableMapping[tuple[str, Box], tuple[SeenFace, ...]]
"""What was seen, by what the photo shows and by its part that counts."""


def people_problems(
    photos: Sequence[Photo],
    faces: FaceReader,
    *,
    known: KnownFaces | None = None,
    check: Callable[[], None],
) -> list[Problem]:
    """Reads each photo once more that is not `known`, which is added to. Photos that cannot be read any more have no
    faces.
    """
    seen, known = [], {} if known is None else known
    for photo in photos:
        check()
        key = photo.sha256, photo.area
        if key not in known:
            known[key] = _faces(photo, faces)
        seen.append(_Seen(photo=photo, faces=known[key]))
    subject = _subject(seen, faces.same_person)
    problems: list[Problem] = []
    for each in seen:
        problems += _problems_of(each, subject, faces.same_person)
    return problems


def _faces(photo: Photo, reader: FaceReader) -> tuple[SeenFace, ...]:
    """Within the part that counts, in pixels of the photo."""
    try:
        image = flatten(open_pixels(photo.path))
    except (UnreadableImage, OSError):
        return ()
    left, top, _, _ = photo.area
    found = reader.read(np.asarray(image.crop(photo.area)))
    return tuple(
        SeenFace(
            box=(face.box[0] + left, face.box[1] + top, face.box[2] + left, face.box[3] + top),
            embedding=face.embedding,
        )
        for face in found
    )


def _subject(seen: Sequence[_Seen], same_person: float) -> list[SeenFace]:
    """Faces of whoever is in the most photos; none if nobody is in enough."""
    faces = [(i, face) for i, each in enumerate(seen) for face in each.faces if face.embedding is not None]
    best: list[SeenFace] = []
    most = FEWEST_FOR_A_PERSON - 1
    for _, face in faces:
        like = [(i, other) for i, other in faces if _likeness(face, other) >= same_person]
        if len({i for i, _ in like}) > most:
            most, best = len({i for i, _ in like}), [other for _, other in like]
    return best


def _likeness(one: SeenFace, other: SeenFace) -> float:
    if one.embedding is None or other.embedding is None:
        return -1.0
    return float(one.embedding @ other.embedding)


def _problems_of(seen: _Seen, subject: Sequence[SeenFace], same_person: float) -> list[Problem]:
    photo, faces = seen.photo, seen.faces
    out = leave_out((photo.name,))
    if not faces:
        return [Problem(kind="no face", names=(photo.name,), sentence=f"No face in '{photo.name}'.", fixes=(out,))]
    main = max(faces, key=lambda face: _belongs(face, subject)) if subject else faces[0]
    if subject and main.embedding is not None and _belongs(main, subject) < same_person:
        sentence = f"The face in '{photo.name}' is not that of the other photos ({_belongs(main, subject):.2f})."
        return [Problem(kind="another person", names=(photo.name,), sentence=sentence, fixes=(out,))]
    problems = []
    if len(faces) > 1:
        crop = crop_to(photo.area, main.box, [face.box for face in faces if face is not main])
        sentence = f"{len(faces)} faces are in '{photo.name}': it is not clear whom to learn."
        fixes = (Fix(label="Cut the others off", edits={photo.name: Edit(crop=crop)}), out)
        problems.append(Problem(kind="several faces", names=(photo.name,), sentence=sentence, fixes=fixes))
    if main.box[3] - main.box[1] < SMALL_FACE * min(photo.size):
        sentence = f"The face in '{photo.name}' is small: {main.box[3] - main.box[1]:.0f} pixels high."
        problems.append(Problem(kind="small face", names=(photo.name,), sentence=sentence, fixes=(out,)))
    return problems


def _belongs(face: SeenFace, subject: Sequence[SeenFace]) -> float:
    """Likeness to the subject's faces in other photos, or to its own."""
    return max((_likeness(face, other) for other in subject if other is not face), default=-1.0)


def crop_to(area: Box, keep: tuple[float, float, float, float], others: Sequence[tuple[float, ...]]) -> Box:
    """`area` without `others`, as far as `keep` can stay whole: each is cut off at the side that costs least."""
    left, top, right, bottom = area
    for other in others:
        if other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top:
            continue  # gone already
        cuts: list[Box] = []
        if other[0] >= keep[2]:
            cuts.append((left, top, int(other[0]), bottom))
        if other[2] <= keep[0]:
            cuts.append((int(other[2]) + 1, top, right, bottom))
        if other[1] >= keep[3]:
            cuts.append((left, top, right, int(other[1])))
        if other[3] <= keep[1]:
            cuts.append((left, int(other[3]) + 1, right, bottom))
        if cuts:
            left, top, right, bottom = max(cuts, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return left, top, right, bottom

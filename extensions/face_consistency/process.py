"""The story of a picture's faces: measure, change stage by stage, measure again, and keep what is better.

Pixels that no stage's mask covers stay as they are, bit by bit. Whatever the picture is, one comes back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.hooks import Redraw, WebUIError

from .detection import face_in
from .engine import Engine
from .face import SAME_PERSON, Face, Pixels
from .identity import embed, similarity
from .params import FaceParams
from .report import FaceReport
from .selecting import Pair, choose, paired
from .sources import Given, People, Person, Unusable, find_people, pixels_of, why_unusable
from .stages import STAGES, NotDone, Scene, Stage, grayed, is_gray

CHOOSE = "If it is meant, choose it by its number."
CHANGES_IDENTITY = frozenset({"warp", "swap"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`image` is the very picture that came in if nothing changed. `reason` says why no face was worked on."""

    image: Image.Image
    faces: tuple[FaceReport, ...] = ()
    mask: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(height, width), 0 to 1: exactly 0 where a pixel is as it was."""
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_changed(self) -> bool:
        return any(face.is_changed for face in self.faces)


@dataclass(slots=True, kw_only=True)
class _Canvas:
    """The picture as it is now, and where it differs from the one that came in."""

    pixels: Pixels
    mask: NDArray[np.float32]


def _told(text: str) -> None:
    """Nobody listens."""


def _unchecked() -> None:
    """Nobody can interrupt."""


def improve_faces(
    image: Image.Image,
    params: FaceParams,
    *,
    given: Given,
    engine: Engine,
    redraw: Redraw | None = None,
    report: Callable[[str], None] = _told,
    check: Callable[[], None] = _unchecked,
) -> Outcome:
    """Raises MissingFaceModel if the extension is not whole, and what `redraw` and `check` raise to interrupt."""
    pixels = pixels_of(image)
    canvas = _Canvas(pixels=pixels, mask=np.zeros(pixels.shape[:2], np.float32))
    notes: list[str] = []
    try:
        notes += _safety_notes(pixels, params, engine)
        report("looking for faces")
        people = find_people(given, engine, check)
        notes += people.notes
        pairs = choose(pixels, params, people, given, engine)
        notes += _stranger_notes(pairs, people, pixels, params, given)
    except Unusable as unusable:
        return Outcome(image=image, mask=canvas.mask, reason=str(unusable), notes=tuple(notes))
    faces = []
    for number, pair in enumerate(pairs, 1):
        check()
        tell = _numbered(report, number, len(pairs))
        faces.append(_improve(canvas, pair, params, engine, redraw, check, tell))
    if given.init is None or given.photos or given.saved is not None:
        notes += _unlike_notes(faces, given)
    changed = any(face.is_changed for face in faces)
    made = Image.fromarray(canvas.pixels) if changed else image
    return Outcome(image=made, faces=tuple(faces), mask=canvas.mask, notes=tuple(notes))


def _numbered(report: Callable[[str], None], number: int, total: int) -> Callable[[str], None]:
    if total == 1:
        return report
    return lambda text: report(f"{text} {number} of {total}")


def _improve(
    canvas: _Canvas,
    pair: Pair,
    params: FaceParams,
    engine: Engine,
    redraw: Redraw | None,
    check: Callable[[], None],
    report: Callable[[str], None],
) -> FaceReport:
    """One face: what becomes of it is in `canvas` afterwards."""
    face, person = pair.face, pair.person
    box = _whole(face)
    if problem := why_unusable(face, canvas.pixels, params.min_face_px):
        return FaceReport(box=box, action="skipped", reason=f"{problem[:1].upper()}{problem[1:]}.")
    if pair.refused:
        return FaceReport(box=box, action="skipped", reason=f"{pair.refused} {CHOOSE}")
    if person is None:
        return FaceReport(box=box, action="skipped", reason="Nobody is in its place in the picture you started from.")
    report("measuring face")
    before = _likeness(canvas.pixels, face, person, engine)
    if before is not None and before >= params.skip_above:
        reason = f"It is already {before:.2f} like the person, and faces from {params.skip_above:g} are left alone."
        return FaceReport(box=box, action="skipped", reason=reason, similarity_before=before, similarity_after=before)
    scene = Scene(params=params, engine=engine, person=person, redraw=redraw, check=check)
    work = _FaceWork(scene=scene, face=face, pixels=canvas.pixels, similarity=before)
    for stage in STAGES:
        if stage.is_on(params):
            check()
            report(f"{stage.name} face")
            work.attempt(stage)
    if before is None:
        work.reasons.append(
            "whether it is more like the person cannot be measured: the saved face has no SFace numbers"
        )
    if work.done and work.similarity is not None and before is not None and work.similarity < before:
        work.reasons.append(f"All in all it became less like the person, {work.similarity:.2f}, and was left as it was")
        work.done.clear()
    reason = ". ".join(f"{text[:1].upper()}{text[1:]}" for text in work.reasons)
    reason = reason and reason.rstrip(".") + "."
    if not work.done:
        reason = reason or "No stage is switched on: it was only measured."
        return FaceReport(box=box, action="kept", reason=reason, similarity_before=before, similarity_after=before)
    canvas.pixels, canvas.mask = work.pixels, np.maximum(canvas.mask, work.mask)
    return FaceReport(
        box=box,
        action="+".join(work.done),
        reason=reason,
        similarity_before=before,
        similarity_after=work.similarity,
    )


class _FaceWork:
    """One face on its way through the stages: what it is like now, and what was done."""

    def __init__(self, *, scene: Scene, face: Face, pixels: Pixels, similarity: float | None) -> None:
        self.scene = scene
        self.face = face
        self.pixels = pixels
        self.similarity = similarity
        self.mask = np.zeros(pixels.shape[:2], np.float32)
        self.done: list[str] = []
        self.reasons: list[str] = []
        self._stays_gray = is_gray(pixels, face)

    def attempt(self, stage: Stage) -> None:
        """Keeps what the stage makes, unless it makes the face less like the person."""
        if stage.name not in CHANGES_IDENTITY and self._failed_before(stage):
            return
        try:
            made, mask = stage.run(self.scene, self.pixels, self.face)
        except (NotDone, WebUIError) as error:
            self.reasons.append(str(error))
            return
        if self._stays_gray:
            made = np.where(mask[..., None] > 0, grayed(made), made)
        face = face_in(made, self.face.box, self.face.score, self.scene.engine.models)
        now = _likeness(made, face, self.scene.person, self.scene.engine)
        if face.presence <= 0:
            self.reasons.append(f"no face was left after it was {stage.done}, so that was taken back")
        elif now is not None and self.similarity is not None and now < self.similarity - stage.tolerance:
            self.reasons.append(
                f"{stage.done} it would be less like the person, {now:.2f} after {self.similarity:.2f}, "
                "so that was taken back"
            )
        elif (made != self.pixels).any():
            self.pixels, self.similarity = made, now
            self.mask = np.maximum(self.mask, mask)
            self.done.append(stage.done)
        else:
            self.reasons.append(f"nothing changed when it was {stage.done}")

    def _failed_before(self, stage: Stage) -> bool:
        """Whether stages were to bring the person back and none did: then there is nothing to make prettier."""
        return not self.done and any(
            other.is_on(self.scene.params) for other in STAGES[: STAGES.index(stage)] if other.name in CHANGES_IDENTITY
        )


def _likeness(pixels: Pixels, face: Face, person: Person, engine: Engine) -> float | None:
    """None if the person is a saved face that cannot be measured against."""
    if person.embedding is None:
        return None
    return similarity(embed(pixels, face, models=engine.models), person.embedding)


def _whole(face: Face) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(value) for value in face.box)
    return left, top, right, bottom


def _stranger_notes(
    pairs: Sequence[Pair], people: People, pixels: Pixels, params: FaceParams, given: Given
) -> list[str]:
    """Raises Unusable if a photo shows somebody else than the picture that was started from, and nobody said so."""
    wanted = people.people[0].embedding
    if people.from_init or given.init is None:
        return []
    if wanted is None:
        return _unknown_notes(params)
    there, meant = people.there, [pair.face for pair in pairs if not pair.refused]
    if not there or not meant:
        return []
    likeness = {id(one): similarity(wanted, one.embedding) for one in there if one.embedding is not None}
    # Among several people it is the one in the face's place who counts; the photo may well show another of them.
    places = [pair.person for pair in paired(meant, there, pixels, given.resize_mode)]
    scores = [max(likeness.values()) if one is None else likeness[id(one)] for one in places]
    if not scores or min(scores) >= SAME_PERSON:
        return []
    source = "photo" if given.photos else "saved face"
    told = (
        f"The {source} shows somebody else than the picture you started from: likeness {min(scores):.2f}, "
        f"the same person from {SAME_PERSON}."
    )
    if not params.other_person_consent:
        raise Unusable(f"{told} If that is meant and both have agreed, tick 'The photo shows somebody else'.")
    return [f"{told} You said that both have agreed."]


def _unknown_notes(params: FaceParams) -> list[str]:
    """Raises Unusable unless the user has said that it may be somebody else."""
    told = "The saved face has no SFace numbers, so whether it is the person you started from cannot be measured."
    if not params.other_person_consent:
        raise Unusable(f"{told} If whoever it is has agreed, tick 'The photo shows somebody else'.")
    return [told]


def _unlike_notes(faces: list[FaceReport], given: Given) -> list[str]:
    """For finished pictures there is nothing to compare with but the face that is there."""
    if given.init is not None:
        return []
    scores = [face.similarity_before for face in faces if face.is_changed and face.similarity_before is not None]
    if not scores or min(scores) >= SAME_PERSON:
        return []
    return [
        f"By measure the picture's own face was not the person ({min(scores):.2f}; the same from {SAME_PERSON}). "
        "If it is somebody else, they have to have agreed too."
    ]


def _safety_notes(pixels: Pixels, params: FaceParams, engine: Engine) -> list[str]:
    """Raises Unusable where the check blocks."""
    if params.safety == "off":
        return []
    found = engine.backends.safety().look(pixels).message
    if found and params.safety == "block":
        raise Unusable(f"{found} Its faces were left as they are.")
    return [found] if found else []

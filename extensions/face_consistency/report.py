"""What was done to each face and how alike it is: for the infotext, the badge, programs and people."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from webui.hooks import Badge, Processed

from .face import SAME_PERSON, VERY_CLOSE

CHANGES = frozenset({"warped", "refined", "swapped", "restored"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceReport:
    """`action`: what was done, joined by "+", or "kept" (tried, or nothing to do) or "skipped" (not tried).

    `similarity_before` and `_after`: cosine of SFace to the person; None where it cannot be measured.
    """

    box: tuple[int, int, int, int]
    action: str
    reason: str = ""
    similarity_before: float | None = None
    similarity_after: float | None = None

    @property
    def is_changed(self) -> bool:
        return not CHANGES.isdisjoint(self.action.split("+"))

    def json(self) -> dict[str, Any]:
        return {
            "box": list(self.box),
            "action": self.action,
            "reason": self.reason,
            "similarity_before": rounded(self.similarity_before),
            "similarity_after": rounded(self.similarity_after),
        }

    def line(self) -> str:
        """Such as "warped 0.31 -> 0.83"."""
        before, after = self.similarity_before, self.similarity_after
        if before is None or after is None:
            return f"{self.action} ({brief(self.reason)})" if self.reason else self.action
        if self.is_changed:
            return f"{self.action.replace('+', ' + ')} {before:.2f} -> {after:.2f}"
        return f"{self.action} {before:.2f}" + (f" ({brief(self.reason)})" if self.reason else "")


def brief(reason: str) -> str:
    """The beginning, which says what: all of it is told once, in the notes."""
    return re.split(r"[.:,;](?:\s|$)", reason, maxsplit=1)[0]


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def infotext_fields(faces: Sequence[FaceReport], reason: str) -> dict[str, str]:
    """Keys "Face", or "Face 1", "Face 2", ... for several."""
    if not faces:
        return {"Face": f"unchanged ({brief(reason)})"} if reason else {}
    if len(faces) == 1:
        return {"Face": faces[0].line()}
    return {f"Face {number}": face.line() for number, face in enumerate(faces, 1)}


def badge(faces: Sequence[FaceReport], reason: str) -> Badge:
    """Of the least like face: good from 0.8, a warning where nothing could be done or it is not the person."""
    title = "; ".join(infotext_fields(faces, reason).values())
    measured = [face for face in faces if face.similarity_after is not None]
    if not measured:
        done = next((face.action for face in faces if face.is_changed), "")
        return Badge(text=f"face {done or 'unchanged'}", tone="plain" if done else "warn", title=title)
    worst = min(measured, key=lambda face: face.similarity_after or 0.0)
    before, after = worst.similarity_before or 0.0, worst.similarity_after or 0.0
    text = f"face {before:.2f} → {after:.2f}" if worst.is_changed else f"face {after:.2f}"
    if after >= VERY_CLOSE:
        return Badge(text=text, tone="good", title=title)
    tried_in_vain = any(not face.is_changed for face in faces)
    return Badge(text=text, tone="warn" if after < SAME_PERSON or tried_in_vain else "plain", title=title)


def notes_on(faces: Sequence[FaceReport]) -> tuple[str, ...]:
    """Reasons for people; nothing on faces that went well."""
    several = len(faces) > 1
    told = []
    for number, face in enumerate(faces, 1):
        if face.reason and not (face.action == "skipped" and (face.similarity_after or 0) >= VERY_CLOSE):
            told.append(f"Face {number}: {face.reason}" if several else face.reason)
    return tuple(told)


def details(faces: Sequence[FaceReport], reason: str) -> Mapping[str, Any]:
    """For programs; "reason" only where no face was worked on."""
    found: dict[str, Any] = {"faces": [face.json() for face in faces]}
    return found if faces or not reason else {**found, "reason": reason}


def processed_of(image: Image.Image, faces: Sequence[FaceReport], reason: str, notes: Sequence[str]) -> Processed:
    """What the program is told: `reason` says why no face was worked on, `notes` what else is worth saying."""
    told = (*((reason,) if reason else ()), *notes, *notes_on(faces))
    return Processed(
        image=image,
        fields=infotext_fields(faces, reason),
        notes=tuple(dict.fromkeys(told)),
        badge=badge(faces, reason),
        is_composite=any(face.is_changed for face in faces),
        details=details(faces, reason),
    )

"""An optional, visible look at a picture for bare private parts. Says what it found; what happens then is the caller's.

Never runs unasked and never changes a picture: a check that turns pictures black in silence helps nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..face import Pixels
from .catalog import NUM_SAFETY_LABELS
from .objects import FoundObject, ObjectDetector
from .sessions import Session

PRIVATE: Mapping[str, str] = MappingProxyType(
    {
        "BUTTOCKS_EXPOSED": "bare buttocks",
        "FEMALE_BREAST_EXPOSED": "a bare breast",
        "FEMALE_GENITALIA_EXPOSED": "bare genitals",
        "MALE_GENITALIA_EXPOSED": "bare genitals",
        "ANUS_EXPOSED": "a bare anus",
    }
)
"""Labels that count, and how a message says them; bare feet, arms or a man's chest do not."""
NUMBERS: Mapping[int, str] = MappingProxyType(
    {
        2: "BUTTOCKS_EXPOSED",
        3: "FEMALE_BREAST_EXPOSED",
        4: "FEMALE_GENITALIA_EXPOSED",
        6: "ANUS_EXPOSED",
        14: "MALE_GENITALIA_EXPOSED",
    }
)
"""nudenet's numbers, for a file that doesn't say its labels (read from the notes in 320n.onnx)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`message` is a sentence for the user, empty if nothing was found."""

    parts: tuple[FoundObject, ...] = ()
    message: str = ""


class SafetyCheck:
    """nudenet's detector, if the user has it."""

    def __init__(self, session: Session) -> None:
        labels = tuple(NUMBERS.get(number, "") for number in range(NUM_SAFETY_LABELS))
        self.detector = ObjectDetector(session, labels=labels)

    @property
    def name(self) -> str:
        return self.detector.name

    def look(self, pixels: Pixels, *, min_score: float = 0.5) -> Finding:
        """Raises BrokenModel."""
        parts = tuple(found for found in self.detector.find(pixels, min_score=min_score) if found.label in PRIVATE)
        if not parts:
            return Finding()
        words = dict.fromkeys(PRIVATE[part.label] for part in parts)
        best = max(part.score for part in parts)
        message = (
            f"The safety check sees {' and '.join(words)} in this picture ({best:.0%} sure, from {min_score:.0%})."
        )
        return Finding(parts=parts, message=message)

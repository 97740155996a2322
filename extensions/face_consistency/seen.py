"""What pictures show, worked out once: the same photo goes with every picture of a job, and with the next job.

It is kept in memory only, for the few pictures that were asked for last.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .face import Face, Pixels
from .identity import Embedding

MAX_PICTURES = 12
MAX_BYTES = 256 * 2**20
"""Of pixels. The latest picture stays, however large it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One face in one picture."""

    pixels: Pixels
    face: Face
    embedding: Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFace:
    """`photo` is None where likeness cannot be judged; `problem` is why then, part of a sentence."""

    photo: Photo | None
    problem: str = ""


Seen = tuple[SeenFace, ...]
"""Of one picture, the largest face first."""


class SeenPictures:
    """By the contents of the pictures. Thread-safe; two threads may look at the same picture at once."""

    def __init__(self, *, max_pictures: int = MAX_PICTURES, max_bytes: int = MAX_BYTES) -> None:
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._known: OrderedDict[bytes, tuple[Seen, int]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, pixels: Pixels, look: Callable[[], Seen]) -> Seen:
        """What `look` finds in `pixels`, or found before."""
        key = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=20).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][0]
        seen = look()
        with self._lock:
            self._known[key] = seen, pixels.nbytes
            while len(self._known) > 1 and self._is_full():
                self._known.popitem(last=False)
        return seen

    def clear(self) -> None:
        with self._lock:
            self._known.clear()

    def __len__(self) -> int:
        return len(self._known)

    def _is_full(self) -> bool:
        size = sum(size_bytes for _, size_bytes in self._known.values())
        return len(self._known) > self._max_pictures or size > self._max_bytes

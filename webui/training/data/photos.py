"""A photo of a training set, and what one look at its file tells."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from webui.images.reading import flatten, open_image
from webui.training.data.looks import Looks, looks_of

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright photo; right and bottom are the first that are outside."""

FileKey = tuple[Path, int, int]
"""A file as it was: its path, time of change in ns, and size in bytes."""

MAX_PIXELS = 150_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Of a picture's file. `sha256` is of its upright sRGB pixels and its size, so that it tells contents apart and
    not files: metadata and compression without loss change nothing. `has_alpha`: whether any of it is transparent.
    """

    sha256: str
    width: int
    height: int
    has_alpha: bool
    looks: Looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """`name` is its path within its source, unique in a set. `caption` is None where nothing was said of it.

    `crop` is the part that counts, all of it if None. `repeats`: how often an epoch shows it, for its own part.
    `is_prior`: a picture of the class, not of the subject. `held_out`: its source says that it is not trained on.
    """

    name: str
    path: Path
    facts: FileFacts
    caption: str | None = None
    mask: Path | None = None
    repeats: int = 1
    crop: Box | None = None
    is_prior: bool = False
    held_out: bool = False

    @property
    def sha256(self) -> str:
        return self.facts.sha256

    @property
    def width(self) -> int:
        return self.facts.width

    @property
    def height(self) -> int:
        return self.facts.height

    @property
    def looks(self) -> Looks:
        return self.facts.looks

    @property
    def area(self) -> Box:
        """The part that counts."""
        return self.crop or (0, 0, self.width, self.height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the part that counts."""
        left, top, right, bottom = self.area
        return right - left, bottom - top


class PhotoReader:
    """Reads files, each once as long as it stays the same. Any number of threads may call it.

    `on_read` is shown each picture that was read, upright, in "RGB" or "RGBA", while it is there.
    """

    def __init__(self, on_read: Callable[[FileFacts, Image.Image], None] | None = None) -> None:
        self._known: dict[FileKey, FileFacts] = {}
        self._on_read = on_read

    def read(self, path: Path) -> FileFacts:
        """Raises UnreadableImage; OSError where the file itself cannot be reached."""
        key = file_key(path)
        facts = self._known.get(key)
        if facts is None:
            image = open_image(path, max_pixels=MAX_PIXELS)
            facts = self._known[key] = facts_of(image)
            if self._on_read is not None:
                self._on_read(facts, image)
        return facts

    def known(self, key: FileKey) -> FileFacts | None:
        """Of a file that was read before; nothing is looked at."""
        return self._known.get(key)

    def moved(self, old: FileKey, new: Path) -> None:
        """The file of `old` is at `new` now; it need not be read again."""
        if (facts := self._known.pop(old, None)) is not None:
            self._known[file_key(new)] = facts


def file_key(path: Path) -> FileKey:
    """Raises OSError."""
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


def facts_of(image: Image.Image) -> FileFacts:
    """Of an upright sRGB picture, "RGB" or "RGBA"."""
    alpha = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
    image = image if alpha else image.convert("RGB")
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    return FileFacts(
        sha256=digest.hexdigest(),
        width=image.width,
        height=image.height,
        has_alpha=alpha,
        looks=looks_of(flatten(image)),
    )


def open_pixels(path: Path) -> Image.Image:
    """Upright, sRGB, "RGB" or "RGBA". Raises UnreadableImage, and OSError where the file itself cannot be reached."""
    path.stat()  # a file that is gone is another matter than one that is damaged
    return open_image(path, max_pixels=MAX_PIXELS)

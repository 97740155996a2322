"""Where pictures are kept: what was made, by day and number, and what went in, by content.

A file appears whole or not at all, and never replaces another one, whatever happens and whoever else writes.
"""

import errno
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image

from webui.errors import StorageError
from webui.images.metadata import PNG_COMPRESSION, ImageFormat

EXTENSIONS: dict[ImageFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}

Kind = Literal["txt2img", "img2img", "extras"]

_NUMBER = re.compile(r"\.?(\d+)[-.]")
_INPUT_NAME = re.compile(r"[0-9a-f]{64}")

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another --data-dir."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or choose another --data-dir."),
    errno.EFBIG: ("the file is too large for the disk", "Choose another --data-dir."),
    errno.EACCES: ("it is not writable", "Change its permissions, or choose another --data-dir."),
    errno.EPERM: ("it is not writable", "Change its permissions, or choose another --data-dir."),
    errno.EROFS: ("the disk is read-only", "Choose another --data-dir."),
    errno.ENOTDIR: ("a file is in the place of a folder", "Move the file away, or choose another --data-dir."),
    errno.EEXIST: ("a file is in the place of a folder", "Move the file away, or choose another --data-dir."),
}


class ImageStore:
    """Finished pictures: `outputs_dir`/txt2img-images/2024-05-31/00042-1234567890.png."""

    def __init__(self, outputs_dir: Path) -> None:
        self._outputs_dir = outputs_dir

    def save(self, data: bytes, *, kind: Kind, seed: int, fmt: ImageFormat) -> Path:
        """Writes an encoded picture under the day's next number, unlike any other writer's. Raises StorageError."""
        folder = self._outputs_dir / f"{kind}-images" / date.today().isoformat()
        with _storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            number, reservation = _reserve_number(folder)
            path = folder / f"{number:05}-{seed}.{EXTENSIONS[fmt]}"
            _write_then_rename(reservation, data, path)
        return path


class KeptPictures(Protocol):
    """Pictures that a request names instead of holding them."""

    def get(self, name: str) -> Image.Image:
        """The picture that was kept under `name`, pixel by pixel. Raises StorageError."""


class HeldPictures:
    """Pictures in memory, for as long as a command runs; by the names that `InputStore` would give them."""

    def __init__(self) -> None:
        self._pictures: dict[str, Image.Image] = {}

    def put(self, image: Image.Image) -> str:
        """Keeps `image` and returns its name."""
        name = _name_of(image)
        self._pictures[name] = image
        return name

    def get(self, name: str) -> Image.Image:
        if name not in self._pictures:
            raise StorageError(f"The input picture {name[:12]} is not there.", hint="Choose the picture again.")
        return self._pictures[name]

    def __contains__(self, name: str) -> bool:
        return name in self._pictures


class InputStore:
    """Pictures and masks that jobs need, lossless, each once: `inputs_dir`/<sha256 of its pixels>.png."""

    def __init__(self, inputs_dir: Path) -> None:
        self._inputs_dir = inputs_dir

    def put(self, image: Image.Image) -> str:
        """Keeps `image` (mode "RGB", "RGBA" or "L") and returns its name. Raises StorageError."""
        name = _name_of(image)
        path = self.path(name)
        with _storage_errors(self._inputs_dir):
            if path.exists():
                return name
            self._inputs_dir.mkdir(parents=True, exist_ok=True)
            png = io.BytesIO()
            image.save(png, "PNG", compress_level=PNG_COMPRESSION)
            descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._inputs_dir)
            os.close(descriptor)
            _write_then_rename(Path(temporary), png.getvalue(), path)
        return name

    def get(self, name: str) -> Image.Image:
        """The picture that `put` named, pixel by pixel. Raises StorageError."""
        try:
            with Image.open(self.path(name), formats=["PNG"]) as file:
                return file.copy()
        except FileNotFoundError as error:
            raise StorageError(
                f"The input picture {name[:12]} is gone from '{self._inputs_dir}'.", hint="Choose the picture again."
            ) from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise StorageError(
                f"The input picture {name[:12]} in '{self._inputs_dir}' cannot be read: {error}.",
                hint="Choose the picture again.",
            ) from error

    def __contains__(self, name: str) -> bool:
        return _INPUT_NAME.fullmatch(name) is not None and self.path(name).is_file()

    def discard_unused(self, keep: Set[str]) -> None:
        """Deletes all pictures but those named in `keep`, and what a killed writer left. Not while others `put`."""
        with _storage_errors(self._inputs_dir):
            for path in [*self._inputs_dir.glob("*.png"), *self._inputs_dir.glob(".*.tmp")]:
                if path.stem not in keep:
                    path.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where the picture of this name lies, or would lie. Raises StorageError for what is no name."""
        if not _INPUT_NAME.fullmatch(name):
            raise StorageError(f"'{name}' is not the name of an input picture.", hint="Choose the picture again.")
        return self._inputs_dir / f"{name}.png"


def _name_of(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes()).hexdigest()


def _reserve_number(folder: Path) -> tuple[int, Path]:
    """The next free number in `folder`, and the hidden, empty file that keeps others from taking it.

    A killed writer's reservation stays and its number is passed over.
    """
    while True:
        number = max(_numbers(folder), default=0) + 1
        reservation = folder / f".{number:05}.tmp"
        try:
            reservation.touch(exist_ok=False)
        except FileExistsError:
            continue
        # Another writer may have finished with this number after we looked; from here on none can.
        if number > max((taken for taken in _numbers(folder, hidden=False)), default=0):
            return number, reservation
        reservation.unlink()


def _numbers(folder: Path, *, hidden: bool = True) -> Iterator[int]:
    for name in (path.name for path in folder.iterdir()):
        if (hidden or not name.startswith(".")) and (match := _NUMBER.match(name)):
            yield int(match[1])


def _write_then_rename(temporary: Path, data: bytes, path: Path) -> None:
    """Fills the file `temporary`, sees it onto the disk, and makes it `path`; leaves nothing if that fails."""
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), "Check the disk."))
        raise StorageError(f"Cannot write to '{folder}': {reason}.", hint=hint) from error

"""Small copies of photos for the page, made once and kept by what the photo shows."""

import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from PIL import Image

from webui.errors import InvalidRequest, StorageError
from webui.images.reading import flatten
from webui.library.whole_files import write_whole
from webui.training.data.photos import FileFacts, PhotoReader, file_key, open_pixels
from webui.training.data.set_contents import SetPhoto
from webui.training.data.sources import MAX_READERS

CopySize = Literal["thumb", "large"]
SIDES = MappingProxyType({"thumb": 320, "large": 1600})
"""Longest side in pixels; photos are never enlarged."""
QUALITY = MappingProxyType({"thumb": 82, "large": 90})


class Thumbnails:
    """JPEG files below `folder`. Any number of threads may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._decoding = threading.BoundedSemaphore(min(MAX_READERS, os.cpu_count() or 1))

    def seen(self, facts: FileFacts, image: Image.Image) -> None:
        """A photo was decoded: its thumbnail costs little now. A full disk is no reason not to read photos."""
        path = self._path(facts.sha256, "thumb")
        if not path.is_file():
            try:
                self._keep(path, _encoded(image, "thumb"))
            except StorageError:
                return

    def get(self, path: Path, size: CopySize, reader: PhotoReader) -> bytes:
        """Raises UnreadableImage; OSError where the photo cannot be reached."""
        facts = reader.known(file_key(path))
        if facts is None:
            with self._decoding:  # large photos take much memory, and a page asks for many at once
                facts = reader.read(path)
        copy = self._path(facts.sha256, size)
        try:
            return copy.read_bytes()
        except OSError:
            with self._decoding:
                data = _encoded(open_pixels(path), size)
        try:
            self._keep(copy, data)
        except StorageError:  # it is shown anyway, and made again next time
            return data
        return data

    def mask(self, photo: SetPhoto, reader: PhotoReader) -> bytes:
        """PNG, gray, white where it is learnt from: its mask, or what is not transparent. Raises as `get`."""
        if photo.mask is not None:
            image = flatten(open_pixels(photo.mask), "#000000").convert("L")
        elif reader.read(photo.path).has_alpha:
            image = open_pixels(photo.path).getchannel("A")
        else:
            raise InvalidRequest("name", f"'{photo.name}' has no mask.")
        image.thumbnail((SIDES["large"],) * 2, Image.Resampling.BOX)
        data = io.BytesIO()
        image.save(data, "PNG")
        return data.getvalue()

    def forget(self, contents: Iterable[str]) -> None:
        """Photos by `sha256` that nobody will look at."""
        for sha256 in contents:
            for size in SIDES:
                self._path(sha256, size).unlink(missing_ok=True)

    def _path(self, sha256: str, size: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256[:40]}-{size}.jpg"

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            raise StorageError(f"{path} could not be written: {error.strerror or error}.") from error


def _encoded(image: Image.Image, size: str) -> bytes:
    """What is transparent is white, as it is trained."""
    side = SIDES[size]
    factor = side / max(image.size)
    if factor < 1:
        shape = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        image = image.resize(shape, Image.Resampling.HAMMING, reducing_gap=2.0)
    data = io.BytesIO()
    flatten(image).save(data, "JPEG", quality=QUALITY[size])
    return data.getvalue()

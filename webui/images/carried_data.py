"""Data that some programs of the field carry in a picture: textual inversions as a picture card.

Two ways are known. In a PNG text chunk "sd-ti-embedding": base64 of JSON. In the pixels of a lossless picture: the
card lies between two strips, with a black column at each side of it; the low four bits of the left strip's values are
the low halves of the data's bytes, those of the right strip the high halves, both mixed with a fixed stream; the data
is zlib of JSON, repeated to fill the strip. In the JSON a tensor is {"TORCHTENSOR": nested lists}.
"""

import base64
import binascii
import json
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import UnsupportedModel

TEXT_KEY = "sd-ti-embedding"
TENSOR_KEY = "TORCHTENSOR"
MAX_PIXELS = 64_000_000
MAX_JSON_BYTES = 64_000_000

Pixels = NDArray[np.uint8]


def read_carried_data(path: Path) -> dict[str, Any]:
    """The JSON object that the picture carries, its tensors as float32 arrays. Raises UnsupportedModel."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnsupportedModel(path, f"it is a picture of {image.width} x {image.height}, too large to search")
            text = getattr(image, "text", {}).get(TEXT_KEY)
            raw = _from_text(text) if isinstance(text, str) else _from_pixels(np.array(image.convert("RGB")))
    except UnsupportedModel:
        raise
    # Decoders raise nearly every exception there is on damaged files: zlib.error, struct.error, SyntaxError, ...
    except Exception as error:
        raise UnsupportedModel(path, f"it cannot be read as a picture ({error})") from error
    if raw is None:
        raise UnsupportedModel(path, "it is a picture without a textual inversion in it")
    try:
        content = json.loads(raw, object_hook=_with_array)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UnsupportedModel(path, "the textual inversion in it is damaged") from error
    if not isinstance(content, dict):
        raise UnsupportedModel(path, "the textual inversion in it is damaged")
    return content


def _with_array(entry: dict[str, Any]) -> Any:
    return np.asarray(entry[TENSOR_KEY], dtype=np.float32) if TENSOR_KEY in entry else entry


def _from_text(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _from_pixels(pixels: Pixels) -> bytes | None:
    halves: Pixels = _without_border(pixels) & np.uint8(0x0F)
    if not halves.size:
        return None
    black = np.flatnonzero(halves.sum(axis=(0, 2)) == 0)
    if len(black) < 2:
        return None
    low, high = halves[:, : black[0]], halves[:, black[-1] + 1 :]
    if low.shape != high.shape or not low.size:
        return None
    data = (_unmixed(high) << 4) | _unmixed(low)
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(data.tobytes(), MAX_JSON_BYTES)
    except zlib.error:
        return None
    return raw if unpacker.eof else None


def _without_border(pixels: Pixels) -> Pixels:
    """Without the rows and columns at the edges that have no bright pixel."""
    bright: NDArray[np.bool_] = np.all(pixels > 0, axis=2)
    rows, columns = np.flatnonzero(np.any(bright, axis=1)), np.flatnonzero(np.any(bright, axis=0))
    if not len(rows):
        return pixels[:0]
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _unmixed(halves: Pixels) -> Pixels:
    """The halves without the stream: low bits of a linear congruential generator (Numerical Recipes' constants)."""

    def stream() -> Any:
        state = 0
        while True:
            state = (1664525 * state + 1013904223) % 2**32
            yield state % 255 & 0x0F

    mixed_with = np.fromiter(islice(stream(), halves.size), dtype=np.uint8, count=halves.size)
    return np.asarray(halves ^ mixed_with.reshape(halves.shape), dtype=np.uint8)

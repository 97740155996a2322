"""What tests of the whole story share: an engine without a home, changed faces, and a model that paints."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.backends.shelf import Backends
from extensions.face_consistency.consent import ConsentBook
from extensions.face_consistency.engine import Engine
from extensions.face_consistency.face import Pixels
from extensions.face_consistency.face_models import FaceModelStore


def engine_in(folder: Path, networks: Models) -> Engine:
    """Its models folder is `folder`/models, its data folder `folder`/data."""
    return Engine(
        models=networks,
        backends=Backends([folder / "models"], "cpu"),
        saved=FaceModelStore(folder / "data" / "faces"),
        consent=ConsentBook(folder / "data"),
    )


def liquified(pixels: Pixels, amount: float = 6) -> Pixels:
    """Bent by waves, as no person is: the face is there, and it is somebody else's."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    there = x + amount * np.sin(y / 14) + 0.6 * amount * np.cos(x / 11), y + amount * np.cos(x / 12)
    return np.asarray(cv2.remap(pixels, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.uint8)


def stretched(pixels: Pixels, by: float = 1.25) -> Pixels:
    return np.asarray(cv2.resize(pixels, None, fx=by, fy=1.0, interpolation=cv2.INTER_CUBIC), np.uint8)


def group() -> Pixels:
    """Six people, who are not the astronaut; read where insightface is installed, never copied."""
    spec = find_spec("insightface")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "data" / "images" / "t1.jpg"
    return np.asarray(Image.open(path).convert("RGB"), np.uint8)


def picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels)


def array(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), np.uint8)


class Painter:
    """A `Redraw` that paints with a function where the mask is white, and remembers what it was asked for."""

    def __init__(self, paint: Callable[[Pixels], Pixels]) -> None:
        self.paint = paint
        self.calls: list[dict[str, Any]] = []

    def __call__(self, image: Image.Image, mask: Image.Image, **options: Any) -> Image.Image:
        self.calls.append({**options, "mask": np.asarray(mask.convert("L"))})
        white = np.asarray(mask.convert("L")) > 127
        pixels = array(image)
        return Image.fromarray(np.where(white[..., None], self.paint(pixels), pixels))


def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*address: object) -> None:
        raise AssertionError(f"something wants to reach the network: {address[1:]}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)

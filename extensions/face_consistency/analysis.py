"""The shipped networks, opened on first use and kept open: what they take and give, nothing about what it means.

Everything runs in OpenCV's dnn on the processor. One lock guards all of it, because a network holds its input.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from webui.hooks import WebUIError

from .face import Pixels, Points

DETECTOR = "face_detection_yunet_2023mar.onnx"
MESH = "face_landmark.tflite"
PERSON = "selfie_segmentation.tflite"
IDENTITY = "face_recognition_sface_2021dec_uint8.onnx"
PALMS = "palm_detection_full.tflite"
"""Does not come along; a user may put it under `models/face`."""

MESH_SIDE = 192
PERSON_SIDE = 256
IDENTITY_SIDE = 112
PALM_SIDE = 192
PRESENCE_LAYER = "conv2d_31"
"""Name of the mesh network's second output, the logit that says whether there is a face."""
PALM_LAYERS = ("Identity", "Identity_1")
"""Outputs of the palm network: boxes with points, and scores."""
MAX_OVERLAP = 0.3
"""Boxes that share more than this (intersection over union) are one face."""


HINT = "Get the extension's folder anew; its `models` are part of it."
HINTS = {PALMS: "Get it on the Extensions page, among the models of face consistency."}


class MissingFaceModel(WebUIError):
    """A file that comes with the extension is not there or cannot be read."""


class Models:
    """The networks in `folder`, and those a user has added in the folders `added`.

    Thread-safe. Raises MissingFaceModel when one is needed that cannot be opened.
    """

    def __init__(self, folder: Path, *, added: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.folders = (folder, *added)
        self._lock = threading.Lock()
        self._open: dict[str, Any] = {}

    def detect(self, pixels: Pixels, *, min_score: float) -> NDArray[np.float32]:
        """YuNet's rows (n, 15): x, y, width, height, five points (right eye first, the person's), score 0 to 1."""
        height, width = pixels.shape[:2]
        with self._lock:
            detector = self._get(DETECTOR, open_detector)
            detector.setInputSize((width, height))
            detector.setScoreThreshold(min_score)
            rows = detector.detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
        return np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)

    def mesh(self, crop: Pixels) -> Points:
        """(468, 3) points in pixels of `crop` (192, 192, 3)."""
        with self._lock:
            network = self._get(MESH, cv2.dnn.readNetFromTFLite)
            network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
            return np.array(network.forward(), np.float32).reshape(-1, 3)

    def presence(self, crop: Pixels) -> float:
        """Whether `crop` (192, 192, 3) is a face, a logit. As slow as `mesh`: OpenCV gives one output at a time."""
        with self._lock:
            network = self._get(MESH, cv2.dnn.readNetFromTFLite)
            network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
            return float(network.forward(PRESENCE_LAYER).ravel()[0])

    def person(self, crop: Pixels) -> NDArray[np.float32]:
        """(256, 256) 0 to 1 for `crop` (256, 256, 3): how much each pixel is a person."""
        with self._lock:
            network = self._get(PERSON, cv2.dnn.readNetFromTFLite)
            network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
            return np.array(network.forward(), np.float32).reshape(PERSON_SIDE, PERSON_SIDE)

    def identity(self, crop: Pixels) -> NDArray[np.float32]:
        """(128,) of an aligned face `crop` (112, 112, 3) RGB, not normalized."""
        with self._lock:
            network = self._get(IDENTITY, cv2.dnn.readNetFromONNX)
            network.setInput(cv2.dnn.blobFromImage(crop))
            return np.array(network.forward(), np.float32).ravel()

    def palms(
        self, crop: Pixels, *, min_score: float
    ) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
        """Palms in `crop` (192, 192, 3): (n,) numbers of anchors, (n, 18) offsets from them in pixels, (n,) scores."""
        boxes_layer, scores_layer = PALM_LAYERS
        with self._lock:
            network = self._get(PALMS, open_palms)
            network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
            logits = np.array(network.forward(scores_layer), np.float32).ravel()
            scores = (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)
            kept = np.flatnonzero(scores >= min_score)
            # Most crops show no hand, and the second output would take as long as the first.
            rows = network.forward(boxes_layer)[0][kept] if len(kept) else np.zeros((0, 18))
        return kept, np.array(rows, np.float32), scores[kept]

    def open(self) -> None:
        """Those that finding and telling apart take, so that what is wrong with them shows now."""
        with self._lock:
            self._get(DETECTOR, open_detector)
            self._get(MESH, cv2.dnn.readNetFromTFLite)
            self._get(IDENTITY, cv2.dnn.readNetFromONNX)

    def path_of(self, file: str) -> Path | None:
        """Where a network's file is; None if nowhere."""
        return next((folder / file for folder in self.folders if (folder / file).is_file()), None)

    def close(self) -> None:
        """Frees the memory; the next use opens them again."""
        with self._lock:
            self._open.clear()

    def _get(self, file: str, read: Callable[[NDArray[np.uint8]], Any]) -> Any:
        if file not in self._open:
            path = self.path_of(file) or self.folders[-1 if file == PALMS else 0] / file
            try:
                # Bytes rather than a path: OpenCV on Windows opens only paths of the system's code page.
                self._open[file] = read(np.frombuffer(path.read_bytes(), np.uint8))
            except (OSError, ValueError, cv2.error) as error:
                # The text of OpenCV's own errors is full of paths of the machine it was built on.
                reason = getattr(error, "err", None) or getattr(error, "strerror", None) or error
                message = f"Face consistency's model {path} cannot be read ({reason})."
                raise MissingFaceModel(message, hint=HINTS.get(file, HINT)) from error
        return self._open[file]


def open_detector(content: NDArray[np.uint8]) -> Any:
    level = cv2.utils.logging.getLogLevel()
    # It warns on every opening that a backend setting of its own is ignored.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        no_config = np.zeros(0, np.uint8)
        return cv2.FaceDetectorYN.create("onnx", content, no_config, (320, 320), nms_threshold=MAX_OVERLAP)
    finally:
        cv2.utils.logging.setLogLevel(level)


def open_palms(content: NDArray[np.uint8]) -> Any:
    network = cv2.dnn.readNetFromTFLite(content)
    if not set(PALM_LAYERS) <= set(network.getLayerNames()):
        raise ValueError("it is no palm detector")
    return network

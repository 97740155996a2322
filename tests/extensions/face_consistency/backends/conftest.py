"""No test of the backends may reach the network, and a face to work on."""

import socket

import numpy as np
import pytest
from numpy.typing import NDArray

from extensions.face_consistency.face import Face
from extensions.face_consistency.identity import ANCHORS, TEMPLATE


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*address: object) -> None:
        raise AssertionError(f"a backend wants to reach the network: {address[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def make_face(
    *, center: tuple[float, float] = (256, 256), width: float = 150, turn_degrees: float = 0, seed: int = 0
) -> Face:
    """An egg of mesh points, with eyes, nose and mouth about where ArcFace's template has them."""
    random = np.random.default_rng(seed)
    turns = random.uniform(0, 2 * np.pi, 468)
    reach = np.sqrt(random.uniform(0, 1, 468))
    points = np.stack([reach * np.cos(turns) * 0.5, reach * np.sin(turns) * 0.65, random.normal(0, 0.1, 468)], axis=1)
    five = (TEMPLATE - (56, 72)) / 80
    for place, indices in zip(five, ANCHORS, strict=True):
        points[list(indices), :2] = place
    angle = np.deg2rad(turn_degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points[:, :2] = points[:, :2] @ turn.T
    points *= width
    points[:, :2] += center
    left, top = points[:, :2].min(axis=0)
    right, bottom = points[:, :2].max(axis=0)
    return Face(
        box=(float(left), float(top), float(right), float(bottom)),
        score=0.9,
        points=points.astype(np.float32),
        presence=20.0,
        roll_degrees=turn_degrees,
        yaw_degrees=0.0,
    )


@pytest.fixture
def face() -> Face:
    return make_face()


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """512x512, smooth with detail."""
    return make_picture(512, 512)


def make_picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phases = random.uniform(0, 6, 3)
    waves = [110 + 70 * np.sin(x / 37 + phase) * np.cos(y / (29 + 5 * i) + phase) for i, phase in enumerate(phases)]
    return np.clip(np.stack(waves, axis=-1) + random.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)

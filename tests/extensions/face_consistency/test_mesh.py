"""How a head is held is read from the mesh."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import LinearNDInterpolator

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.face import Face, Pixels, Points
from extensions.face_consistency.mesh import find_mesh, pose_of
from extensions.face_consistency.topology import OVAL


def turn_in_space(yaw: float, pitch: float) -> np.ndarray:
    """(3, 3): first to the picture's right by `yaw`, then up by `pitch`; x right, y down, z away."""
    y, p = np.radians([yaw, pitch])
    sideways = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    upwards = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    return upwards @ sideways


def turned_head(pixels: Pixels, points: Points, turn: np.ndarray) -> Pixels:
    """The picture seen as a surface, as deep as the mesh says and sloping away around it, turned in space."""
    center, width = points.mean(axis=0), np.ptp(points[:, 0])
    rings = []
    for scale, slope in ((1.35, 0.25), (1.8, 0.45), (4, 0.5)):
        ring = points[list(OVAL)].copy()
        ring[:, :2] = center[:2] + (ring[:, :2] - center[:2]) * scale
        ring[:, 2] += slope * width
        rings.append(ring)
    surface = np.vstack([points, *rings])
    reach = np.arange(-2 * width, 2 * width, 0.4, np.float32)
    x, y = np.meshgrid(center[0] + reach, center[1] + reach)
    depth = LinearNDInterpolator(surface[:, :2], surface[:, 2], fill_value=surface[:, 2].max())(x, y)
    moved = np.stack([x - center[0], y - center[1], depth - center[2]], axis=-1).reshape(-1, 3) @ turn.T
    colors = cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).reshape(-1, 3)
    height, wide = pixels.shape[:2]
    columns, rows = (np.rint(moved[:, axis] + center[axis]).astype(int) for axis in (0, 1))
    seen = (columns >= 0) & (columns < wide) & (rows >= 0) & (rows < height)
    far_first = np.argsort(-moved[seen, 2])
    picture = np.full_like(pixels, 127)
    picture[rows[seen][far_first], columns[seen][far_first]] = colors[seen][far_first]
    return np.asarray(cv2.medianBlur(picture, 3), np.uint8)


@pytest.mark.parametrize(("yaw", "tolerance"), [(-35, 7), (-25, 6), (-15, 5), (15, 5), (25, 8), (35, 8)])
def test_a_head_turned_in_space_has_that_yaw(
    yaw: float, tolerance: float, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    picture = turned_head(astronaut, astronaut_face.points, turn_in_space(yaw, 0))
    (face,) = find_faces(picture, models=networks)
    assert abs(face.yaw_degrees - astronaut_face.yaw_degrees - yaw) < tolerance


@pytest.mark.parametrize("pitch", [-25, -12, 12, 25])
def test_a_head_held_up_or_down_has_that_pitch(
    pitch: float, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    picture = turned_head(astronaut, astronaut_face.points, turn_in_space(0, pitch))
    (face,) = find_faces(picture, models=networks)
    assert abs(pose_of(face.points).pitch - pose_of(astronaut_face.points).pitch - pitch) < 5


@given(yaw=st.floats(-50, 50), roll=st.floats(-179, 179))
def test_points_turned_in_space_and_then_in_the_plane_give_both_angles(
    yaw: float, roll: float, astronaut_face: Face
) -> None:
    start = pose_of(astronaut_face.points)
    level, angle = np.radians(-start.roll), np.radians(roll)
    in_plane = [np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) for a in (level, angle)]
    turn = in_plane[1] @ turn_in_space(yaw, 0) @ in_plane[0]
    pose = pose_of((astronaut_face.points @ turn.T).astype(np.float32))
    assert abs((pose.roll - roll + 180) % 360 - 180) < 2
    assert abs(pose.yaw - start.yaw - yaw) < 3


def test_a_mirrored_face_looks_the_other_way(astronaut: Pixels, astronaut_face: Face, networks: Models) -> None:
    picture = turned_head(astronaut, astronaut_face.points, turn_in_space(25, 0))
    (face,), (mirrored,) = (find_faces(p, models=networks) for p in (picture, picture[:, ::-1]))
    assert face.yaw_degrees > 15
    assert mirrored.yaw_degrees < -15
    assert abs(face.roll_degrees + mirrored.roll_degrees) < 3


def test_a_box_that_is_a_quarter_off_still_leads_to_the_mesh(
    astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    left, top, right, bottom = astronaut_face.box
    by = astronaut_face.width_px / 4
    mesh = find_mesh(astronaut, (left + by, top - by, right + by, bottom - by), networks)
    off = np.linalg.norm(mesh.points[:, :2] - astronaut_face.points[:, :2], axis=1).mean()
    assert off < 0.03 * astronaut_face.width_px


def test_where_no_face_is_the_mesh_does_not_believe_in_one(networks: Models) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    mesh = find_mesh(noise, (50, 50, 250, 250), networks)
    assert mesh.presence < 0
    assert np.isfinite(mesh.points).all()

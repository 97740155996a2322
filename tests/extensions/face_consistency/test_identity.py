"""One person's faces are alike, two persons' are not, and the network sees the colours it was trained with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from extensions.face_consistency.analysis import IDENTITY, Models
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.face import SAME_PERSON, VERY_CLOSE, Face, Pixels
from extensions.face_consistency.identity import (
    ANCHORS,
    MIN_FACE_PX,
    TEMPLATE,
    Embedding,
    embed,
    similarity,
)
from extensions.face_consistency.sampling import cut, similarity_to


@pytest.fixture(scope="module")
def reference(astronaut: Pixels, astronaut_face: Face, networks: Models) -> Embedding:
    return embed(astronaut, astronaut_face, models=networks)


def alike(pixels: Pixels, reference: Embedding, networks: Models) -> float:
    (face,) = find_faces(pixels, models=networks)
    return similarity(reference, embed(pixels, face, models=networks))


def test_an_embedding_has_length_one_and_is_most_like_itself(reference: Embedding) -> None:
    assert reference.shape == (128,)
    assert reference.dtype == np.float32
    assert np.linalg.norm(reference) == pytest.approx(1, abs=1e-5)
    assert similarity(reference, reference) == pytest.approx(1, abs=1e-5)


def test_the_network_is_given_rgb_as_opencvs_own_recognizer_gives_it(
    astronaut: Pixels, astronaut_face: Face, networks: Models, reference: Embedding, shipped: Path
) -> None:
    eyes_nose_mouth = astronaut_face.points[np.array(ANCHORS), :2].mean(axis=1)
    crop = cut(astronaut, similarity_to(eyes_nose_mouth, TEMPLATE), 112)
    recognizer = cv2.FaceRecognizerSF.create(str(shipped / IDENTITY), "")
    expected = recognizer.feature(np.ascontiguousarray(crop[..., ::-1])).ravel()
    assert similarity(reference, expected / np.linalg.norm(expected)) > 0.9999
    wrong_order = recognizer.feature(crop).ravel()
    assert similarity(reference, wrong_order / np.linalg.norm(wrong_order)) < 0.98


@settings(max_examples=10)
@given(degrees=st.floats(-180, 180))
def test_a_turned_face_is_the_same_person(
    degrees: float, astronaut: Pixels, astronaut_face: Face, networks: Models, reference: Embedding
) -> None:
    matrix = cv2.getRotationMatrix2D(astronaut_face.center, degrees, 1.0)
    matrix[:, 2] += 256 - np.array(astronaut_face.center)
    picture = cv2.warpAffine(astronaut, matrix, (512, 512), borderValue=(127, 127, 127))
    assert alike(np.asarray(picture, np.uint8), reference, networks) > 0.97


@pytest.mark.parametrize(("width", "least"), [(200, 0.98), (60, 0.97), (MIN_FACE_PX, 0.93), (20, 0.6)])
def test_a_smaller_copy_is_the_same_person_as_far_as_it_can_be_judged(
    width: int, least: float, astronaut: Pixels, astronaut_face: Face, networks: Models, reference: Embedding
) -> None:
    factor = width / astronaut_face.width_px
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    copy = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=interpolation)
    assert alike(np.asarray(copy, np.uint8), reference, networks) > least


def test_an_enlarged_copy_is_measured_as_the_picture_itself(
    astronaut: Pixels, networks: Models, reference: Embedding
) -> None:
    face = np.asarray(cv2.resize(astronaut[:256, 96:352], (2048, 2048), interpolation=cv2.INTER_CUBIC), np.uint8)
    assert alike(face, reference, networks) > 0.98


def test_a_blurred_and_a_relit_copy_are_very_close(astronaut: Pixels, networks: Models, reference: Embedding) -> None:
    blurred = np.asarray(cv2.GaussianBlur(astronaut, (0, 0), 1.2), np.uint8)
    dark = (astronaut * 0.5).astype(np.uint8)
    assert alike(blurred, reference, networks) > VERY_CLOSE
    assert alike(dark, reference, networks) > VERY_CLOSE


def test_another_person_is_not_the_same(networks: Models, reference: Embedding) -> None:
    photographer = np.repeat(data.camera()[..., None], 3, axis=2)
    assert alike(photographer, reference, networks) < SAME_PERSON

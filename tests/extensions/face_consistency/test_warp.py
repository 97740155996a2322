"""The warp keeps its promises wherever the faces lie, and gives the person back in pictures of a real one."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.face_consistency import topology
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.face import SAME_PERSON, Face, Pixels, Points
from extensions.face_consistency.identity import embed, similarity
from extensions.face_consistency.masks import width_of
from extensions.face_consistency.warp import aligned, destination, warp_face

OUTLINE = list(topology.OVAL)
AREAS = ("oval", "brows", "features", "auto")


@pytest.fixture(scope="module")
def face(astronaut_face) -> Face:
    return astronaut_face


@pytest.fixture(scope="module")
def stranger(astronaut, face, networks) -> tuple[Pixels, Face]:
    """The astronaut's picture with another person's face in a wider head."""
    import insightface

    photo = cv2.imread(str(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"))[..., ::-1]
    other = min(find_faces(photo, models=networks), key=lambda found: abs(found.yaw_degrees))
    fit = cv2.estimateAffinePartial2D(other.points[:, :2].copy(), face.points[:, :2].copy(), method=cv2.LMEDS)[0]
    moved = cv2.warpAffine(np.ascontiguousarray(photo), fit, astronaut.shape[1::-1])
    mask = np.zeros(astronaut.shape[:2], np.float32)
    cv2.fillPoly(mask, [np.int32(face.points[OUTLINE, :2])], 0.9)
    mask = cv2.GaussianBlur(mask, (0, 0), 4)[..., None]
    mixed = np.uint8(np.rint(astronaut + mask * (moved.astype(np.float32) - astronaut)))
    picture = cv2.resize(mixed, (580, 512), interpolation=cv2.INTER_CUBIC)
    return picture, find_faces(picture, models=networks)[0]


def moved(face: Face, *, scale: float = 1.0, roll: float = 0.0, to: tuple[float, float]) -> Face:
    """The face turned clockwise by `roll` degrees, its middle at `to`."""
    c, s = scale * np.cos(np.radians(roll)), scale * np.sin(np.radians(roll))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, scale]], np.float32)
    points = (face.points - face.points.mean(axis=0)) @ turn.T + np.array([*to, 0], np.float32)
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return replace(face, points=points.astype(np.float32), box=(left, top, right, bottom))


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def untouched(target: Pixels, warped) -> bool:
    return bool((warped.pixels[warped.mask == 0] == target[warped.mask == 0]).all())


# Wherever the faces lie


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    place=st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)),
    scale=st.floats(0.02, 3),
    roll=st.floats(-180, 180),
    area=st.sampled_from(AREAS),
    blend=st.sampled_from(("multiband", "feather")),
    options=st.fixed_dictionaries(
        {name: st.floats(0, 1) for name in ("strength", "shape_keep", "color")} | {"feather": st.floats(0, 0.3)}
    ),
)
def test_pixels_outside_the_mask_are_the_targets_own(astronaut, face, size, place, scale, roll, area, blend, options):
    target = noise(*size)
    before = target.copy()
    there = moved(face, scale=scale, roll=roll, to=(place[0] * size[0], place[1] * size[1]))
    warped = warp_face(astronaut, face, target, there, area=area, blend=blend, **options)
    assert untouched(target, warped)
    assert warped.pixels.shape == target.shape and warped.pixels.dtype == np.uint8
    assert warped.mask.shape == target.shape[:2] and warped.mask.dtype == np.float32
    assert np.isfinite(warped.mask).all() and warped.mask.min() >= 0 and warped.mask.max() <= options["strength"] + 1e-6
    assert (target == before).all()


@settings(max_examples=15, deadline=None)
@given(place=st.tuples(st.floats(0, 1), st.floats(0, 1)), scale=st.floats(0.1, 4), roll=st.floats(-180, 180))
def test_a_source_that_is_cut_by_its_border_gives_only_what_it_shows(face, place, scale, roll):
    """Its picture is green; all that is not shown would come from anywhere else."""
    source = np.zeros((120, 150, 3), np.uint8)
    source[..., 1] = 200
    cut = moved(face, scale=scale, roll=roll, to=(place[0] * 150, place[1] * 120))
    target = np.full((300, 300, 3), 90, np.uint8)
    there = moved(face, scale=2, to=(150, 150))
    warped = warp_face(source, cut, target, there, color=0, area="oval", blend="feather", shape_keep=0)
    back = cv2.estimateAffinePartial2D(there.points[OUTLINE, :2].copy(), cut.points[OUTLINE, :2].copy())[0]
    rows, columns = np.nonzero(warped.mask)
    places = np.stack([columns, rows], axis=1) @ back[:, :2].T + back[:, 2]
    assert (places >= -0.5 - scale).all() and (places <= np.array([149.5, 119.5]) + scale).all()
    full = warped.mask == 1
    assert (warped.pixels[full] == (0, 200, 0)).all()


def test_strength_0_is_the_target_bit_by_bit(astronaut, face, stranger):
    target, there = stranger
    warped = warp_face(astronaut, face, target, there, strength=0)
    assert (warped.pixels == target).all() and not warped.mask.any()


def test_a_face_beyond_the_picture_changes_nothing(astronaut, face):
    target = noise(100, 80)
    warped = warp_face(astronaut, face, target, moved(face, to=(400, -300)))
    assert (warped.pixels == target).all() and not warped.mask.any()


def test_a_face_of_no_size_changes_no_more_than_its_place(astronaut, face):
    target = noise(60, 60)
    warped = warp_face(astronaut, face, target, moved(face, scale=0, to=(30, 30)))
    assert untouched(target, warped) and (warped.mask > 0).sum() <= 9


def test_the_mask_stays_inside_the_meshs_outline(astronaut, face, stranger):
    target, there = stranger
    for area in AREAS:
        warped = warp_face(astronaut, face, target, there, area=area)
        outline = np.zeros(target.shape[:2], np.uint8)
        cv2.fillPoly(outline, [np.int32(np.round(there.points[OUTLINE, :2]))], 1)
        assert warped.mask.max() == 1
        assert not warped.mask[cv2.dilate(outline, np.ones((3, 3), np.uint8)) == 0].any()


def test_a_face_at_the_border_is_warped_up_to_the_border(astronaut, face):
    target = np.full((200, 200, 3), 120, np.uint8)
    warped = warp_face(astronaut, face, target, moved(face, scale=1.5, to=(0, 100)), area="oval")
    assert warped.mask[:, 0].max() == 1
    assert untouched(target, warped)


def test_the_second_face_waits_untouched_while_the_first_is_warped(astronaut, face):
    target = np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)
    mirrored = face.points * np.array([-1, 1, 1], np.float32) + np.array([1023, 0, 0], np.float32)
    first = warp_face(astronaut, face, target, moved(face, to=tuple(face.points.mean(axis=0)[:2])), shape_keep=1)
    assert first.mask[:, :512].any() and (first.pixels[:, 512:] == target[:, 512:]).all()
    middle = tuple(mirrored.mean(axis=0)[:2].tolist())
    second = warp_face(astronaut, face, first.pixels, moved(face, to=middle))
    assert second.mask[:, 512:].any() and (second.pixels[:, :512] == first.pixels[:, :512]).all()


# Shapes


def test_the_outline_follows_the_generated_head_exactly(face, stranger):
    there = stranger[1]
    for keep in (0, 0.5, 1):
        points = destination(face.points, there.points, keep)
        assert np.allclose(points[OUTLINE], there.points[OUTLINE], atol=1e-3)


def test_the_features_move_towards_their_own_proportions_as_shape_keep_grows(face, stranger):
    there = stranger[1].points
    own = aligned(face.points, there)
    inner = [*topology.RIGHT_EYE, *topology.LEFT_EYE, *topology.NOSE]
    gaps = [
        float(np.linalg.norm((destination(face.points, there, keep) - own)[inner], axis=1).mean())
        for keep in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.5 * gaps[0]


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(st.floats(-180, 180), st.floats(-60, 60), st.floats(-180, 180)),
    scale=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_a_head_seen_from_elsewhere_is_the_same_shape(face, turn, scale, shift):
    from scipy.spatial.transform import Rotation

    seen = scale * Rotation.from_euler("xyz", turn, degrees=True).apply(face.points) + np.array([*shift, 0])
    assert np.allclose(aligned(face.points, seen.astype(np.float32)), seen, atol=1e-3 * scale * width_of(face.points))


def with_mouth(points: Points, share: float) -> Points:
    """The lips opened to that share of the mouth's width."""
    changed = points.copy()
    upper, lower, width = points[13], points[14], np.linalg.norm(points[61] - points[291])
    down = (points[topology.CHIN] - points[topology.FOREHEAD_TOP]) / np.linalg.norm(points[152] - points[10])
    inner = list(topology.INNER_LIPS)
    middle = (upper + lower) / 2
    changed[inner] -= ((points[inner] - middle) @ down)[:, None] * down
    changed[13], changed[14] = middle - down * share * width / 2, middle + down * share * width / 2
    return changed


def test_lips_that_are_closed_in_the_source_stay_closed(face):
    closed, wide = with_mouth(face.points, 0), with_mouth(face.points, 0.5)
    points = destination(closed, wide, 0.0)
    gap = np.linalg.norm(points[13] - points[14]) / np.linalg.norm(wide[13] - wide[14])
    assert gap < 0.1


def test_lips_that_are_open_alike_follow_the_generated_ones(face):
    one, other = with_mouth(face.points, 0.3), with_mouth(face.points, 0.33)
    assert np.allclose(destination(one, other, 0.0), other, atol=1e-3)


def test_the_cheek_that_the_source_hides_stays_the_generated_one(face):
    """The source looks to one side, and beside its far cheek lies a red wall."""
    from scipy.spatial.transform import Rotation

    middle = face.points.mean(axis=0)
    turned = Rotation.from_euler("y", 25, degrees=True).apply(face.points - middle) + np.array([150, 150, 0])
    here = replace(face, points=turned.astype(np.float32))
    outline = np.zeros((300, 300), np.uint8)
    cv2.fillPoly(outline, [np.int32(here.points[OUTLINE, :2])], 1)
    source = np.full((300, 300, 3), (200, 150, 120), np.uint8)
    source[outline == 0] = (255, 0, 0)
    target = np.full((300, 300, 3), (200, 150, 120), np.uint8)
    there = moved(face, scale=2, to=(150, 150))
    warped = warp_face(source, here, target, there, color=0, area="oval")
    sides = [warped.mask[:, int(there.points[index, 0])].sum() for index in (topology.RIGHT_CHEEK[0], 346)]
    assert min(sides) < 0.9 * max(sides)
    assert np.abs(warped.pixels.astype(int) - target).max() < 25


@pytest.mark.parametrize("fringe_in", ["source", "target"])
def test_a_fringe_in_one_of_the_two_is_left_out(face, fringe_in):
    plain = np.full((300, 300, 3), (200, 150, 120), np.uint8)
    there = moved(face, scale=2, to=(150, 150))
    fringe = plain.copy()
    fringe[: int(there.points[list(topology.BROW_TOPS), 1].min() - 12)] = (50, 35, 25)
    source, target = (fringe, plain) if fringe_in == "source" else (plain, fringe)
    warped = warp_face(source, there, target, there, area="oval", color=0, blend="feather")
    dark = [(picture.max(axis=2) < 100).sum() for picture in (warped.pixels, target)]
    assert warped.mask.any() and dark[0] == dark[1]


# Pictures


def test_the_same_face_in_gives_nearly_the_same_picture_out(astronaut, face):
    warped = warp_face(astronaut, face, astronaut, face, area="oval")
    change = np.abs(warped.pixels.astype(int) - astronaut)[warped.mask > 0]
    assert change.mean() < 1 and np.percentile(change, 99) <= 6


@pytest.mark.parametrize("roll", [0, 37, 90, 135, 180, -120])
def test_a_turned_face_is_found_again_pixel_by_pixel(astronaut, face, roll):
    middle = tuple(float(value) for value in face.points[:, :2].mean(axis=0))
    turn = cv2.getRotationMatrix2D(middle, -roll, 1.0)
    target = cv2.warpAffine(astronaut, turn, (512, 512), flags=cv2.INTER_CUBIC)
    warped = warp_face(astronaut, face, target, moved(face, roll=roll, to=middle), area="oval")
    change = np.abs(warped.pixels.astype(int) - target)[warped.mask > 0]
    assert (warped.mask > 0).sum() > 3000 and change.mean() < 2


def test_another_person_becomes_the_person_while_the_build_stays(astronaut, face, stranger, networks):
    target, there = stranger
    person = embed(astronaut, face, models=networks)
    before = similarity(person, embed(target, there, models=networks))
    scores, jaws = [before], []
    for strength in (0.5, 1.0):
        warped = warp_face(astronaut, face, target, there, strength=strength)
        found = find_faces(warped.pixels, models=networks)[0]
        scores.append(similarity(person, embed(warped.pixels, found, models=networks)))
        jaws.append(jaw(found) / jaw(there))
    assert before < SAME_PERSON and scores == sorted(scores) and scores[-1] >= 2 * SAME_PERSON
    assert jaws == pytest.approx([1, 1], abs=0.05)


def jaw(face: Face) -> float:
    points = face.points[:, :2]
    width = np.linalg.norm(points[topology.LEFT_JAW] - points[topology.RIGHT_JAW])
    return float(width / np.linalg.norm(points[topology.CHIN] - points[topology.FOREHEAD_TOP]))


def test_the_full_resolution_of_the_source_is_used(astronaut, face):
    """A large target: an upload of its size gives more detail than one of a third."""
    target = np.full((450, 450, 3), 128, np.uint8)
    there = moved(face, scale=3, to=(225, 225))
    grain = np.random.default_rng(0).normal(0, 20, (768, 768, 1)).astype(np.float32)
    large = np.uint8(np.clip(cv2.resize(astronaut[:256, 96:352], (768, 768)) + grain, 0, 255))
    small = cv2.resize(large, (256, 256), interpolation=cv2.INTER_AREA)
    here = replace(face, points=face.points - np.array([96, 0, 0], np.float32))
    detail = [
        float(cv2.Laplacian(cv2.cvtColor(warped.pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[warped.mask == 1].std())
        for warped in (
            warp_face(large, replace(here, points=here.points * 3), target, there, color=0),
            warp_face(small, here, target, there, color=0),
        )
    ]
    assert detail[0] > 4 * detail[1]


def test_stripes_finer_than_the_targets_pixels_become_their_mean_and_no_moire(face):
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    source = moved(face, scale=8, to=(500, 500))
    target = np.full((200, 200, 3), 60, np.uint8)
    warped = warp_face(stripes, source, target, moved(face, to=(100, 100)), color=0, area="oval")
    inside = warped.pixels[warped.mask == 1]
    assert abs(float(inside.mean()) - 127.5) < 3 and inside.std() < 6


def test_a_face_turned_to_the_side_leaves_no_holes_in_the_mask(astronaut, face):
    from scipy.spatial.transform import Rotation

    middle = face.points.mean(axis=0)
    for yaw in (-40, -20, 20, 40):
        points = Rotation.from_euler("y", yaw, degrees=True).apply(face.points - middle) + np.array([200, 200, 0])
        there = replace(face, points=points.astype(np.float32))
        target = np.full((400, 400, 3), 128, np.uint8)
        warped = warp_face(astronaut, face, target, there, area="oval")
        assert num_contours(warped.mask) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_mesh_that_folds_leaves_no_holes_in_the_mask(astronaut, face, seed):
    there = moved(face, scale=2, to=(150, 150))
    shaken = there.points + np.random.default_rng(seed).normal(0, 1.5, there.points.shape).astype(np.float32)
    target = np.full((300, 300, 3), (200, 150, 120), np.uint8)
    warped = warp_face(astronaut, face, target, replace(there, points=shaken), area="brows")
    assert num_contours(warped.mask == 1) == 1


def num_contours(mask) -> int:
    """Of its outside and its holes."""
    return len(cv2.findContours(np.uint8(mask > 0), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0])

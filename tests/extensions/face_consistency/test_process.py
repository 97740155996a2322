"""A picture's faces become the person's own again where that helps; whatever else comes in comes back as it was."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.engine import Engine
from extensions.face_consistency.face import Face, Pixels
from extensions.face_consistency.identity import embed, similarity
from extensions.face_consistency.params import FaceParams
from extensions.face_consistency.places import ResizeMode
from extensions.face_consistency.process import Outcome, improve_faces
from extensions.face_consistency.seen import Photo
from extensions.face_consistency.sources import Given, Person
from extensions.face_consistency.stages import eyes_covered, is_drawn, why_not_warp
from tests.extensions.face_consistency import story
from tests.extensions.face_consistency.story import Painter, array, liquified, picture, stretched
from tests.onnx_files import write_arcface, write_gender_age, write_restorer, write_swapper, write_table, yolo_table
from webui.images.geometry import resize


class Stopped(Exception):
    """The user interrupts."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    story.without_network(monkeypatch)


@pytest.fixture
def engine(tmp_path: Path, networks: Models) -> Engine:
    return story.engine_in(tmp_path, networks)


@pytest.fixture(scope="module")
def changed(astronaut: Pixels) -> Pixels:
    return liquified(astronaut)


@pytest.fixture(scope="module")
def group() -> Pixels:
    """Three people."""
    return np.ascontiguousarray(story.group()[100:440, :640])


def run(target: Pixels, engine: Engine, source: Pixels | None, **more: object) -> Outcome:
    """With `source` as the picture that the target was made from."""
    params = {name: more.pop(name) for name in list(more) if name in FaceParams.model_fields}
    sources = more.pop("given", Given(init=None if source is None else picture(source)))
    return improve_faces(picture(target), FaceParams(**params), given=sources, engine=engine, **more)  # type: ignore[arg-type]


def assert_unchanged(outcome: Outcome, target: Pixels) -> None:
    assert np.array_equal(array(outcome.image), target)
    assert not outcome.is_changed
    assert not outcome.mask.any()


def test_a_bent_face_is_the_persons_again_and_nothing_else_changes(
    astronaut: Pixels, changed: Pixels, engine: Engine, networks: Models
) -> None:
    outcome = run(changed, engine, astronaut)
    (report,) = outcome.faces
    assert report.action == "warped"
    assert report.similarity_before is not None and report.similarity_before < 0.45
    assert report.similarity_after is not None and report.similarity_after > 0.7
    made = array(outcome.image)
    different = (made != changed).any(axis=2)
    assert different.any()
    assert not different[outcome.mask == 0].any()
    assert outcome.mask.mean() < 0.06
    person = embed(astronaut, find_faces(astronaut, models=networks)[0], models=networks)
    again = embed(made, find_faces(made, models=networks)[0], models=networks)
    assert similarity(person, again) == pytest.approx(report.similarity_after, abs=0.03)


def test_a_face_that_is_the_person_already_is_left_alone(astronaut: Pixels, engine: Engine) -> None:
    target = stretched(astronaut, 1.1)
    outcome = run(target, engine, astronaut)
    (report,) = outcome.faces
    assert report.action == "skipped"
    assert "already" in report.reason
    assert report.similarity_before == report.similarity_after
    assert report.similarity_after is not None and report.similarity_after > 0.8
    assert_unchanged(outcome, target)


def test_what_would_make_the_face_less_alike_is_taken_back(astronaut: Pixels, engine: Engine) -> None:
    outcome = run(astronaut, engine, astronaut, skip_above=1.0, shape_keep=1.0, color=0.0, strength=0.9)
    (report,) = outcome.faces
    assert report.action in {"kept", "skipped"}
    assert report.similarity_after == report.similarity_before
    assert_unchanged(outcome, astronaut)


def test_with_all_stages_off_it_is_only_measured(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    outcome = run(changed, engine, astronaut, warp=False)
    (report,) = outcome.faces
    assert report.action == "kept"
    assert "only measured" in report.reason
    assert report.similarity_before == report.similarity_after
    assert_unchanged(outcome, changed)


def test_a_face_upside_down_is_put_right(astronaut: Pixels, changed: Pixels, engine: Engine) -> None:
    (report,) = run(np.ascontiguousarray(np.rot90(changed, 2)), engine, astronaut).faces
    assert report.action == "warped"
    assert (report.similarity_after or 0) > 0.7


def test_a_gray_picture_stays_gray(astronaut: Pixels, changed: Pixels, engine: Engine) -> None:
    gray = np.repeat(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    outcome = run(gray, engine, astronaut)
    assert outcome.faces[0].action == "warped"
    made = array(outcome.image)
    assert (made.max(axis=2) == made.min(axis=2)).all()


def test_a_gray_photo_gives_a_picture_in_its_own_colours(astronaut: Pixels, changed: Pixels, engine: Engine) -> None:
    gray = np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    outcome = run(changed, engine, gray)
    assert outcome.faces[0].action == "warped"
    ours, theirs = (
        cv2.cvtColor(one, cv2.COLOR_RGB2LAB)[..., 1:].astype(float) for one in (array(outcome.image), changed)
    )
    assert np.abs(ours - theirs)[outcome.mask > 0.5].mean() < 3


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (np.full((200, 300, 3), 128, np.uint8), "No face was found in the picture."),
        (np.zeros((1, 1, 3), np.uint8), "No face was found in the picture."),
        (np.random.default_rng(1).integers(0, 255, (120, 4000, 3)).astype(np.uint8), "No face was found"),
    ],
    ids=["gray", "one pixel", "noise"],
)
def test_a_picture_without_a_face_comes_back_with_the_reason(
    target: Pixels, reason: str, astronaut: Pixels, engine: Engine
) -> None:
    outcome = run(target, engine, astronaut)
    assert outcome.reason.startswith(reason)
    assert outcome.faces == ()
    assert_unchanged(outcome, target)


@settings(max_examples=6)
@given(width=st.integers(1, 90), height=st.integers(1, 90), seed=st.integers(0, 99))
def test_no_size_of_picture_is_a_problem(
    width: int, height: int, seed: int, astronaut: Pixels, networks: Models, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    engine = story.engine_in(tmp_path_factory.getbasetemp(), networks)
    assert_unchanged(run(target, engine, astronaut), target)


def test_a_small_face_is_too_small_to_judge(astronaut: Pixels, engine: Engine) -> None:
    target = np.asarray(cv2.resize(astronaut, (100, 100), interpolation=cv2.INTER_AREA), np.uint8)
    outcome = run(target, engine, astronaut)
    (report,) = outcome.faces
    assert report.action == "skipped"
    assert "too small to judge" in report.reason.lower()
    assert report.similarity_before is None and report.similarity_after is None
    assert_unchanged(outcome, target)


def test_half_a_face_at_the_border_is_left_alone(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    target = np.ascontiguousarray(changed[:, 224:])
    outcome = run(target, engine, astronaut)
    assert "cut off" in outcome.faces[0].reason.lower()
    assert_unchanged(outcome, target)


def test_sunglasses_are_not_painted_over(changed: Pixels, astronaut: Pixels, engine: Engine, networks: Models) -> None:
    target = changed.copy()
    (face,) = find_faces(changed, models=networks)
    for eye in ((33, 133), (362, 263)):
        x, y = (int(value) for value in face.points[list(eye), :2].mean(axis=0))
        cv2.ellipse(target, (x, y), (19, 14), 0, 0, 360, (9, 8, 10), -1)
    outcome = run(target, engine, astronaut)
    assert "eyes are covered in the picture" in outcome.faces[0].reason
    assert_unchanged(outcome, target)
    (source_first,) = run(changed, engine, target).faces
    assert "eyes are covered in the photo" in source_first.reason


def test_bare_eyes_are_not_taken_for_covered_ones(group: Pixels, astronaut: Pixels, networks: Models) -> None:
    for pixels in (group, astronaut, (astronaut * 0.4).astype(np.uint8)):
        assert not any(eyes_covered(pixels, face) for face in find_faces(pixels, models=networks))


def test_a_photo_is_not_put_into_a_drawing(
    changed: Pixels, astronaut: Pixels, engine: Engine, networks: Models
) -> None:
    target = (cv2.pyrMeanShiftFiltering(changed[:256, 100:356], 9, 40) // 40 * 40).astype(np.uint8)
    (face,) = find_faces(target, models=networks)
    assert is_drawn(target, face)
    assert not is_drawn(changed, face)
    outcome = run(target, engine, astronaut)
    assert "drawn" in outcome.faces[0].reason
    assert_unchanged(outcome, target)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [(0, 40, "40 degrees away"), (-20, 20, "40 degrees away"), (48, 60, "from the front"), (0, 10, "")],
)
def test_heads_that_are_turned_too_far_are_not_warped(
    ours: float, theirs: float, words: str, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    source = replace(astronaut_face, yaw_degrees=ours)
    photo = Photo(pixels=astronaut, face=source, embedding=embed(astronaut, astronaut_face, models=networks))
    reason = why_not_warp(photo, astronaut, replace(astronaut_face, yaw_degrees=theirs))
    assert words in reason
    assert ("turned too far to warp" in reason) == bool(words)


def test_the_photo_in_the_most_alike_pose_is_warped(astronaut: Pixels, astronaut_face: Face, networks: Models) -> None:
    def turned(degrees: float) -> Face:
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], np.float32)
        middle = astronaut_face.points.mean(axis=0)
        return replace(astronaut_face, points=((astronaut_face.points - middle) @ turn.T + middle).astype(np.float32))

    embedding = embed(astronaut, astronaut_face, models=networks)
    photos = tuple(Photo(pixels=astronaut, face=turned(degrees), embedding=embedding) for degrees in (-30, 0, 25))
    person = Person(photos=photos, embedding=embedding)
    for degrees, best in ((-40, 0), (3, 1), (35, 2)):
        assert person.photo_for(turned(degrees)) is photos[best]


def test_without_a_photo_and_an_original_there_is_nothing_to_go_by(changed: Pixels, engine: Engine) -> None:
    outcome = run(changed, engine, None)
    assert "no photo" in outcome.reason
    assert_unchanged(outcome, changed)


def test_a_photo_without_a_face_is_named(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    blank = np.full((99, 99, 3), 90, np.uint8)
    outcome = run(changed, engine, None, given=Given(photos=(picture(blank),)))
    assert outcome.reason == "No face was found in the photo."
    assert_unchanged(outcome, changed)
    both = run(changed, engine, None, given=Given(photos=(picture(blank), picture(astronaut))))
    assert both.faces[0].action == "warped"
    assert "No face was found in photo 1." in both.notes


def test_somebody_elses_photo_needs_a_second_word(
    changed: Pixels, astronaut: Pixels, group: Pixels, engine: Engine
) -> None:
    sources = Given(photos=(picture(group),), init=picture(astronaut))
    refused = run(changed, engine, None, given=sources)
    assert "somebody else" in refused.reason
    assert "have agreed" in refused.reason
    assert_unchanged(refused, changed)
    agreed = run(changed, engine, None, given=sources, other_person_consent=True)
    assert agreed.faces
    assert any("You said that both have agreed" in note for note in agreed.notes)
    same = run(changed, engine, None, given=Given(photos=(picture(astronaut),), init=picture(astronaut)))
    assert same.faces[0].action == "warped"


def test_one_of_several_people_is_not_put_on_another_without_a_second_word(
    group: Pixels, engine: Engine, networks: Models
) -> None:
    smallest = min(find_faces(group, models=networks), key=lambda face: face.width_px * face.height_px)
    left, top, right, bottom = (int(side) for side in smallest.box)
    photo = np.ascontiguousarray(group[max(0, top - 30) : bottom + 30, max(0, left - 20) : right + 20])
    sources = Given(photos=(picture(photo),), init=picture(group))
    refused = run(group, engine, None, given=sources, faces="largest")
    assert "somebody else" in refused.reason
    own = run(group, engine, None, given=sources, faces="numbers", order="small-large", numbers=(1,))
    assert not own.reason
    assert own.faces


def test_in_a_finished_picture_a_stranger_is_told_of(astronaut: Pixels, group: Pixels, engine: Engine) -> None:
    outcome = run(group, engine, None, given=Given(photos=(picture(astronaut),)), faces="numbers", numbers=(1,))
    assert outcome.is_changed
    assert any("somebody else" in note for note in outcome.notes)


def test_everybody_of_the_original_gets_their_own_face_back(group: Pixels, engine: Engine) -> None:
    outcome = run(liquified(group, 7), engine, group, skip_above=0.95)
    changed = [report for report in outcome.faces if report.is_changed]
    assert len(outcome.faces) == 3
    assert len(changed) >= 2
    for report in outcome.faces:
        assert (report.similarity_after or 0) >= (report.similarity_before or 0)
    lefts = [report.box[0] for report in outcome.faces]
    assert lefts == sorted(lefts)


def test_faces_are_chosen_by_number_order_and_likeness(group: Pixels, engine: Engine, networks: Models) -> None:
    target = liquified(group, 5)
    faces = sorted(find_faces(target, models=networks), key=lambda face: face.center[0])
    more = {"warp": False, "skip_above": 1.0}

    def boxes(**params: object) -> list[int]:
        return [report.box[0] for report in run(target, engine, group, **more, **params).faces]

    lefts = [round(face.box[0]) for face in faces]
    assert boxes(faces="numbers", numbers=(3, 1)) == [lefts[2], lefts[0]]
    assert boxes(faces="numbers", numbers=(1,), order="right-left") == [lefts[-1]]
    large = max(faces, key=lambda face: face.width_px * face.height_px)
    assert boxes(faces="largest") == [round(large.box[0])]
    wanted = faces[1]
    left, top, right, bottom = (int(value) for value in wanted.box)
    cutout = group[max(top - 60, 0) : bottom + 60, max(left - 60, 0) : right + 60]
    sources = Given(init=picture(group), reference=picture(cutout))
    alike = run(target, engine, None, given=sources, faces="alike", reference_similarity=0.3, **more)
    assert [report.box[0] for report in alike.faces] == [lefts[1]]
    beyond = run(target, engine, group, faces="numbers", numbers=(9,))
    assert beyond.reason.startswith("Face 9 was asked for, but the picture has 3")


def test_nobody_is_taken_for_somebody_else_in_the_original(astronaut: Pixels, group: Pixels, engine: Engine) -> None:
    small = np.full_like(group, 120)
    small[:256, 300:556] = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    outcome = run(group, engine, small)
    skipped = [report for report in outcome.faces if "Nobody is in its place" in report.reason]
    assert len(skipped) >= 2


def strayed(astronaut: Pixels, face: Pixels, *, at: tuple[int, int]) -> Pixels:
    """Nothing where her face was, and `face` somewhere else."""
    target = astronaut.copy()
    target[:260] = cv2.GaussianBlur(target[:260], (0, 0), 25)
    left, top = at
    target[top : top + face.shape[0], left : left + face.shape[1]] = face
    return target


def test_a_face_far_from_where_the_person_was_is_not_made_the_persons(
    astronaut: Pixels, group: Pixels, engine: Engine
) -> None:
    """The model left no face of hers, and drew something like one on her chest."""
    target = strayed(astronaut, group[140:335, 430:605], at=(250, 300))
    for sources in (Given(init=picture(astronaut)), Given(init=picture(astronaut), photos=(picture(astronaut),))):
        outcome = run(target, engine, None, given=sources)
        (report,) = outcome.faces
        assert report.action == "skipped"
        assert report.reason.startswith("No face where the photo's was: this one is 2.")
        assert_unchanged(outcome, target)
    by_number = run(target, engine, astronaut, faces="numbers", numbers=(1,))
    assert by_number.is_changed, "who chooses it means it"


def test_a_face_that_moved_with_the_body_is_still_the_persons(
    changed: Pixels, astronaut: Pixels, engine: Engine
) -> None:
    higher, smaller = np.roll(changed, (60, 50), (0, 1)), np.full_like(changed, 120)
    smaller[100:484, 40:424] = cv2.resize(changed, (384, 384), interpolation=cv2.INTER_AREA)
    for target in (higher, smaller):
        (report,) = run(target, engine, astronaut).faces
        assert report.action == "warped"


def test_a_face_that_is_like_the_person_is_theirs_wherever_it_is(astronaut: Pixels, engine: Engine) -> None:
    head = liquified(astronaut, 3)[20:210, 140:310]
    target = strayed(astronaut, head, at=(300, 310))
    (report,) = run(target, engine, astronaut).faces
    assert report.action == "warped"


@pytest.mark.parametrize("mode", ["crop", "fill"])
def test_where_a_face_was_is_told_by_how_the_picture_was_resized(
    mode: ResizeMode, changed: Pixels, astronaut: Pixels, engine: Engine
) -> None:
    """Her at the left of a wide picture; stretched to a square, her face would lie elsewhere."""
    ground = np.full((512, 256, 3), 90, np.uint8)
    wide, drifted = np.hstack([astronaut, ground]), np.hstack([changed, ground])
    target = array(resize(picture(drifted), 512, 512, mode))
    (report,) = run(target, engine, None, given=Given(init=picture(wide), resize_mode=mode)).faces
    assert report.action == "warped"


@pytest.mark.parametrize(("score", "is_refused"), [(0.6, True), (0.9, False)])
def test_a_doubtful_face_that_is_like_nobody_is_left_alone(
    score: float, is_refused: bool, astronaut: Pixels, group: Pixels, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a finished picture, too, where no place can be compared."""
    target = liquified(np.ascontiguousarray(group[140:335, 430:605]))

    def doubtful(pixels: Pixels, *, models: Models) -> list[Face]:
        return [replace(face, score=score) for face in find_faces(pixels, models=models)]

    monkeypatch.setattr("extensions.face_consistency.selecting.find_faces", doubtful)
    outcome = run(target, engine, None, given=Given(photos=(picture(astronaut),)))
    assert outcome.is_changed != is_refused
    assert outcome.faces[0].reason.startswith("Hardly a face: the detector is 60 % sure of it") == is_refused
    own = run(target, engine, None, given=Given(photos=(picture(target),)), skip_above=1.0)
    assert not any("Hardly" in report.reason for report in own.faces), "the person's own face is one"
    there = Given(photos=(picture(astronaut),), init=picture(group[140:335, 430:605]))
    in_place = run(target, engine, None, given=there, other_person_consent=True)
    assert in_place.is_changed, "a face was there before"


def test_refining_is_kept_while_the_face_stays_the_persons(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    painter = Painter(lambda pixels: np.clip(pixels.astype(int) + 6, 0, 255).astype(np.uint8))
    outcome = run(
        changed,
        engine,
        astronaut,
        redraw=painter,
        refine=True,
        refine_prompt="her face",
        refine_size=256,
        refine_steps=7,
    )
    (report,) = outcome.faces
    assert report.action == "warped+refined"
    (call,) = painter.calls
    assert call["prompt"] == "her face"
    assert (call["width"], call["height"], call["num_inference_steps"]) == (256, 256, 7)
    assert call["negative_prompt"] is None
    different = (array(outcome.image) != changed).any(axis=2)
    assert not different[outcome.mask == 0].any()


def test_refining_that_loses_the_person_is_taken_back_alone(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    painter = Painter(lambda pixels: np.asarray(cv2.GaussianBlur(pixels, (0, 0), 9), np.uint8))
    with_refining = run(changed, engine, astronaut, redraw=painter, refine=True)
    without = run(changed, engine, astronaut)
    assert with_refining.faces[0].action == "warped"
    assert "taken back" in with_refining.faces[0].reason
    assert np.array_equal(array(with_refining.image), array(without.image))


def test_a_stage_without_its_model_is_left_out_with_the_reason(
    changed: Pixels, astronaut: Pixels, engine: Engine
) -> None:
    (report,) = run(changed, engine, astronaut, swap=True, restore=True).faces
    assert report.action == "warped"
    assert "There is no face swapper under models/face" in report.reason
    assert "There is no face restorer under models/face" in report.reason


def test_a_broken_model_costs_nothing_but_its_stage(
    changed: Pixels, astronaut: Pixels, engine: Engine, tmp_path: Path
) -> None:
    face = tmp_path / "models" / "face"
    face.mkdir(parents=True)
    (face / "inswapper_128.onnx").write_bytes(b"\x08\x07 this was a model once")
    write_arcface(face / "w600k_r50.onnx")
    (report,) = run(changed, engine, astronaut, swap=True).faces
    assert report.action == "warped"
    assert report.reason


def test_a_swap_by_a_network_that_cannot_is_taken_back(
    changed: Pixels, astronaut: Pixels, engine: Engine, tmp_path: Path
) -> None:
    face = tmp_path / "models" / "face"
    write_swapper(face / "inswapper_128.onnx")
    write_arcface(face / "w600k_r50.onnx")
    outcome = run(changed, engine, astronaut, swap=True)
    (report,) = outcome.faces
    assert report.action == "warped"
    assert "taken back" in report.reason
    assert np.array_equal(array(outcome.image), array(run(changed, engine, astronaut).image))


def test_a_restorer_runs_on_what_was_warped(changed: Pixels, astronaut: Pixels, engine: Engine, tmp_path: Path) -> None:
    write_restorer(tmp_path / "models" / "face" / "GFPGANv1.4.onnx")
    outcome = run(changed, engine, astronaut, restore=True, restore_visibility=0.1)
    (report,) = outcome.faces
    assert report.action in {"warped+restored", "warped"}
    assert report.action == "warped+restored" or "taken back" in report.reason
    assert not (array(outcome.image) != changed).any(axis=2)[outcome.mask == 0].any()


def test_an_interruption_is_passed_on(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        run(changed, engine, astronaut, check=stop)


def test_nothing_about_a_face_is_written_down(
    changed: Pixels, astronaut: Pixels, engine: Engine, tmp_path: Path
) -> None:
    run(changed, engine, None, given=Given(photos=(picture(astronaut),)))
    assert list(tmp_path.rglob("*")) == []


def test_what_is_being_done_is_told(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    told: list[str] = []
    run(changed, engine, astronaut, report=told.append)
    assert told == ["looking for faces", "measuring face", "warp face"]


def test_a_picture_with_transparency_is_read_as_it_looks(changed: Pixels, astronaut: Pixels, engine: Engine) -> None:
    target = Image.fromarray(changed).convert("RGBA")
    outcome = improve_faces(target, FaceParams(), given=Given(init=picture(astronaut)), engine=engine)
    assert outcome.faces[0].action == "warped"
    assert outcome.image.mode == "RGB"


def test_a_reactor_face_can_be_swapped_in_but_not_measured(
    changed: Pixels, astronaut: Pixels, engine: Engine, tmp_path: Path
) -> None:
    face = tmp_path / "models" / "face"
    write_swapper(face / "inswapper_128.onnx")
    write_arcface(face / "w600k_r50.onnx")
    path = tmp_path / "data" / "faces" / "Ada.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"embedding": np.linspace(-1, 1, 512, dtype=np.float32)}, path)
    saved = engine.saved.read("Ada")
    outcome = run(changed, engine, None, given=Given(saved=saved), warp=False, swap=True)
    (report,) = outcome.faces
    assert report.similarity_before is None and report.similarity_after is None
    assert "cannot be measured" in report.reason
    refused = run(changed, engine, None, given=Given(saved=saved, init=picture(astronaut)), warp=False, swap=True)
    assert "has agreed" in refused.reason
    assert_unchanged(refused, changed)


def test_the_safety_check_warns_or_leaves_the_picture_alone_and_is_off_at_first(
    changed: Pixels, astronaut: Pixels, engine: Engine, tmp_path: Path
) -> None:
    labels = [f"THING_{number}" for number in range(17)] + ["BUTTOCKS_EXPOSED"]
    table = yolo_table([(10.0, 10.0, 90.0, 80.0, 17, 0.9)], num_labels=18)
    write_table(tmp_path / "models" / "face" / "320n.onnx", table, side=320, labels=labels)
    assert run(changed, engine, astronaut).notes == ()
    warned = run(changed, engine, astronaut, safety="warn")
    assert warned.is_changed
    assert "bare buttocks" in warned.notes[0]
    blocked = run(changed, engine, astronaut, safety="block")
    assert "bare buttocks" in blocked.reason
    assert_unchanged(blocked, changed)


def test_only_faces_that_are_taken_for_the_gender_are_chosen(
    group: Pixels, engine: Engine, networks: Models, tmp_path: Path
) -> None:
    write_gender_age(tmp_path / "models" / "face" / "genderage.onnx")
    network = engine.backends.gender_age()
    guesses = [network.read(group, face.box).gender for face in find_faces(group, models=networks)]
    more = {"warp": False, "skip_above": 1.0, "faces": "all"}
    for gender in ("female", "male"):
        outcome = run(group, engine, group, gender=gender, **more)
        assert len(outcome.faces) == guesses.count(gender)
        assert outcome.faces or f"was taken for {gender}" in outcome.reason

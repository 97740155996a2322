from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tests.training.data.pictures import photo, picture, saved
from webui.training.config import Data, Subject
from webui.training.data.checks import find_problems
from webui.training.data.edits import Edit, write_edits
from webui.training.data.faces import SeenFace
from webui.training.data.people import crop_to
from webui.training.data.photos import Photo
from webui.training.data.problems import Fix, Problem, leave_out, quoted, together
from webui.training.data.sources import find_photos

GOOD = [photo(picture(seed, (300, 300)), f"{seed}.png") for seed in range(6)]


def data(**more: object) -> Data:
    values = {"photos": Path("photos"), "trigger": "ohwx", "resolution": 256, "bucket_step": 32, **more}
    return Data.model_validate(values)


def problems(photos: Sequence[Photo], subject: Subject = "object", **more: object) -> dict[str, Problem]:
    return {problem.kind: problem for problem in find_problems(photos, (), data(**more), subject)}


def test_good_photos_have_no_problems() -> None:
    assert problems(GOOD) == {}


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("too small", picture(50, (90, 100))),
        ("blurred", picture(51, (300, 300)).filter(ImageFilter.GaussianBlur(4))),
        ("odd shape", picture(55, (1000, 160))),
        ("nearly the same", picture(0, (300, 300)).resize((280, 280))),
    ],
)
def test_a_photo_that_is_wrong_is_found_and_one_click_leaves_it_out(kind: str, image: Image.Image) -> None:
    found = problems([*GOOD, photo(image, "wrong.png")])
    assert list(found) == [kind]
    assert "'wrong.png'" in found[kind].sentence
    assert found[kind].fixes[-1].edits["wrong.png"].excluded


def test_bars_are_cut_off_by_one_click(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 400))
    image.paste(picture(60, (300, 300)), (0, 50))
    folder = tmp_path / "photos"
    saved(folder, "barred.png", image)
    photos = find_photos(folder, unpack_to=tmp_path).photos
    (found,) = [each for each in find_problems(photos, (), data(), "object") if each.kind == "bars"]
    write_edits(folder, found.fixes[0].edits)
    (photo,) = find_photos(folder, unpack_to=tmp_path).photos
    assert photo.area[1] >= 50 and photo.area[3] <= 350 and photo.size[1] > 290
    assert "bars" not in {each.kind for each in find_problems([photo], (), data(), "object")}


def test_of_nearly_the_same_photos_the_largest_is_kept() -> None:
    small = photo(picture(0, (300, 300)).resize((290, 290)), "small.png")
    found = problems([*GOOD, small])["nearly the same"]
    assert found.names == ("0.png", "small.png")
    assert list(found.fixes[0].edits) == ["small.png"]
    assert "nearly" in found.sentence
    assert "show the same" in problems([*GOOD, replace(GOOD[0], name="copy.png")])["nearly the same"].sentence


def test_few_photos_and_missing_captions_are_said() -> None:
    found = problems(GOOD[:1], trigger="")
    assert found["few photos"].sentence.startswith("1 photo is few")
    assert found["no caption"].names == ("0.png",)


def test_a_mark_in_all_photos_is_cut_off_by_one_click() -> None:
    photos = []
    for seed in range(8):
        image = picture(seed, (300, 300))
        for x in range(200, 290, 8):
            image.paste("white", (x, 270, x + 4, 290))
        photos.append(photo(image, f"{seed}.png"))
    found = problems(photos)["mark"]
    for edit in found.fixes[0].edits.values():
        assert edit.crop is not None
        assert edit.crop[3] <= 272 and edit.crop[3] > 240


def test_class_pictures_are_not_judged() -> None:
    small = replace(photo(picture(50, (40, 40)), "class.png"), is_prior=True)
    assert problems([*GOOD, small]) == {}


def test_masks_of_another_shape_and_missing_ones_are_said(tmp_path: Path) -> None:
    wrong = saved(tmp_path, "0-masklabel.png", Image.new("L", (100, 50)))
    right = saved(tmp_path, "1-masklabel.png", Image.new("L", (150, 150)))
    photos = [replace(GOOD[0], mask=wrong), replace(GOOD[1], mask=right), *GOOD[2:]]
    found = problems(photos, masks=True)
    assert "0-masklabel.png" in found["mask"].sentence and found["mask"].names == ("0.png",)
    assert len(found["no mask"].names) == 4
    assert problems(photos) == {}


def test_files_that_are_left_out_are_problems_too(tmp_path: Path) -> None:
    saved(tmp_path, "good.png", picture(1, (300, 300)))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    collection = find_photos(tmp_path, unpack_to=tmp_path)
    found = {each.kind: each for each in find_problems(collection.photos, collection.left_out, data(), "object")}
    write_edits(tmp_path, found["unreadable"].fixes[0].edits)
    collection = find_photos(tmp_path, unpack_to=tmp_path)
    kinds = {each.kind for each in find_problems(collection.photos, collection.left_out, data(), "object")}
    assert "unreadable" not in kinds and "excluded" not in kinds


class Faces:
    """Finds what the test says, by the colour of a photo's first pixel."""

    same_person = 0.5

    def __init__(self, faces: dict[int, list[SeenFace]]) -> None:
        self._faces = faces

    def read(self, pixels: NDArray[np.uint8]) -> Sequence[SeenFace]:
        return self._faces[int(pixels[0, 0, 0])]


def face(person: int, box: tuple[float, float, float, float] = (100, 60, 200, 180)) -> SeenFace:
    embedding = np.full(8, 0.1, np.float32)
    embedding[person] = 1.0
    return SeenFace(box=box, embedding=embedding / np.linalg.norm(embedding))


@pytest.fixture
def people(tmp_path: Path) -> Callable[[list[list[SeenFace]]], dict[str, Problem]]:
    """`people(faces of each photo)` -> problems by kind, of photos of a person."""

    def found(faces: list[list[SeenFace]]) -> dict[str, Problem]:
        folder = tmp_path / "people"
        for i in range(len(faces)):
            image = picture(i, (300, 300))
            image.putpixel((0, 0), (i, 0, 0))
            saved(folder, f"{i}.png", image)
        photos = find_photos(folder, unpack_to=tmp_path).photos
        reader = Faces(dict(enumerate(faces)))
        listed = find_problems(photos, (), data(), "person", faces=reader)
        assert find_problems(photos, (), data(), "object", faces=reader) == []
        return {problem.kind: problem for problem in listed}

    return found


def test_photos_of_one_person_are_fine(people: Callable[[list[list[SeenFace]]], dict[str, Problem]]) -> None:
    assert people([[face(1)] for _ in range(5)]) == {}


def test_no_face_and_another_persons_are_found(people: Callable[[list[list[SeenFace]]], dict[str, Problem]]) -> None:
    found = people([[face(1)], [face(1)], [], [face(1)], [face(2)]])
    assert {kind: problem.names for kind, problem in found.items()} == {
        "no face": ("2.png",),
        "another person": ("4.png",),
    }


def test_of_several_faces_those_of_others_are_cut_off(
    people: Callable[[list[list[SeenFace]]], dict[str, Problem]],
) -> None:
    other = face(2, (10, 60, 90, 280))
    found = people([[face(1)], [face(1)], [other, face(1)], [face(1)], [face(1)]])
    assert list(found) == ["several faces"]
    crop = found["several faces"].fixes[0].edits["2.png"].crop
    assert crop == (91, 0, 300, 300)


def test_a_small_face_is_found(people: Callable[[list[list[SeenFace]]], dict[str, Problem]]) -> None:
    found = people([[face(1)], [face(1)], [face(1)], [face(1)], [face(1, (10, 10, 25, 30))]])
    assert list(found) == ["small face"]


def test_where_everyone_is_someone_else_nobody_is_out_of_line(
    people: Callable[[list[list[SeenFace]]], dict[str, Problem]],
) -> None:
    assert people([[face(i)] for i in range(5)]) == {}


def test_a_crop_keeps_the_face_whole_even_where_others_overlap_it() -> None:
    assert crop_to((0, 0, 300, 300), (100, 100, 200, 200), [(150, 150, 250, 250)]) == (0, 0, 300, 300)
    assert crop_to((0, 0, 300, 300), (100, 100, 200, 200), [(220, 0, 300, 100), (0, 220, 50, 260)]) == (51, 0, 220, 300)


def test_names_are_listed_up_to_three() -> None:
    assert quoted(["a"]) == "'a'"
    assert quoted(["a", "b"]) == "'a' and 'b'"
    assert quoted(["a", "b", "c", "d"]) == "'a', 'b', 'c' and 1 more"


def test_many_problems_of_one_kind_are_one_whose_fix_does_the_same_to_all() -> None:
    def blurred(name: str) -> Problem:
        crop = Fix(label="Cut", edits={name: Edit(crop=(0, 0, 9, 9))})
        return Problem(kind="blurred", names=(name,), sentence=name, fixes=(crop, leave_out((name,))))

    twins = Problem(kind="nearly the same", names=("a", "b"), sentence="twins")
    few = [blurred(name) for name in "abcd"]
    assert together([*few, twins]) == [*few, twins]
    one, other = together([*few, blurred("e"), twins])
    assert other == twins and one.names == ("a", "b", "c", "d", "e")
    assert [fix.label for fix in one.fixes] == ["Cut", "Leave them out"]
    assert dict(one.fixes[1].edits) == {name: Edit(excluded=True) for name in "abcde"}
    assert "'a', 'b', 'c' and 2 more" in one.sentence

"""Where results go, and that no picture is written over one that is read."""

from pathlib import Path

import pytest

from extensions.face_consistency.folder import plan
from webui.hooks import InvalidRequest


@pytest.fixture
def room(tmp_path: Path) -> Path:
    for name in ("in/a.png", "in/b.JPG", "in/c.bmp", "in/notes.txt", "photo.png", "one.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_a_picture_becomes_the_named_file(room: Path) -> None:
    (task,) = plan(room / "one.webp", room / "new" / "two.jpg", [room / "photo.png"])
    assert (task.target, task.output, task.fmt) == (room / "one.webp", room / "new" / "two.jpg", "jpeg")


def test_a_picture_goes_into_a_folder_under_its_own_name(room: Path) -> None:
    (room / "out").mkdir()
    (task,) = plan(room / "one.webp", room / "out", [])
    assert (task.output, task.fmt) == (room / "out" / "one.webp", "webp")


def test_all_pictures_of_a_folder_go_into_the_other(room: Path) -> None:
    tasks = plan(room / "in", room / "out", [room / "photo.png"])
    assert [(task.output.name, task.fmt) for task in tasks] == [("a.png", "png"), ("b.JPG", "jpeg"), ("c.png", "png")]


@pytest.mark.parametrize(
    ("target", "output", "field"),
    [
        ("photo.png", "photo.png", "output"),
        ("one.webp", "photo.png", "output"),
        ("in", "in", "output"),
        ("in", "out.png", "output"),
        ("one.webp", "two.gif", "output"),
        ("gone.png", "two.png", "target"),
    ],
)
def test_what_would_lose_a_picture_or_cannot_be_written_is_refused(
    target: str, output: str, field: str, room: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(room / target, room / output, [room / "photo.png"])
    assert caught.value.field == field


def test_a_link_to_a_source_is_no_way_around(room: Path) -> None:
    link = room / "link.png"
    link.symlink_to(room / "photo.png")
    with pytest.raises(InvalidRequest, match="written over"):
        plan(room / "one.webp", link, [room / "photo.png"])


def test_two_pictures_never_become_one(room: Path) -> None:
    (room / "in" / "a.bmp").write_bytes(b"x")
    with pytest.raises(InvalidRequest, match="both become"):
        plan(room / "in", room / "out", [])


def test_an_empty_folder_is_said(room: Path) -> None:
    (room / "empty").mkdir()
    with pytest.raises(InvalidRequest, match="no picture"):
        plan(room / "empty", room / "out", [])

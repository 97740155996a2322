"""`launch.py face`, as it is typed."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency.face import Pixels
from tests.extensions.face_consistency import story
from tests.extensions.face_consistency.story import liquified
from webui.cli import main
from webui.hooks import read_metadata
from webui.images.metadata import COMPOSITE, ImageMetadata, encode_image
from webui.settings import CHECKOUT

KEYS = {"box", "action", "reason", "similarity_before", "similarity_after"}
INFOTEXT = "a woman\nSteps: 4, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


@pytest.fixture
def room(tmp_path: Path, astronaut: Pixels) -> Path:
    """With photo.png, target.png (which says how it was made) and blank.png."""
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    target = encode_image(
        Image.fromarray(liquified(astronaut)), ImageMetadata(infotext=INFOTEXT, request_json=""), "png"
    )
    (tmp_path / "target.png").write_bytes(target)
    Image.new("RGB", (90, 60), "gray").save(tmp_path / "blank.png")
    return tmp_path


def face(room: Path, *more: str) -> int:
    return main(["face", "--data-dir", str(room / "data"), *more])


def paths(room: Path, target: str = "target.png", output: str = "out.png") -> list[str]:
    return ["--source", str(room / "photo.png"), "--target", str(room / target), "--output", str(room / output)]


def test_the_line_of_the_manual_works_without_a_terminal_and_without_torch(room: Path) -> None:
    program = (
        "import sys; from webui.cli import main; code = main(sys.argv[1:]);"
        "print('torch' in sys.modules, 'gradio' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "face", "--data-dir", str(room / "data")]
    done = subprocess.run(
        [*command, *paths(room), "--shape-keep", "0.5"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert set(printed) == {"faces"}
    (report,) = printed["faces"]
    assert set(report) == KEYS
    assert report["action"] == "warped"
    assert report["similarity_before"] < 0.5
    assert report["similarity_after"] > 0.65
    assert "By running this command you agree" in done.stderr
    assert done.stderr.strip().endswith("False False")
    made = np.asarray(Image.open(room / "out.png").convert("RGB"))
    target = np.asarray(Image.open(room / "target.png").convert("RGB"))
    changed = (made != target).any(axis=2)
    left, top, right, bottom = report["box"]
    assert changed.any()
    changed[max(top - 60, 0) : bottom + 60, max(left - 60, 0) : right + 60] = False
    assert not changed.any()


def test_the_terms_are_shown_once_on_a_machine(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert face(room, *paths(room)) == 0
    assert "you agree" in capsys.readouterr().err
    assert face(room, *paths(room, output="again.png")) == 0
    assert "you agree" not in capsys.readouterr().err


def test_in_a_terminal_it_asks(room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert face(room, *paths(room)) == 2
    assert not (room / "out.png").exists()
    assert not (room / "data" / "extension-data" / "face_consistency").exists()
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert face(room, *paths(room)) == 0
    assert json.loads(capsys.readouterr().out)["faces"]


def test_the_result_is_marked_and_keeps_what_the_target_said(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert face(room, *paths(room), "--consent") == 0
    assert "you agree" not in capsys.readouterr().err
    with Image.open(room / "out.png") as made:
        assert COMPOSITE in made.info["XML:com.adobe.xmp"]
        assert made.info["face_consistency"].startswith("warped 0.")
    metadata = read_metadata(room / "out.png")
    assert metadata is not None
    assert metadata.infotext.startswith("a woman\nSteps: 4, ")
    assert "Face consistency: on, Face: warped 0." in metadata.infotext


def test_an_unchanged_picture_is_the_same_file_with_the_reason_on_the_line(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert face(room, *paths(room, "blank.png"), "--consent") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"faces": [], "reason": "No face was found in the picture."}
    assert (room / "out.png").read_bytes() == (room / "blank.png").read_bytes()


def test_a_folder_gives_a_line_per_picture_and_goes_on_after_a_broken_one(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = room / "in"
    folder.mkdir()
    (room / "target.png").rename(folder / "b.png")
    (room / "blank.png").rename(folder / "c.png")
    (folder / "a.png").write_bytes(b"no picture")
    assert face(room, *paths(room, "in", "out"), "--consent") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["picture"] for line in lines] == ["a.png", "b.png", "c.png"]
    assert "a.png" in lines[0]["error"]
    assert lines[1]["faces"][0]["action"] == "warped"
    assert lines[2]["reason"]
    assert sorted(path.name for path in (room / "out").iterdir()) == ["b.png", "c.png"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shape-keep", "1.5"], "--shape-keep 1.5"),
        (["--swap"], "no face swapper"),
        (["--faces", "alike"], "no reference"),
        (["--saved-face", "Ada"], "no saved face"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    more: list[str], words: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert face(room, *paths(room), *more) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert not (room / "out.png").exists()


def test_the_photo_is_never_written_over(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (room / "photo.png").read_bytes()
    assert face(room, *paths(room, output="photo.png"), "--consent") == 2
    assert "written over" in capsys.readouterr().err
    assert (room / "photo.png").read_bytes() == before


def test_without_a_photo_it_says_what_is_missing(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert face(room, "--target", str(room / "target.png"), "--output", str(room / "out.png"), "--consent") == 2
    assert "no picture to take the face from" in capsys.readouterr().err


def test_a_photo_that_is_missing_or_broken_is_named(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    for name in ("gone.png", "broken.jpg"):
        arguments = [*paths(room)]
        arguments[1] = str(room / name)
        assert face(room, *arguments, "--consent") == 2
        assert name in capsys.readouterr().err


def test_other_peoples_photos_are_told_of(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(story.group()[100:440, :300]).save(room / "target.png")
    assert face(room, *paths(room), "--consent") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["faces"][0]["action"] == "warped"
    assert "somebody else" in captured.err

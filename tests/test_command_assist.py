"""`launch.py caption` and `launch.py mask`, run as a user runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.assistant_files import write_masker, write_tagger, write_tags
from webui.cli import main


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_tags(write_tagger(tmp_path / "models" / "captioners" / "wd.onnx").with_suffix(".csv"))
    write_masker(tmp_path / "models" / "maskers" / "u2net.onnx")
    return tmp_path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos of mia"
    folder.mkdir()
    half = np.full((60, 80, 3), 120, np.uint8)
    half[:, :40] = (240, 20, 20)
    for name in "ab":
        Image.fromarray(half).save(folder / f"{name}.png")
    (folder / "b.txt").write_text("my own\n")
    return folder


def test_captions_are_written_beside_the_photos_and_said_as_json(
    data_dir: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["caption", "--data-dir", str(data_dir), str(photos), "--with", "wd", "--threshold", "0.2"]
    assert main([*command, "--prefix", "mia", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": 1, "kept": 1, "problems": []}
    first = (photos / "a.txt").read_text()
    assert first.startswith("mia, ") and (photos / "b.txt").read_text() == "my own\n"
    unwanted = first.removeprefix("mia, ").split(", ")[0].strip()
    assert main([*command, "--overwrite", "--without", f"{unwanted}, hat"]) == 0
    assert capsys.readouterr().out == "2 captions written\n"
    assert unwanted not in (photos / "b.txt").read_text() and unwanted not in (photos / "a.txt").read_text()


def test_masks_are_made_and_a_photo_that_cannot_be_read_makes_the_exit_code_1(
    data_dir: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "c.png").write_bytes(b"no picture")
    assert main(["mask", "--data-dir", str(data_dir), str(photos), "--with", "u2net", "--grow", "0"]) == 1
    told = capsys.readouterr()
    assert told.out == "2 masks written, 1 not made\n" and "c.png: 'c.png' is not a picture" in told.err
    mask = np.asarray(Image.open(photos / "a-masklabel.png"))
    assert mask.shape == (60, 80) and mask[:, :37].min() == 255 and mask[:, 43:].max() == 0


def test_the_list_names_what_there_is_people_included(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "--data-dir", str(data_dir), "--list"]) == 0
    assert capsys.readouterr().out == "wd: 8 tags\n"
    assert main(["mask", "--data-dir", str(data_dir), "--list"]) == 0
    assert capsys.readouterr().out == "people: People\nu2net: U2-Net\n"


def test_without_any_captioner_the_list_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "--data-dir", str(tmp_path), "--list"]) == 0
    assert "models/captioners" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["PHOTOS"], "--with is missing"),
        (["--with", "wd"], "The folder is missing"),
        (["PHOTOS", "--with", "blip"], "There is no captioner named 'blip'. There is: wd."),
        (["PHOTOS", "--with", "wd", "--threshold", "2"], "--threshold cannot be 2.0"),
        (["PHOTOS/nowhere", "--with", "wd"], "There is no file or folder"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    arguments: list[str], told: str, data_dir: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    assert main(["caption", "--data-dir", str(data_dir), *given]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1

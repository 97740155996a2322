"""The command line as a user types it, in a process of its own."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.extension_files import write_extension
from webui.settings import CHECKOUT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "webui", *arguments], capture_output=True, text=True, check=False, cwd=CHECKOUT
    )


@pytest.fixture
def data_dir(tiny_models_dir: Path, tmp_path: Path) -> Path:
    (tmp_path / "models").symlink_to(tiny_models_dir)
    return tmp_path


def generate(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    common = ("--data-dir", str(data_dir), "--checkpoint", "tiny", "--device", "cpu", "--dtype", "fp32", "--steps", "2")
    return run("generate", *common, *arguments)


def test_help_answers_without_torch() -> None:
    program = (
        "import sys, webui.cli\ntry: webui.cli.main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert "generate" in ran.stdout
    assert ran.stdout.endswith("False\n")


def test_generate_makes_the_pictures_it_names(data_dir: Path, tmp_path: Path) -> None:
    ran = generate(
        data_dir,
        "--prompt",
        "a red cat",
        "--seed",
        "3",
        "--batch-count",
        "2",
        "--output",
        str(tmp_path / "o"),
        "--json",
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["seed"] for line in lines] == [3, 4]
    assert all(Path(line["path"]).is_relative_to(tmp_path / "o") for line in lines)
    with Image.open(lines[0]["path"]) as image:
        assert image.size == (64, 64)
        assert "Seed: 3" in image.info["parameters"]


def test_inpainting_without_a_browser_keeps_what_the_mask_leaves_out(data_dir: Path, tmp_path: Path) -> None:
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.effect_noise((80, 64), 60).convert("RGB").save(photo)
    Image.new("L", (80, 64), 0).save(mask)
    with Image.open(mask) as image:
        image.paste(255, (0, 0, 20, 64))
        image.save(mask)
    ran = generate(
        data_dir, "--init", str(photo), "--mask", str(mask), "--strength", "1", "--output", str(tmp_path / "o")
    )
    assert ran.returncode == 0, ran.stderr
    made, original = np.array(Image.open(ran.stdout.strip())), np.array(Image.open(photo))
    assert np.array_equal(made[:, 40:], original[:, 40:])
    assert not np.array_equal(made[:, :20], original[:, :20])


def test_pictures_go_through_the_extensions_that_are_named(data_dir: Path, tmp_path: Path) -> None:
    write_extension(data_dir / "extensions")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64), (10, 20, 30)).save(photo)
    keep = ("--init", str(photo), "--strength", "0", "--output", str(tmp_path / "o"))
    ran = generate(data_dir, *keep, "--set", "brighten.amount=100")
    assert ran.returncode == 0, ran.stderr
    with Image.open(ran.stdout.strip()) as image:
        assert image.getpixel((5, 5)) == (110, 120, 130)
        assert "Brighten: on, Brighten Amount: 100, Brighten by: 100" in image.info["parameters"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("generate", "--with", "nothing"), "'nothing' is not installed"),
        (("generate", "--width", "513"), "Use 512 or 520"),
        (("generate", "--steps", "many"), "num_inference_steps"),
        (("generate", "--init", "nowhere.png"), "nowhere.png"),
        (("generate", "--mask", "mask.png"), "--init"),
        (("generate", "--checkpoint", "nothing"), "nothing"),
        (("generate", "--init", "pyproject.toml"), "pyproject.toml"),
        (("--port", "99999"), "port"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_mistakes_are_answered_in_one_clear_line(arguments: tuple[str, ...], says: str) -> None:
    ran = run(*arguments)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert says in ran.stderr.splitlines()[-1]


def test_a_taken_port_is_answered_in_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ran = run("--port", str(other.getsockname()[1]), "--no-browser", "--data-dir", str(tmp_path))
    assert ran.returncode == 2
    assert "--port" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_that_cannot_be_written_is_answered_in_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = run("--port", "0", "--no-browser", "--data-dir", str(tmp_path / "file" / "data"))
    assert ran.returncode == 2
    assert "cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr

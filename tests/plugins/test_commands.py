"""Commands of extensions on the command line, which no extension can break."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.extension_files import BRIGHTEN, load_host, settings_for, write_extension
from webui.app import build_command_context
from webui.cli import main
from webui.errors import InvalidRequest
from webui.generation.postprocess import PostprocessStep
from webui.generation.request import Extras, GenerationRequest
from webui.settings import CHECKOUT

SHINE = """
from pathlib import Path


def add_options(parser):
    parser.add_argument("picture", type=Path)
    parser.add_argument("--amount", type=int, default=10)


def run(options, context):
    if options.amount == 99:
        return 1 / 0
    if options.amount == 13:
        raise InvalidRequest("amount", "13 brings bad luck.")
    picture = flatten(open_image(options.picture, max_pixels=context.settings.max_image_pixels))
    print(picture.point(lambda level: level + options.amount).getpixel((0, 0)), context.settings.data_dir.name)
    return 3


@hookimpl
def commands(context):
    return [Command(name="shine", add_options=add_options, run=run)]
"""
TOML = '[commands]\nshine = "brighten a picture"\n'


@dataclass(frozen=True, kw_only=True)
class Ran:
    status: int
    out: str
    errors: list[str]


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("shine", ...)`: the command line on the data folder `tmp_path`."""

    def run(*arguments: str) -> Ran:
        try:
            status = main([*arguments, "--data-dir", str(tmp_path)])
        except SystemExit as exit:
            status = int(exit.code or 0)
        said = capsys.readouterr()
        return Ran(status=status, out=said.out, errors=said.err.splitlines())

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    write_extension(tmp_path / "extensions", "shiny", BRIGHTEN + SHINE, toml=TOML)
    Image.new("RGB", (64, 64), (10, 20, 30)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_command_gets_its_options_and_its_status_is_the_programs(photo: Path, run: Run) -> None:
    ran = run("shine", str(photo), "--amount", "5")
    assert ran.status == 3
    assert ran.out == f"(15, 25, 35) {photo.parent.name}\n"


def test_a_refusal_is_told_in_one_line(photo: Path, run: Run) -> None:
    ran = run("shine", str(photo), "--amount", "13")
    assert (ran.status, ran.errors[-1]) == (2, "launch.py: 13 brings bad luck.")


def test_a_command_that_raises_is_named_with_its_line(photo: Path, run: Run) -> None:
    ran = run("shine", str(photo), "--amount", "99")
    assert ran.status == 2
    last = ran.errors[-1]
    assert (
        last == "launch.py: The extension 'shiny' failed: ZeroDivisionError: division by zero (__init__.py, line 38)."
    )


def extras(**params: object) -> GenerationRequest:
    step = PostprocessStep(id="brighten", params=params)
    picture = Image.new("RGB", (64, 64), (10, 20, 30))
    return GenerationRequest(checkpoint="", init=Extras(image=picture), postprocess=(step,))


def test_a_command_can_run_a_picture_through_steps_and_nothing_is_saved(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions")
    context = build_command_context(settings_for(tmp_path), load_host(tmp_path))
    (processed,) = context.process(extras(amount=5))
    assert processed.image.getpixel((0, 0)) == (15, 25, 35)
    assert processed.fields == {"Brighten by": "5"}
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(InvalidRequest, match="13 brings bad luck"):
        context.process(extras(amount=13))


def test_help_names_the_command_and_imports_nothing(photo: Path) -> None:
    write_extension(photo.parent / "extensions", "broken", "1 / 0", toml='[commands]\nburst = "never mind"\n')
    (photo.parent / "extensions" / "broken" / "extension.toml").open("a").write("[[[")
    program = (
        "import sys, webui.cli\n"
        f"try: webui.cli.main(['--help', '--data-dir', {str(photo.parent)!r}])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'gradio', 'pydantic', 'extensions.shiny', 'webui.hooks'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert "brighten a picture" in ran.stdout
    assert ran.stdout.endswith("[]\n")


def test_help_for_the_command_itself_shows_its_options(photo: Path, run: Run) -> None:
    ran = run("shine", "--help")
    assert ran.status == 0
    assert "--amount" in ran.out


def test_a_broken_extension_breaks_its_own_command_alone(photo: Path, run: Run) -> None:
    write_extension(photo.parent / "extensions", "broken", "1 / 0", toml='[commands]\nburst = "never mind"\n')
    burst = run("burst")
    assert burst.status == 2
    assert "does not run: ZeroDivisionError" in burst.errors[-1]
    assert run("shine", str(photo)).status == 3


def test_an_extension_that_is_not_there_cannot_be_switched(tmp_path: Path, run: Run) -> None:
    unknown = run("extensions", "enable", "nothing")
    assert unknown.status == 2
    assert "There is no extension 'nothing'." in unknown.errors[-1]
    assert not (tmp_path / "extensions.json").exists()


def test_extensions_are_listed_switched_off_and_checked(photo: Path, run: Run) -> None:
    write_extension(photo.parent / "extensions", "broken", "1 / 0")
    assert run("extensions", "disable", "shiny").status == 0
    listed = json.loads(run("extensions", "list", "--json").out)
    assert {"shiny": "off", "broken": "on"}.items() <= {row["id"]: row["state"] for row in listed}.items()
    off = run("shine", str(photo))
    assert off.status == 2
    assert "shine" in off.errors[-1]
    checked = run("extensions", "check", "--json")
    assert checked.status == 1
    states = {row["id"]: (row["state"], row["problems"]) for row in json.loads(checked.out)}
    assert states["shiny"] == ("off", [])
    assert states["broken"] == ("failed", ["ZeroDivisionError: division by zero (__init__.py, line 3)."])

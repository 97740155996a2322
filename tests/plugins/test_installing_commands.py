"""`launch.py extensions install | update | remove`."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.extension_files import write_extension
from tests.plugins.offers import zip_folder
from webui.cli import main
from webui.plugins.loading import forget_modules

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs `extensions ...`: (exit status, what was printed)."""

    def run_one(*arguments: str) -> tuple[int, str]:
        status = main(["extensions", *arguments, "--data-dir", str(tmp_path / "data")])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    yield run_one
    forget_modules("brighten")


@pytest.fixture
def offer(tmp_path: Path) -> Path:
    return write_extension(tmp_path / "offers", files={"LICENSE": "MIT License\n"})


def installed(run: Run) -> list[str]:
    return [row["id"] for row in json.loads(run("list", "--json")[1]) if row["id"] != "face_consistency"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_folder_is_shown_installed_updated_and_removed(run: Run, offer: Path, tmp_path: Path) -> None:
    status, told = run("install", str(offer), "--yes")
    assert status == 0
    for part in ("Brighten 1.0 (brighten)", str(offer), "MIT License", "postprocessors", "__init__.py", "is on"):
        assert part in told
    assert installed(run) == ["brighten"]
    assert "is the same" in run("update", "brighten", "--yes")[1]
    (offer / "extension.toml").write_text((offer / "extension.toml").read_text().replace('"1.0"', '"1.1"'))
    status, told = run("update", "brighten", "--yes")
    assert status == 0
    assert "Installed brighten 1.1" in told
    assert run("remove", "brighten", "--yes")[0] == 0
    assert installed(run) == []
    assert list((tmp_path / "data" / "extensions").iterdir()) == []


def test_a_zip_is_installed(run: Run, offer: Path, tmp_path: Path) -> None:
    assert run("install", str(zip_folder(tmp_path / "x.zip", offer)), "--yes")[0] == 0
    assert installed(run) == ["brighten"]


def test_a_person_is_asked_and_no_means_no(run: Run, offer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ("\n", "n\n", "what?\n"):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        status, told = run("install", str(offer))
        assert (status, "Nothing was installed." in told) == (1, True)
    assert installed(run) == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run("install", str(offer))[0] == 0
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    assert run("remove", "brighten")[0] == 1
    assert installed(run) == ["brighten"]


def test_where_nobody_can_be_asked_nothing_is_done(
    run: Run, offer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    status, told = run("install", str(offer))
    assert (status, "Add --yes" in told) == (2, True)
    assert list((tmp_path / "data" / "extensions").iterdir()) == []


def test_one_that_does_not_run_says_why_and_fails(run: Run, offer: Path) -> None:
    (offer / "__init__.py").write_text("1 / 0\n")
    status, told = run("install", str(offer), "--yes")
    assert status == 2
    assert "is installed, but does not run. ZeroDivisionError" in told


def test_a_setting_for_the_page_does_not_bind_the_command_line(run: Run, offer: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "webui.toml").write_text('host = "0.0.0.0"\nextension_installs = false\n')
    assert run("install", str(offer), "--yes")[0] == 0

"""Whatever an extension does while it is loaded, the program goes on, and the page names it with its error."""

import logging
import re
import sys
import threading
from pathlib import Path

import pytest

from tests.extension_files import BRIGHTEN, load_host, settings_for, write_extension
from webui.plugins.host import Extension, PluginHost

PATIENCE_S = 30

BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero (__init__.py, line 3)."),
    "exits": ("raise SystemExit(3)", "SystemExit: 3 (__init__.py, line 3)."),
    "is no Python": ("def (", "SyntaxError: invalid syntax (__init__.py, line 3)."),
    "imports what is not there": ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
    "imports a hook that is not there": ("from webui.hooks import nothing", "cannot import name 'nothing'"),
    "has no hooks": ("def load(context): pass", "It has no hooks."),
    "misspells a hook": ("@hookimpl\ndef postprocesors(): pass", "unknown hook 'postprocesors'"),
    "misspells an argument": ("@hookimpl\ndef load(contxt): pass", "{'contxt'}"),
    "raises in load": ("@hookimpl\ndef load(context): raise ValueError('two\\nlines')", "ValueError: two lines"),
    "returns no list": ("@hookimpl\ndef postprocessors(): return 5", "`postprocessors` returned 5"),
    "returns no postprocessor": ("@hookimpl\ndef postprocessors(): return [object()]", "has no `id`"),
    "has an odd id": (BRIGHTEN.replace('id = "brighten"', 'id = "Bright En"'), "'Bright En'"),
    "has parameters that can be changed": (BRIGHTEN.replace("frozen=True", "frozen=False"), "not frozen"),
    "has a parameter without a default": (BRIGHTEN.replace("default=50, ", ""), "no default for 'amount'"),
    "has settings that are no model": ("@hookimpl\ndef settings_model(): return dict", "no pydantic model"),
}


@pytest.mark.parametrize(("code", "told"), BROKEN.values(), ids=BROKEN)
def test_an_extension_that_cannot_run_is_named_with_its_error_and_the_others_run(
    tmp_path: Path, code: str, told: str
) -> None:
    write_extension(tmp_path / "extensions", "broken", code)
    write_extension(tmp_path / "extensions", "fine", BRIGHTEN)
    host = load_host(tmp_path)
    broken, fine = host.extensions()
    assert (broken.state, fine.state) == ("failed", "on")
    assert told in broken.problems[0]
    assert "\n" not in broken.problems[0]
    assert [postprocessor.id for postprocessor in host.postprocessors()] == ["brighten"]


def test_the_log_has_the_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_extension(tmp_path / "extensions", "broken", "def burst():\n    return 1 / 0\n\n\nburst()\n")
    with caplog.at_level(logging.ERROR):
        load_host(tmp_path)
    assert "in burst" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_one_that_hangs_is_left_behind(tmp_path: Path) -> None:
    hangs = (
        "import time\nfrom pathlib import Path\nwhile not Path(__file__).with_name('go').exists(): time.sleep(0.01)\n"
    )
    loads = "@hookimpl\ndef load():\n    Path(__file__).with_name('loaded').open('a').write('x')\n"
    folder = write_extension(tmp_path / "extensions", "hangs", hangs + BRIGHTEN + loads)
    write_extension(tmp_path / "extensions", "fine", "@hookimpl\ndef load(): pass")
    host = load_host(tmp_path, extension_load_s=0.2)
    fine, stuck = host.extensions()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "extension hangs"]
    (folder / "go").touch()
    thread.join(PATIENCE_S)
    assert fine.state == "on"
    assert stuck.problems[0].startswith("Loading it takes longer than 0.2 s.")
    assert host.postprocessors() == []
    assert not (folder / "loaded").exists(), "it is too late"
    assert host.enable("hangs").state == "on", "and may try again"
    assert (folder / "loaded").read_text() == "x"


def test_what_could_not_be_loaded_is_tried_again_only_when_asked_for(tmp_path: Path) -> None:
    count = "from pathlib import Path\nlog = Path(__file__).with_name('log')\nlog.open('a').write('x')\n1 / 0\n"
    folder = write_extension(tmp_path / "extensions", "broken", count)
    write_extension(tmp_path / "extensions", "fine")
    host = load_host(tmp_path)
    host.refresh()
    host.enable("fine")
    assert (folder / "log").read_text() == "x"
    assert host.extension("broken").state == "failed"
    host.enable("broken")
    assert (folder / "log").read_text() == "xx"
    assert len(host.extension("broken").problems) == 1


def test_an_extension_for_another_version_is_not_imported(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "future", "raise SystemExit", requires=">=99")
    (extension,) = load_host(tmp_path).extensions()
    assert "It is made for Atelier >=99" in extension.problems[0]
    assert "extensions.future" not in sys.modules


def test_a_folder_that_is_no_extension_is_named(tmp_path: Path) -> None:
    (tmp_path / "extensions" / "sd-webui-thing").mkdir(parents=True)
    for ignored in (".git", "__pycache__", "_draft"):
        (tmp_path / "extensions" / ignored).mkdir()
    (extension,) = load_host(tmp_path).extensions()
    assert (extension.id, extension.state) == ("sd-webui-thing", "failed")
    assert "no extension.toml" in extension.problems[0]


def test_of_two_with_one_id_the_first_runs_and_the_other_is_refused(tmp_path: Path) -> None:
    write_extension(tmp_path / "ours", "brighten")
    write_extension(tmp_path / "theirs", "brighten", "1 / 0")
    host = PluginHost(settings_for(tmp_path), folders=[tmp_path / "ours", tmp_path / "theirs"])
    host.load()
    found = {extension.folder.parent.name: extension for extension in host.extensions()}
    assert found["ours"].state == "on"
    assert found["theirs"].state == "failed"
    assert f"taken by the extension in {tmp_path / 'ours'}" in found["theirs"].problems[0]


def test_of_two_postprocessors_with_one_title_the_first_is_kept(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "one", BRIGHTEN)
    write_extension(tmp_path / "extensions", "two", BRIGHTEN.replace('id = "brighten"', 'id = "brighten2"'))
    host = load_host(tmp_path)
    one, two = host.extensions()
    assert (one.state, two.state) == ("on", "failed")
    assert "id or title of another one" in two.problems[0]


def test_a_title_that_a_pictures_text_uses_otherwise_is_refused(tmp_path: Path) -> None:
    title = re.search(r'title = "(.*)"', BRIGHTEN)
    assert title is not None
    write_extension(tmp_path / "extensions", "one", BRIGHTEN.replace(title[0], 'title = "Lora, hashes"'))
    (extension,) = load_host(tmp_path).extensions()
    assert extension.state == "failed"
    assert "means something else in the text of a picture" in extension.problems[0]


def test_of_two_with_one_command_the_first_has_it(tmp_path: Path) -> None:
    for id in ("one", "two"):
        write_extension(tmp_path / "extensions", id, "@hookimpl\ndef load(): pass", toml='[commands]\nshine = "x"\n')
    one, two = load_host(tmp_path).extensions()
    assert (one.state, two.state) == ("on", "failed")
    assert "command 'shine' is taken by the extension 'one'" in two.problems[0]


def test_its_own_modules_import_each_other_and_are_imported_anew_when_it_is_switched_on(tmp_path: Path) -> None:
    folder = write_extension(tmp_path / "extensions", "talks", TALKS, files={"words.py": "WORD = 'one'\n"})
    host = load_host(tmp_path)
    assert settings_of(host.extension("talks")) == {"word": "one"}
    (folder / "words.py").write_text("WORD = 'another'\n")
    assert settings_of(host.enable("talks")) == {"word": "another"}


TALKS = """\
from .words import WORD


class Words(BaseModel):
    model_config = ConfigDict(frozen=True)
    word: str = WORD


@hookimpl
def settings_model():
    return Words
"""


def settings_of(extension: Extension) -> dict[str, object]:
    assert extension.settings is not None
    return extension.settings.model_dump()

"""Extensions that run: what they add, on and off, their settings, and what is said when they do wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.extension_files import BRIGHTEN, load_host, settings_for, write_extension
from webui.errors import ExtensionError, InvalidRequest, OutOfDeviceMemory, StorageError
from webui.generation.postprocess import PostprocessContext, Processed
from webui.generation.request import Extras, GenerationRequest
from webui.jobs.cancel import CancelToken, ImageSkipped, JobInterrupted
from webui.plugins.host import PluginHost

TUNED = """\
class Tuning(BaseModel):
    model_config = ConfigDict(frozen=True)
    loud: bool = False
    level: int = Field(default=3, ge=0, le=10)


@hookimpl
def settings_model():
    return Tuning


@hookimpl
def postprocessors(context):
    class Told(Brighten):
        def __call__(self, image, params, told):
            return Processed(image=image, notes=(f"level {context.settings().level}",))
    return [Told()]
"""


def request() -> GenerationRequest:
    return GenerationRequest(checkpoint="none", init=Extras(image=picture()), seed=1)


def picture() -> Image.Image:
    return Image.new("RGB", (8, 6), (10, 20, 30))


def context(cancel: CancelToken | None = None) -> PostprocessContext:
    def nothing(*_: object, **__: object) -> Any:
        raise AssertionError("not asked for here")

    check = (cancel or CancelToken()).check
    told: list[str] = []
    return PostprocessContext(
        request=request(),
        index=0,
        seed=1,
        source=None,
        picture=nothing,
        redraw=nothing,
        report=told.append,
        check=check,
    )


def run(host: PluginHost, id: str = "brighten", **params: object) -> Processed:
    postprocessor = host.postprocessor(id)
    assert postprocessor is not None
    return postprocessor(picture(), postprocessor.params_model(**params), context())


def failing(body: str) -> str:
    return BRIGHTEN.replace("        made = image", f"        {body}\n        made = image")


def test_a_postprocessor_runs_with_its_parameters(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions")
    processed = run(load_host(tmp_path), amount=5)
    assert processed.image.getpixel((0, 0)) == (15, 25, 35)
    assert processed.fields == {"Brighten by": "5"}


def test_its_check_names_the_field(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions")
    postprocessor = load_host(tmp_path).postprocessor("brighten")
    assert postprocessor is not None
    with pytest.raises(InvalidRequest) as caught:
        postprocessor.check(postprocessor.params_model(amount=13), request())
    assert caught.value.field == "amount"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('no film in it')", "ValueError: no film in it (__init__.py, line 20)."),
        ("raise SystemExit", "SystemExit (__init__.py, line 20)."),
        ("return image", "instead of a Processed"),
    ],
)
def test_a_postprocessor_that_fails_is_named_and_stays_on(tmp_path: Path, body: str, told: str) -> None:
    write_extension(tmp_path / "extensions", code=failing(body))
    host = load_host(tmp_path)
    for _ in range(2):
        with pytest.raises(ExtensionError) as caught:
            run(host)
        assert told in str(caught.value)
    extension = host.extension("brighten")
    assert extension.state == "on"
    (problem,) = extension.problems
    assert problem.startswith("'Brighten' failed: ")
    assert told in problem


def test_a_refusal_in_its_own_words_is_no_fault(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", code=failing("raise WebUIError('The film is used up.')"))
    host = load_host(tmp_path)
    with pytest.raises(Exception, match=r"^The film is used up\.$"):
        run(host)
    assert host.extension("brighten").problems == ()


@pytest.mark.parametrize("error", [JobInterrupted, ImageSkipped, OutOfDeviceMemory])
def test_an_interruption_goes_through(tmp_path: Path, error: type[Exception]) -> None:
    raising = f"from {error.__module__} import {error.__name__}; raise {error.__name__}('x')"
    write_extension(tmp_path / "extensions", code=failing(raising))
    host = load_host(tmp_path)
    with pytest.raises(error):
        run(host)
    assert host.extension("brighten").problems == ()


def test_switching_off_takes_effect_at_once_and_lasts(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", code=BRIGHTEN + UNLOADS)
    host = load_host(tmp_path)
    assert host.disable("brighten").state == "off"
    assert host.postprocessor("brighten") is None
    assert host.postprocessors() == []
    assert (tmp_path / "extension-data" / "brighten" / "unloaded").exists()
    later = load_host(tmp_path)
    assert later.extension("brighten").state == "off"
    assert later.enable("brighten").state == "on"
    assert run(later).fields == {"Brighten by": "50"}
    assert load_host(tmp_path).extension("brighten").state == "on"


UNLOADS = """\
@hookimpl
def unload(context):
    context.data_dir.mkdir(parents=True, exist_ok=True)
    (context.data_dir / "unloaded").touch()
"""


def test_the_end_of_the_program_is_told_and_may_fail(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", code=BRIGHTEN + UNLOADS)
    write_extension(tmp_path / "extensions", "angry", "@hookimpl\ndef unload(): raise ValueError")
    load_host(tmp_path).close()
    assert (tmp_path / "extension-data" / "brighten" / "unloaded").exists()


def test_the_order_of_postprocessors_does_not_depend_on_when_they_were_switched_on(tmp_path: Path) -> None:
    for id in ("a", "b", "c"):
        write_extension(tmp_path / "extensions", id, BRIGHTEN.replace("righten", f"righten_{id}"))
    host = load_host(tmp_path)
    host.disable("a")
    host.enable("a")
    assert [postprocessor.id[-1] for postprocessor in host.postprocessors()] == ["a", "b", "c"]


def test_extensions_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    host = load_host(tmp_path)
    assert host.extensions() == []
    folder = write_extension(tmp_path / "extensions")
    host.refresh()
    assert host.postprocessor("brighten") is not None
    (folder / "extension.toml").unlink()
    (folder / "__init__.py").unlink()
    host.refresh()
    assert host.postprocessor("brighten") is None
    assert host.extension("brighten").state == "failed"


def test_the_setting_switches_all_off(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", code="raise SystemExit")
    host = load_host(tmp_path, extensions=False)
    assert host.extension("brighten").state == "off"
    assert "WEBUI_EXTENSIONS" in host.problem()


def test_an_unknown_id_is_an_error_of_the_caller(tmp_path: Path) -> None:
    host = load_host(tmp_path)
    for change in (host.enable, host.disable, host.extension):
        with pytest.raises(InvalidRequest, match="no extension 'nothing'"):
            change("nothing")


def test_settings_are_kept_and_the_extension_sees_them(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", code=BRIGHTEN + TUNED)
    host = load_host(tmp_path)
    assert run(host).notes == ("level 3",)
    host.change_settings("brighten", {"level": 7})
    assert run(host).notes == ("level 7",)
    assert run(load_host(tmp_path)).notes == ("level 7",)
    kept = json.loads((tmp_path / "extensions.json").read_text())
    assert kept["extensions"]["brighten"]["settings"] == {"level": 7}, "defaults may change with the next version"


@pytest.mark.parametrize(("values", "field"), [({"level": 11}, "level"), ({"lound": True}, "lound")])
def test_settings_that_cannot_be_are_refused_by_name(tmp_path: Path, values: dict[str, object], field: str) -> None:
    write_extension(tmp_path / "extensions", code=BRIGHTEN + TUNED)
    host = load_host(tmp_path)
    with pytest.raises(InvalidRequest) as caught:
        host.change_settings("brighten", values)
    assert caught.value.field == field
    assert run(host).notes == ("level 3",)


def test_kept_settings_that_a_new_version_does_not_take_give_way_to_defaults_and_that_is_said(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", code=BRIGHTEN + TUNED)
    kept = {"extensions": {"brighten": {"settings": {"level": "high", "loud": True}}}}
    (tmp_path / "extensions.json").write_text(json.dumps(kept))
    extension = load_host(tmp_path).extension("brighten")
    assert extension.state == "on"
    assert extension.settings is not None
    assert extension.settings.model_dump() == {"loud": True, "level": 3}
    assert "level cannot be used as kept" in extension.problems[0]


def test_kept_settings_that_no_longer_go_together_all_give_way(tmp_path: Path) -> None:
    together = TUNED.replace("    level: int", """\
    @model_validator(mode="after")
    def quiet_when_high(self):
        if self.loud and self.level > 5:
            raise ValueError("too loud")
        return self

    level: int""")  # fmt: skip
    write_extension(tmp_path / "extensions", code="from pydantic import model_validator\n" + BRIGHTEN + together)
    kept = {"extensions": {"brighten": {"settings": {"level": 9, "loud": True}}}}
    (tmp_path / "extensions.json").write_text(json.dumps(kept))
    extension = load_host(tmp_path).extension("brighten")
    assert extension.state == "on"
    assert extension.settings is not None
    assert extension.settings.model_dump() == {"loud": False, "level": 3}
    assert len(extension.problems) == 1


def test_a_damaged_file_of_decisions_is_said_and_never_written_over(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions")
    (tmp_path / "extensions.json").write_text('{"extensions": [')
    host = load_host(tmp_path)
    assert host.extension("brighten").state == "on"
    assert "cannot be understood" in host.problem()
    with pytest.raises(StorageError):
        host.disable("brighten")
    assert host.extension("brighten").state == "on"
    assert (tmp_path / "extensions.json").read_text() == '{"extensions": ['


def test_what_another_version_of_the_program_wrote_is_kept(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions")
    (tmp_path / "extensions.json").write_text('{"new": 1, "extensions": {"brighten": {"rank": 2}, "gone": {}}}')
    host = load_host(tmp_path)
    host.disable("brighten")
    kept = json.loads((tmp_path / "extensions.json").read_text())
    assert kept["new"] == 1
    assert kept["extensions"]["brighten"]["rank"] == 2
    assert "gone" in kept["extensions"]
    assert not list(tmp_path.glob(".*.part"))


TABS = """\
def build():
    BUILD

@hookimpl
def tabs(context):
    return [Tab(id="one", label="One", build=build)]
"""


def test_a_tab_that_cannot_be_built_says_what_went_wrong(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "fine", TABS.replace("BUILD", "pass"))
    write_extension(tmp_path / "extensions", "wrong", TABS.replace("BUILD", "1 / 0"))
    host = load_host(tmp_path)
    fine, wrong = host.tabs()
    assert (fine.id, fine.label, fine.build()) == ("fine-one", "One", "")
    assert "ZeroDivisionError" in wrong.build()
    assert "Its tab 'One' failed" in host.extension("wrong").problems[0]


def test_tabs_come_and_go_with_the_next_start(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "tabbed", TABS.replace("BUILD", "pass"))
    write_extension(tmp_path / "extensions")
    host = load_host(tmp_path)
    assert len(host.tabs()) == 1
    assert not host.extension("tabbed").needs_restart
    assert host.disable("tabbed").needs_restart
    assert not host.enable("tabbed").needs_restart
    assert not host.disable("brighten").needs_restart


def test_a_section_that_the_page_does_not_have_comes_with_the_next_start(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "changes")
    host = load_host(tmp_path)
    host.tabs()
    assert not host.disable("changes").needs_restart, "the page hides it"
    assert not host.enable("changes").needs_restart
    write_extension(tmp_path / "extensions", "changes", BRIGHTEN.replace("le=255", "le=1000"))
    assert host.enable("changes").needs_restart
    write_extension(tmp_path / "extensions", "later", BRIGHTEN.replace("righten", "righter"))
    host.refresh()
    assert host.extension("later").needs_restart


def test_extensions_of_the_program_are_known_as_such(tmp_path: Path) -> None:
    host = PluginHost(settings_for(tmp_path, extensions=False))
    host.load()
    assert [extension.id for extension in host.extensions() if extension.built_in] == ["face_consistency"]

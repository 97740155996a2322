"""Installing in two steps: what is shown, what is left behind, and what the user has afterwards."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.extension_files import BRIGHTEN, load_host, settings_for, write_extension
from tests.plugins.offers import commit_all, git, write_wheel, write_zip, zip_folder
from webui.errors import ExtensionError, InvalidRequest, WebUIError
from webui.plugins.host import PluginHost
from webui.plugins.installing import Installer, Proposal
from webui.plugins.loading import forget_modules

WITH_MODEL = f"""
description = "Adds light."
[commands]
glow = "make a picture glow"
[[models]]
file = "face/glow.onnx"
url = "https://example.org/glow.onnx"
sha256 = "{"a" * 64}"
size_bytes = 1000
licence = "CC BY-NC 4.0"
non_commercial = true
"""
HOOKS = "import webui.hooks as h\n@h.hookimpl(tryfirst=True)\ndef commands(context): return []\n"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def offers(tmp_path: Path) -> Path:
    return tmp_path / "offers"


@pytest.fixture
def host(data_dir: Path) -> Iterator[PluginHost]:
    host = load_host(data_dir)
    yield host
    host.close()
    for id in ("brighten", "glow"):
        forget_modules(id)


@pytest.fixture
def installer(data_dir: Path, host: PluginHost) -> Installer:
    return Installer(settings_for(data_dir, private_downloads=True), host)


def install(installer: Installer, proposal: Proposal) -> list[str]:
    """Agrees, and returns what was said."""
    said: list[str] = []
    installer.install(proposal.token, said.append)
    return said


def left_over(data_dir: Path) -> list[str]:
    folder = data_dir / "extensions"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_before_anything_runs_the_user_sees_what_would(installer: Installer, offers: Path) -> None:
    code = "raise SystemExit('ran')\n" + BRIGHTEN
    folder = write_extension(
        offers, "glow", code, toml=WITH_MODEL, files={"LICENSE": "\nMIT License\n", "more.py": HOOKS}
    )
    proposal = installer.from_folder(str(folder))
    assert proposal.manifest.title == "Glow"
    assert proposal.licence == "MIT License"
    assert proposal.hooks == ("postprocessors", "commands")
    assert {name for name, _ in proposal.files} == {"LICENSE", "__init__.py", "extension.toml", "more.py"}
    assert dict(proposal.files)["more.py"] == len(HOOKS)
    assert proposal.manifest.models[0].non_commercial
    assert proposal.source["path"] == str(folder)
    assert "extensions.glow" not in sys.modules


def test_a_folder_is_installed_and_runs(installer: Installer, host: PluginHost, offers: Path, data_dir: Path) -> None:
    proposal = installer.from_folder(str(write_extension(offers)))
    assert host.extensions() == []
    said = install(installer, proposal)
    assert host.extension("brighten").state == "on"
    assert [step.id for step in host.postprocessors()] == ["brighten"]
    assert said == [f"Installed brighten 1.0 in {data_dir / 'extensions' / 'brighten'}."]
    assert left_over(data_dir) == ["brighten"]
    assert installer.proposal() is None


def test_declining_leaves_nothing(installer: Installer, host: PluginHost, offers: Path, data_dir: Path) -> None:
    proposal = installer.from_folder(str(write_extension(offers)))
    installer.discard(proposal.token)
    assert left_over(data_dir) == []
    for late in (lambda: installer.discard(proposal.token), lambda: install(installer, proposal)):
        with pytest.raises(InvalidRequest, match="does not wait"):
            late()


def test_only_the_latest_proposal_waits(installer: Installer, offers: Path, data_dir: Path) -> None:
    first = installer.from_folder(str(write_extension(offers)))
    second = installer.from_folder(str(write_extension(offers, "glow", BRIGHTEN.replace("righten", "low"))))
    assert not first.folder.exists()
    with pytest.raises(InvalidRequest):
        install(installer, first)
    install(installer, second)
    assert left_over(data_dir) == ["glow"]


def test_what_a_program_left_that_died_goes_after_a_day(installer: Installer, offers: Path, data_dir: Path) -> None:
    rooms = [data_dir / "extensions" / ".incoming" / name for name in ("old", "fresh")]
    for room in rooms:
        (room / "files").mkdir(parents=True)
    os.utime(rooms[0], (0, 0))
    installer.from_folder(str(write_extension(offers)))
    assert [room.exists() for room in rooms] == [False, True]


def test_a_zip_as_hosting_sites_make_them_is_installed(
    installer: Installer, host: PluginHost, offers: Path, data_dir: Path
) -> None:
    archive = zip_folder(data_dir.parent / "x.zip", write_extension(offers), around="brighten-1.0")
    install(installer, installer.from_zip(archive, "brighten-1.0.zip"))
    assert host.extension("brighten").state == "on"
    assert "brighten-1.0.zip" in installer.update_state("brighten").text


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"readme.md": "hello"}, "no extension.toml"),
        ({"extension.toml": "id = ", "__init__.py": ""}, "not TOML"),
        ({"extension.toml": 'id = "../up"\n', "__init__.py": ""}, "is not right"),
        ({"extension.toml": 'id = "Film"\n', "__init__.py": ""}, "is not right"),
        ({"extension.toml": 'id = "film"\n', "__init__.py": ""}, "is not right"),
        ({"../evil.py": "x"}, "outside"),
        ({"extension.toml": 'id="film"\ntitle="F"\nversion="1"\nrequires-atelier=">=9"\n'}, "made for Atelier >=9"),
        ({"extension.toml": 'id="film"\ntitle="F"\nversion="1"\nrequires-atelier=">=0"\n'}, "no __init__.py"),
        (
            {
                "extension.toml": 'id="face_consistency"\ntitle="F"\nversion="1"\nrequires-atelier=">=0"\n',
                "__init__.py": "",
            },
            "comes with the program",
        ),
    ],
)
def test_what_is_no_extension_is_refused_and_leaves_nothing(
    installer: Installer, data_dir: Path, tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    with pytest.raises(ExtensionError, match=reason):
        installer.from_zip(write_zip(tmp_path / "x.zip", files), "x.zip")
    assert left_over(data_dir) == []
    assert not (data_dir / "evil.py").exists()


@pytest.mark.parametrize("path", ["", "relative/folder", "/nowhere/at/all", "\0"])
def test_a_folder_that_is_none_is_refused(installer: Installer, data_dir: Path, path: str) -> None:
    with pytest.raises(WebUIError):
        installer.from_folder(path)
    assert left_over(data_dir) == []


def test_a_folder_without_a_manifest_is_not_copied(installer: Installer, tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(ExtensionError, match=r"no extension\.toml"):
        installer.from_folder(str(tmp_path))
    assert left_over(data_dir) == []


def test_an_id_that_is_there_already_is_refused(installer: Installer, offers: Path, data_dir: Path) -> None:
    install(installer, installer.from_folder(str(write_extension(offers))))
    before = (data_dir / "extensions" / "brighten" / "__init__.py").read_bytes()
    other = write_extension(offers / "other", code="import nothing\n")
    with pytest.raises(ExtensionError, match="an extension 'brighten' already"):
        installer.from_folder(str(other))
    assert (data_dir / "extensions" / "brighten" / "__init__.py").read_bytes() == before
    assert left_over(data_dir) == ["brighten"]


def test_where_others_can_open_the_page_nothing_is_installed(data_dir: Path, host: PluginHost, offers: Path) -> None:
    install(installer := Installer(settings_for(data_dir), host), installer.from_folder(str(write_extension(offers))))
    serving = Installer(settings_for(data_dir, host="0.0.0.0"), host)
    for action in (
        lambda: serving.from_folder(str(write_extension(offers, "glow"))),
        lambda: serving.from_git("https://example.org/x"),
        lambda: serving.update("brighten"),
        lambda: serving.remove("brighten"),
        lambda: serving.waiting("x"),
    ):
        with pytest.raises(InvalidRequest, match="served on"):
            action()


def test_removing_takes_files_settings_and_what_it_added(
    installer: Installer, host: PluginHost, offers: Path, data_dir: Path
) -> None:
    install(installer, installer.from_folder(str(write_extension(offers))))
    installer.remove("brighten")
    assert left_over(data_dir) == []
    assert host.extensions() == []
    assert host.postprocessors() == []
    assert host.states.get("brighten").source == {}
    with pytest.raises(InvalidRequest):
        installer.remove("brighten")


def test_removing_a_link_leaves_what_it_leads_to(
    installer: Installer, host: PluginHost, offers: Path, data_dir: Path
) -> None:
    folder = write_extension(offers)
    (data_dir / "extensions").mkdir(parents=True)
    (data_dir / "extensions" / "brighten").symlink_to(folder)
    host.refresh()
    installer.remove("brighten")
    assert left_over(data_dir) == []
    assert (folder / "__init__.py").is_file()


def test_what_comes_with_the_program_cannot_be_removed(data_dir: Path) -> None:
    host = PluginHost(settings_for(data_dir))
    host.refresh(only=())
    installer = Installer(settings_for(data_dir), host)
    for action in (installer.remove, installer.update):
        with pytest.raises(InvalidRequest, match="comes with the program"):
            action("face_consistency")
    assert "comes with the program" in installer.update_state("face_consistency").text


def test_a_changed_folder_is_an_update(installer: Installer, host: PluginHost, offers: Path, data_dir: Path) -> None:
    folder = write_extension(offers)
    install(installer, installer.from_folder(str(folder)))
    assert installer.update_state("brighten").has_newer is False
    (folder / "__init__.py").write_text((folder / "__init__.py").read_text().replace('"Brighten"', '"Lighten"'))
    (folder / "extension.toml").write_text((folder / "extension.toml").read_text().replace('"1.0"', '"1.1"'))
    state = installer.update_state("brighten")
    assert state.has_newer
    assert state.can_update
    proposal = installer.update("brighten")
    assert proposal.replaces == "1.0"
    assert host.postprocessors()[0].title == "Brighten"
    install(installer, proposal)
    assert host.postprocessors()[0].title == "Lighten"
    assert installer.update_state("brighten").has_newer is False
    assert left_over(data_dir) == ["brighten"]


def test_an_update_of_one_that_is_off_leaves_it_off_and_keeps_its_settings(
    installer: Installer, host: PluginHost, offers: Path
) -> None:
    folder = write_extension(offers)
    install(installer, installer.from_folder(str(folder)))
    host.states.change("brighten", settings={"amount": 3})
    host.disable("brighten")
    (folder / "more.py").write_text("x = 1\n")
    install(installer, installer.update("brighten"))
    assert host.extension("brighten").state == "off"
    assert host.states.get("brighten").settings == {"amount": 3}


def test_an_update_that_became_another_extension_is_refused(installer: Installer, offers: Path, data_dir: Path) -> None:
    folder = write_extension(offers)
    install(installer, installer.from_folder(str(folder)))
    (folder / "extension.toml").write_text((folder / "extension.toml").read_text().replace('"brighten"', '"glow"'))
    with pytest.raises(ExtensionError, match="'glow' there now"):
        installer.update("brighten")
    assert left_over(data_dir) == ["brighten"]


def test_git_brings_its_newest_commit_and_later_the_next(
    installer: Installer, host: PluginHost, offers: Path, data_dir: Path
) -> None:
    folder = write_extension(offers)
    first = commit_all(folder)
    proposal = installer.from_git(folder.as_uri())
    assert proposal.source["commit"] == first
    install(installer, proposal)
    assert host.extension("brighten").state == "on"
    assert not (data_dir / "extensions" / "brighten" / ".git").exists()
    assert installer.update_state("brighten").has_newer is False
    (folder / "more.py").write_text("x = 1\n")
    second = commit_all(folder)
    state = installer.update_state("brighten")
    assert state.has_newer
    assert second[:8] in state.text
    install(installer, installer.update("brighten"))
    assert (data_dir / "extensions" / "brighten" / "more.py").is_file()
    assert host.states.get("brighten").source["commit"] == second


def test_a_clone_made_by_hand_is_compared_and_left_to_its_owner(
    installer: Installer, host: PluginHost, offers: Path, data_dir: Path
) -> None:
    folder = write_extension(offers)
    commit_all(folder)
    (data_dir / "extensions").mkdir(parents=True)
    git(data_dir / "extensions", "clone", "--quiet", folder.as_uri(), "brighten")
    host.refresh()
    assert installer.update_state("brighten").has_newer is False
    commit_all(folder)
    state = installer.update_state("brighten")
    assert state.has_newer
    assert not state.can_update
    assert "pull" in state.text
    with pytest.raises(InvalidRequest, match="pull"):
        installer.update("brighten")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds wheels here and nowhere else, and installs into a folder of the test's own."""
    site = tmp_path / "site"
    site.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "wheels"), "TARGET": str(site)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.syspath_prepend(str(site))
    return tmp_path / "wheels"


def test_packages_are_installed_after_the_user_agrees(
    installer: Installer, host: PluginHost, offers: Path, wheels: Path
) -> None:
    write_wheel(wheels, "atelier_paints", "1.2")
    code = "import atelier_paints\n" + BRIGHTEN
    folder = write_extension(offers, code=code, toml='dependencies = ["atelier_paints>=1"]\n')
    proposal = installer.from_folder(str(folder))
    assert proposal.packages == (("atelier_paints>=1", "not installed"),)
    said = install(installer, proposal)
    assert host.extension("brighten").state == "on"
    assert any("atelier_paints-1.2" in line for line in said)


def test_if_pip_fails_the_extension_is_there_off_and_says_why(
    installer: Installer, host: PluginHost, offers: Path, wheels: Path, data_dir: Path
) -> None:
    wheels.mkdir()
    folder = write_extension(offers, toml='dependencies = ["atelier_paints>=1"]\n')
    said = install(installer, installer.from_folder(str(folder)))
    assert host.extension("brighten").state == "off"
    assert "No matching distribution" in " ".join(said)
    assert "pip could not install its packages" in installer.problem_of("brighten")
    assert left_over(data_dir) == ["brighten"]


def test_a_package_of_the_program_never_changes_its_version(
    installer: Installer, host: PluginHost, offers: Path, wheels: Path
) -> None:
    before = version("pluggy")
    write_wheel(wheels, "pluggy", "99.0")
    write_wheel(wheels, "atelier_paints", "1.2", requires=("pluggy>=99",))
    folder = write_extension(offers, toml='dependencies = ["atelier_paints>=1"]\n')
    install(installer, installer.from_folder(str(folder)))
    assert host.extension("brighten").state == "off"
    assert f"here is pluggy=={before}" in installer.problem_of("brighten")
    assert version("pluggy") == before

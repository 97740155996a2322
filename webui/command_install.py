"""`launch.py extensions install | update | remove`: shows what would run, asks, and then does it.

Whoever has a command line sits at the machine, so the settings that keep the page from installing do not count here.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from webui.errors import InvalidRequest, WebUIError
from webui.library.downloads.amounts import amount
from webui.plugins.host import PluginHost
from webui.plugins.installing import Installer, Proposal
from webui.settings import load_settings

Run = Callable[[argparse.Namespace], int]

MAX_FILES_TOLD = 100


def add_install_actions(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """`add(name, summary)` makes the parser of one action."""
    for name, (summary, run) in ACTIONS.items():
        action = add(name, summary)
        if name == "install":
            action.add_argument("source", metavar="SOURCE", help="a folder, a zip file, or the https address of git")
            action.add_argument("--ref", default="", help="branch, tag or commit (default: the repository's own)")
        else:
            action.add_argument("id", metavar="ID", help="the name of its folder")
        action.add_argument("--yes", action="store_true", help="do it without asking")
        action.set_defaults(run=run)


def _install(options: argparse.Namespace) -> int:
    installer, _ = _opened(options)
    path = Path(options.source).expanduser()
    if path.is_dir():
        proposal = installer.from_folder(str(path.resolve()))
    elif path.is_file():
        proposal = installer.from_zip(path, path.name)
    else:
        proposal = installer.from_git(options.source, options.ref)
    return _confirmed(installer, proposal, options)


def _update(options: argparse.Namespace) -> int:
    installer, _ = _opened(options)
    state = installer.update_state(options.id)
    _say(state.text)
    return _confirmed(installer, installer.update(options.id), options) if state.can_update else 0


def _remove(options: argparse.Namespace) -> int:
    installer, host = _opened(options)
    extension = host.extension(options.id)
    if not _agreed(f"Remove {extension.title}, with its files in {extension.folder} and its settings?", options):
        return 1
    installer.remove(options.id)
    _say(f"{extension.title} is removed.")
    return 0


def _opened(options: argparse.Namespace) -> tuple[Installer, PluginHost]:
    settings = load_settings(data_dir=options.data_dir)
    settings = settings.model_copy(update={"host": "127.0.0.1", "extension_installs": True})
    host = PluginHost(settings)
    host.refresh(only=())
    return Installer(settings, host), host


def _confirmed(installer: Installer, proposal: Proposal, options: argparse.Namespace) -> int:
    for line in _told(proposal):
        _say(line)
    what = f"Update to {proposal.manifest.version}" if proposal.replaces else "Install it"
    try:
        agreed = _agreed(f"It will run with all your rights. {what}?", options)
    except BaseException:
        installer.discard(proposal.token)
        raise
    if not agreed:
        installer.discard(proposal.token)
        _say("Nothing was installed.")
        return 1
    extension = installer.install(proposal.token, _say)
    problem = "" if extension.state == "on" else installer.problem_of(extension.id)
    if problem:
        raise WebUIError(f"{extension.title} is installed, but does not run. {problem}")
    _say(f"{extension.title} is {extension.state}. A program that runs learns of it with its next start.")
    return 0


def _told(proposal: Proposal) -> list[str]:
    manifest = proposal.manifest
    size = sum(size for _, size in proposal.files)
    rows = {
        "From": next((proposal.source[key] for key in ("url", "path", "name") if key in proposal.source), ""),
        "Commit": proposal.source.get("commit", ""),
        "Licence": proposal.licence or "it has no licence file",
        "Hooks": ", ".join(proposal.hooks) or "none",
        "Commands": ", ".join(manifest.commands),
        "Packages": ", ".join(f"{name} ({there})" for name, there in proposal.packages) or "none to install",
        "Models": ", ".join(f"{model.file} ({model.licence})" for model in manifest.models),
        "Files": f"{len(proposal.files)}, {amount(size, None)}",
    }
    title = f"{manifest.title} {manifest.version} ({manifest.id})"
    files = [f"    {name}" for name, _ in proposal.files[:MAX_FILES_TOLD]]
    if len(proposal.files) > MAX_FILES_TOLD:
        files.append("    ...")
    return [title, *(f"  {name + ':':<10}{value}" for name, value in rows.items() if value), *files]


def _agreed(question: str, options: argparse.Namespace) -> bool:
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidRequest("yes", "Nobody can be asked here.", hint="Add --yes if you have looked at it.")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


ACTIONS: Mapping[str, tuple[str, Run]] = MappingProxyType(
    {
        "install": ("install one from a folder, a zip file or a git address", _install),
        "update": ("bring the newer version of one that was installed", _update),
        "remove": ("delete one of your own", _remove),
    }
)

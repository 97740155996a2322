"""`launch.py extensions list | check | enable | disable`. Only `check` runs any of their code.

`install`, `update` and `remove` are in command_install.py.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from webui.command_install import add_install_actions
from webui.errors import WebUIError
from webui.plugins.discovery import Found, extension_folders, find_extensions
from webui.plugins.host import PluginHost
from webui.plugins.state import FILE, ExtensionStates
from webui.settings import Settings, load_settings


def add_actions(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=summary, description=summary)
        # Also here, so that it may stand anywhere; without a default, which would hide what stood before.
        action.add_argument("--data-dir", type=Path, default=argparse.SUPPRESS, help="as before the action")
        return action

    for name, summary, run in (
        ("list", "say which there are, without running any", _list),
        ("check", "load those that are on, and say what is wrong with them", _check),
        ("enable", "switch one on", _enable),
        ("disable", "switch one off", _disable),
    ):
        action = add(name, summary)
        if name in ("enable", "disable"):
            action.add_argument("id", metavar="ID", help="the name of its folder")
        if name in ("list", "check"):
            action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(run=run)
    add_install_actions(add)


def _list(options: argparse.Namespace) -> int:
    settings, states = _opened(options)
    found = [_row(extension, states) for extension in find_extensions(extension_folders(settings))]
    _print(found, options.json)
    return 0


def _check(options: argparse.Namespace) -> int:
    settings, _ = _opened(options)
    host = PluginHost(settings)
    host.load()
    rows = [
        {
            "id": extension.id,
            "version": "" if extension.manifest is None else extension.manifest.version,
            "state": extension.state,
            "problems": list(extension.problems),
        }
        for extension in host.extensions()
    ]
    host.close()
    _print(rows, options.json)
    return 1 if any(row["problems"] for row in rows) else 0


def _enable(options: argparse.Namespace) -> int:
    return _switch(options, on=True)


def _disable(options: argparse.Namespace) -> int:
    return _switch(options, on=False)


def _switch(options: argparse.Namespace, *, on: bool) -> int:
    settings, states = _opened(options)
    known = {extension.id for extension in find_extensions(extension_folders(settings))}
    if options.id not in known:
        raise WebUIError(
            f"There is no extension '{options.id}'.", hint=f"There are: {', '.join(sorted(known)) or 'none'}."
        )
    states.change(options.id, enabled=on)
    _say(f"{options.id} is {'on' if on else 'off'}; a program that runs learns of it with its next start.")
    return 0


def _opened(options: argparse.Namespace) -> tuple[Settings, ExtensionStates]:
    settings = load_settings(data_dir=options.data_dir)
    return settings, ExtensionStates(settings.data_dir / FILE)


def _row(extension: Found, states: ExtensionStates) -> dict[str, Any]:
    return {
        "id": extension.id,
        "version": "" if extension.manifest is None else extension.manifest.version,
        "state": "failed" if extension.manifest is None else "on" if states.get(extension.id).enabled else "off",
        "problems": [extension.problem] if extension.problem else [],
    }


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _say(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        _say(f"{row['state']:<7} {row['id']} {row['version']}".rstrip())
        for problem in row["problems"]:
            _say(f"        {problem}")
    if not rows:
        _say("There are no extensions.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")

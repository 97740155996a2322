"""Which commands extensions have, read with the standard library alone: help answers at once, whatever is broken."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path


def command_names(folders: Sequence[Path], state: Path) -> dict[str, tuple[str, str]]:
    """Command -> (its line of help, id of its extension), of extensions that `state` does not switch off.

    `state` is the file `extensions.json`. What cannot be read has no commands; loading it tells why.
    """
    off = _switched_off(state)
    found: dict[str, tuple[str, str]] = {}
    for parent in dict.fromkeys(folders):
        for manifest in sorted(parent.glob("*/extension.toml")):
            id = manifest.parent.name
            if id not in off and not id.startswith((".", "_")):
                for name, summary in _commands(manifest).items():
                    found.setdefault(name, (summary, id))
    return found


def _commands(manifest: Path) -> dict[str, str]:
    try:
        commands = tomllib.loads(manifest.read_text("utf-8")).get("commands")
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(commands, dict):
        return {}
    return {name: summary for name, summary in commands.items() if isinstance(summary, str)}


def _switched_off(state: Path) -> set[str]:
    try:
        entries = json.loads(state.read_text("utf-8"))["extensions"]
        return {id for id, entry in entries.items() if entry.get("enabled") is False}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return set()

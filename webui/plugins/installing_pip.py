"""Python packages that an extension needs, into the environment that runs this program.

Packages that are there already keep their version: what would change one is refused by pip, and nothing is installed.
"""

import importlib
import importlib.util
import itertools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from pathlib import Path

from packaging.version import InvalidVersion, Version

from webui.errors import ExtensionError

INSTALL_S = 1800.0
MAX_REASON_CHARS = 500


def install_packages(requirements: Sequence[str], say: Callable[[str], None]) -> None:
    """Runs pip; `say` gets each line of its output. Raises ExtensionError with the reason."""
    if importlib.util.find_spec("pip") is None:
        raise ExtensionError(
            "The environment of this program has no pip.", hint=f"Install by hand: {' '.join(requirements)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "installed.txt"
        pins.write_text("\n".join(installed_pins()), encoding="utf-8")
        options = [
            "--no-input",
            "--disable-pip-version-check",
            "--prefer-binary",
            "--no-compile",
            "--constraint",
            str(pins),
        ]
        _run([sys.executable, "-m", "pip", "install", *options, "--", *requirements], say)
    importlib.invalidate_caches()


def installed_pins() -> list[str]:
    """ "name==version" of every package that this program can import."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name = str(distribution.metadata["Name"] or "")
        try:
            version = str(Version(distribution.version or ""))
        except InvalidVersion:
            continue
        if name:
            found.setdefault(name, version)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _run(command: Sequence[str], say: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        timer = threading.Timer(INSTALL_S, process.kill)
        timer.start()
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                say(lines[-1])
        finally:
            late = not timer.is_alive()
            timer.cancel()
    if late:
        raise ExtensionError(f"pip took longer than {INSTALL_S:g} s and was stopped.")
    if process.returncode:
        raise ExtensionError(f"pip could not install its packages: {_reason(lines, process.returncode)}.")


def _reason(lines: Sequence[str], status: int) -> str:
    """pip's first error, and which packages are in each other's way."""
    errors = [line.removeprefix("ERROR: ").rstrip(".") for line in lines if line.startswith("ERROR: ")]
    first = errors[0] if errors else f"it ended with status {status}"
    start = next((number for number, line in enumerate(lines) if line.startswith("The conflict is caused by")), None)
    if start is None:
        return first[:MAX_REASON_CHARS]
    conflict = itertools.takewhile(lambda line: line.startswith(" "), lines[start + 1 :])
    told = "; ".join(line.strip().replace("The user requested (constraint)", "here is") for line in conflict)
    return f"{first} ({told})"[:MAX_REASON_CHARS]

"""Sets Atelier up and starts it, with nothing but Python: `python launch.py`.

The first start makes `.venv` and installs the locked packages; later starts only compare a small stamp file. A set-up
that was interrupted is finished by the next start. Everything after `launch.py` is passed to the program unchanged;
`python launch.py test` runs the tests. Only the standard library is used, and the file must also load in Python 3.8,
so that an old Python gets a message instead of a syntax error.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

CHECKOUT = Path(__file__).resolve().parent
APP_LOCK = CHECKOUT / "requirements.lock"
TEST_LOCK = CHECKOUT / "requirements-test.lock"  # holds every line of the other one, too
PYTHONS = ((3, 11), (3, 12), (3, 13))
STAMP = "atelier.json"
GUARD = "atelier.lock"
GIGABYTE = 1_000_000_000
PROBE_TIMEOUT_S = 2.5

# Where PyTorch publishes the builds that the default index does not have. The versions and the code are the same.
TORCH_INDEXES = {
    ("linux", "cpu"): "https://download.pytorch.org/whl/cpu",
    ("win32", "cuda"): "https://download.pytorch.org/whl/cu130",
}
# Free space for a new environment and its downloads, with some air.
SPACE_BYTES = {"cpu": 5 * GIGABYTE, "cuda": 14 * GIGABYTE}

HELP = """\
Atelier: a browser studio for Stable Diffusion.

  python launch.py [serve]       set up if needed, then open the page in the browser
  python launch.py generate      the same job without a browser
  python launch.py test          run the tests
  python launch.py --help        all commands and options (this short text until the set-up has run)

Not set up yet. The first start makes an environment in
  {venv}
and installs PyTorch and the other packages there; it needs a network connection and about {space} GB.
Variables: ATELIER_VENV=FOLDER puts the environment elsewhere; ATELIER_TORCH_INDEX=URL takes PyTorch from there."""

# What pip says -> what it means, and what to do. The first match counts.
PIP_PROBLEMS = (
    (
        "No space left on device|Errno 28|not enough space on the disk",
        "the disk is full.",
        "Free some space, or put the environment on another disk with ATELIER_VENV=FOLDER, and start again.",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED|SSLError",
        "the package index's certificate is not trusted here, often because of a company's proxy.",
        "Tell pip about the proxy's certificate (pip config set global.cert FILE) and start again.",
    ),
    (
        "ConnectionError|Connection (refused|reset|broken)|Timeout|[Nn]ame resolution|NameResolution|IncompleteRead"
        "|Name or service not known|getaddrinfo failed|Network is unreachable|ProxyError|Max retries exceeded",
        "the package index cannot be reached.",
        "Check the network connection (behind a proxy, set HTTPS_PROXY) and start again: it goes on where it stopped.",
    ),
    (
        "Permission denied|Access is denied|Errno 13|Read-only file system",
        "a file of the environment could not be written.",
        "Close programs that use the environment, or put it elsewhere with ATELIER_VENV=FOLDER, and start again.",
    ),
    (
        "Could not find a version|No matching distribution",
        f"a package has no build for this machine ({sys.platform} {platform.machine()}, {platform.python_version()}).",
        "There are builds for 64-bit Linux (x86-64, ARM), Windows (x86-64) and macOS 14 or newer on Apple chips.",
    ),
)


class SetupError(Exception):
    """What is wrong, and a hint that says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def main(arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        check_python(sys.version_info[:2])
        return start(arguments)
    except SetupError as error:
        print(f"\nAtelier cannot start: {error}\n{error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next start goes on from here.", file=sys.stderr)
        return 130


def check_python(version: Sequence[int]) -> None:
    """Raises SetupError unless `version` (major, minor) is one that the lock was made for."""
    if tuple(version) in PYTHONS:
        return
    found = [name for name in (f"python{major}.{minor}" for major, minor in PYTHONS) if shutil.which(name)]
    raise SetupError(
        f"it needs Python 3.11, 3.12 or 3.13, and this is Python {'.'.join(map(str, version))} ({sys.executable}).",
        f"Start it with: {found[-1]} launch.py" if found else "Get one of them at https://www.python.org/downloads/",
    )


def start(arguments: Sequence[str]) -> int:
    """Makes sure that the environment fits the lock, then becomes the program (or the tests)."""
    testing = list(arguments[:1]) == ["test"]
    venv = environment_folder()
    lock = TEST_LOCK if testing else APP_LOCK
    build = torch_build()
    if not is_ready(venv, lock, build):
        if not testing and {"-h", "--help"} & set(arguments):
            print(HELP.format(venv=venv, space=SPACE_BYTES[build] // GIGABYTE))
            return 0
        with guarded(venv) as guard:
            if not is_ready(venv, lock, build):  # another start may have finished it meanwhile
                set_up(venv, lock, build, guard)
    if testing:
        os.chdir(CHECKOUT)
        return hand_over([str(python_of(venv)), "-m", "pytest", *arguments[1:]])
    return hand_over([str(python_of(venv)), "-m", "webui", *arguments])


def environment_folder() -> Path:
    """Where the environment is or will be; a link is followed, since Python makes no environment in one."""
    venv = Path(os.environ.get("ATELIER_VENV") or CHECKOUT / ".venv").expanduser().absolute()
    return venv.resolve() if venv.is_symlink() else venv


# -- Is there anything to do? ------------------------------------------------------------------------------------------


def is_ready(venv: Path, lock: Path, build: str) -> bool:
    stamp = read_stamp(venv)
    return stamp.get("locks", {}).get(lock.name) == fingerprint(lock) and not why_remake(venv, stamp, build)


def why_remake(venv: Path, stamp: dict[str, Any], build: str) -> str:
    """Why the environment cannot be used or brought up to date; "" if it can."""
    if not python_of(venv).exists():  # False also where it is a link to a Python that was removed
        return "its Python is missing"
    if stamp.get("venv", str(venv)) != str(venv):
        return f"it was moved or copied from {stamp['venv']}"
    if stamp.get("torch", build) == "cpu" and build == "cuda":
        return "there is an NVIDIA device now"
    this_python = "{}.{}".format(*sys.version_info[:2])
    if stamp.get("python") != this_python and not works(venv, stamp.get("python", this_python)):
        return "it was not finished, or was made by another Python"
    return ""


def works(venv: Path, version: str) -> bool:
    """Whether the environment's Python starts, has all of pip, and is still the version that it was made with."""
    program = (
        "import sys; from importlib.metadata import distribution\n"
        "assert distribution('pip').read_text('INSTALLER')\n"
        "print('{}.{}'.format(*sys.version_info[:2]))"
    )
    try:
        command = [str(python_of(venv)), "-I", "-c", program]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return answer.stdout.strip() == version


def read_stamp(venv: Path) -> dict[str, Any]:
    """What the last finished set-up left: its folder, Python, PyTorch build and the fingerprints of its locks."""
    try:
        stamp = json.loads((venv / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def fingerprint(lock: Path) -> str:
    """SHA-256 of the lines, so that Windows line ends make no difference."""
    try:
        return hashlib.sha256("\n".join(lock.read_text("utf-8").splitlines()).encode()).hexdigest()
    except OSError as error:
        raise SetupError(
            f"{lock} cannot be read: {error.strerror}.", "Get a complete copy of the repository."
        ) from None


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def torch_build() -> str:
    """ "cuda" if there is an NVIDIA device, otherwise "cpu" (on a Mac that build also drives the Apple GPU)."""
    traces = ["/proc/driver/nvidia/version", "/dev/nvidia0", "/usr/lib/wsl/lib/nvidia-smi"]
    if sys.platform == "win32":
        traces = [os.path.expandvars(r"%SystemRoot%\System32\nvidia-smi.exe")]
    return "cuda" if sys.platform != "darwin" and any(map(os.path.exists, traces)) else "cpu"


# -- Set-up ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def guarded(venv: Path) -> Iterator[int]:
    """The right to change the environment, as the descriptor of a locked file. Waits for other starts."""
    check_ours(venv)
    try:
        venv.mkdir(parents=True, exist_ok=True)
        guard = os.open(venv / GUARD, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        hint = "Move the checkout to a folder of your own, or set ATELIER_VENV=FOLDER to one that can be written."
        raise SetupError(f"the folder {venv} cannot be written: {error.strerror}.", hint) from None
    try:
        waiting = False
        while not locked(guard):
            if not waiting:
                say("Another start is setting this environment up. Waiting for it to finish.")
            waiting = True
            time.sleep(0.5)
        yield guard
    finally:
        os.close(guard)


def check_ours(venv: Path) -> None:
    """Raises SetupError if `venv` is elsewhere and holds what this program did not make: a set-up could delete it."""
    if venv == CHECKOUT / ".venv" or not venv.is_dir() or (venv / GUARD).exists() or (venv / STAMP).exists():
        return
    if found := sorted(path.name for path in venv.iterdir()):
        message = f"the folder {venv} holds '{found[0]}', which this program did not make."
        raise SetupError(message, "Set ATELIER_VENV to a folder that is new or empty. Nothing was changed.")


def locked(guard: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(guard, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def set_up(venv: Path, lock: Path, build: str, guard: int) -> None:
    """Makes or completes the environment. The stamp goes first and comes last, so that half a set-up never counts."""
    began = time.monotonic()
    stamp = read_stamp(venv)
    index = TorchIndex(build)
    reason = why_remake(venv, stamp, build)
    (venv / STAMP).unlink(missing_ok=True)
    if reason:
        make_venv(venv, build, reason)
        stamp = {}
    say(f"[2/3] Installing what {lock.name} names")
    drop_half_installed(venv)
    if index.usable(venv):
        torch = [line for line in lock.read_text("utf-8").splitlines() if line.startswith("torch==")]
        pip(venv, guard, "--no-deps", "--retries=1", f"--extra-index-url={index.url}", *torch)
    code, complaints = pip(venv, guard, "-r", str(lock))
    if code:
        raise pip_error(code, complaints)
    locks = {**stamp.get("locks", {}), **{each.name: fingerprint(each) for each in (APP_LOCK, lock)}}
    this_python = stamp.get("python", "{}.{}".format(*sys.version_info[:2]))
    write_stamp(venv, {"venv": str(venv), "python": this_python, "torch": build, "locks": locks})
    say(f"[3/3] Ready after {time.monotonic() - began:.0f} s. The next start skips all this.")
    if "opencv-python==" in lock.read_text("utf-8") and not opencv_loads(venv):
        say("NOTE: OpenCV does not load. On a Linux server: apt install libgl1 libglib2.0-0")
    if sys.platform == "win32" and build == "cuda" and not index.reached:
        say(f"NOTE: PyTorch's build for NVIDIA could not be reached at {index.url}, so pictures are made on the CPU.")
        say(f"To change that, delete {venv} and start again with a network connection that reaches it.")


def make_venv(venv: Path, build: str, reason: str) -> None:
    """An empty environment with pip; what the folder held before is deleted."""
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        version = "{}.{}".format(*sys.version_info[:2])
        hint = f"On Debian and Ubuntu: apt install python{version}-venv. Then start again."
        raise SetupError(f"Python {version} has no ensurepip module here, so it cannot make an environment.", hint)
    leftovers = [path for path in venv.iterdir() if path.name != GUARD]
    if leftovers:
        say(f"The environment in {venv} has to be made anew: {reason}.")
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    check_space(venv, SPACE_BYTES[build])
    say(f"[1/3] Making an environment in {venv} with Python {platform.python_version()}")
    import venv as environments  # noqa: PLC0415  (costs time, and no later start needs it)

    try:
        environments.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(venv)
    except subprocess.CalledProcessError as error:
        hint = f"Free disk space and try again, or use another Python. It said: {error.output!r}"
        raise SetupError("Python could not make an environment with pip.", hint) from None


def check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        message = (
            f"the disk of {folder} has {free / GIGABYTE:.1f} GB free, and {needed_bytes / GIGABYTE:.0f} are needed."
        )
        raise SetupError(message, "Free some space, or put the environment on another disk with ATELIER_VENV=FOLDER.")


def drop_half_installed(venv: Path) -> None:
    """Forgets packages whose installation was cut off: pip takes their metadata for a finished package.

    pip writes INSTALLER after all of a package's files; a name that begins with ~ is an uninstallation cut off.
    """
    for site in [*venv.glob("lib/python3*/site-packages"), venv / "Lib" / "site-packages"]:
        cut_off = [info for info in site.glob("*.dist-info") if not (info / "INSTALLER").exists()]
        for folder in [*cut_off, *site.glob("~*")]:
            shutil.rmtree(folder, ignore_errors=True)


class TorchIndex:
    """PyTorch's own index, where this machine's build is there only. Asked in the background, for a short time.

    Whoever configured pip's sources decided where packages come from, so then there is none, unless
    ATELIER_TORCH_INDEX names it. An index that does not answer is left out: the default one has a build that works.
    """

    def __init__(self, build: str) -> None:
        named = os.environ.get("ATELIER_TORCH_INDEX")
        self.named = named is not None
        self.url = named if named is not None else TORCH_INDEXES.get((sys.platform, build), "")
        self.reached = False
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._deadline = time.monotonic() + PROBE_TIMEOUT_S
        if self.url and (self.named or not any(f"PIP_{name}" in os.environ for name in self._SOURCES)):
            self._thread.start()

    _SOURCES = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX")

    def usable(self, venv: Path) -> bool:
        if self._thread.ident is None or (not self.named and self._configured(venv)):
            return False
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if not self.reached:
            say(f"{self.url} does not answer; PyTorch comes from the default index.")
        return self.reached

    def _configured(self, venv: Path) -> bool:
        command = [str(python_of(venv)), "-I", "-m", "pip", "config", "list"]
        settings = subprocess.run(command, capture_output=True, text=True, check=False).stdout.upper().replace("-", "_")
        return any(f".{name}=" in settings for name in self._SOURCES)

    def _ask(self) -> None:
        import urllib.request  # noqa: PLC0415  (likewise)

        with contextlib.suppress(OSError, ValueError):
            urllib.request.urlopen(f"{self.url.rstrip('/')}/torch/", timeout=PROBE_TIMEOUT_S).close()
            self.reached = True


def pip(venv: Path, guard: int, *arguments: str) -> tuple[int, str]:
    """Runs `pip install`, which shows its own progress. Returns its exit code and what it complained about.

    Nothing is compiled ahead: most files are never imported, and the others compile when they are.
    pip holds the guard too: where only this process is killed, the next start waits until pip is done.
    """
    command = [str(python_of(venv)), "-I", "-m", "pip", "install", "--no-input", "--no-compile", *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("PIP_TARGET", "PIP_PREFIX")}
    environment.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    kept = () if sys.platform == "win32" else (guard,)
    process = subprocess.Popen(
        command, env=environment, pass_fds=kept, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    complaints = []
    for line in process.stderr or ():
        sys.stderr.write(line)
        complaints.append(line)
    return process.wait(), "".join(complaints)


def pip_error(code: int, complaints: str) -> SetupError:
    for signs, message, hint in PIP_PROBLEMS:
        if re.search(signs, complaints):
            return SetupError(message, hint)
    return SetupError(f"pip stopped with code {code}; its own message is above.", "Start again to try once more.")


def opencv_loads(venv: Path) -> bool:
    """Whether the system has the desktop libraries that OpenCV links to, which bare servers lack."""
    return subprocess.run([str(python_of(venv)), "-I", "-c", "import cv2"], check=False).returncode == 0


def write_stamp(venv: Path, stamp: dict[str, Any]) -> None:
    fresh = venv / (STAMP + ".new")
    fresh.write_text(json.dumps(stamp, indent=1), "utf-8")
    fresh.replace(venv / STAMP)


def say(line: str) -> None:
    print(line, flush=True)


# -- The program -------------------------------------------------------------------------------------------------------


def hand_over(command: list[str]) -> int:
    """Becomes `command`; where the system cannot do that, waits for it and returns its exit code."""
    dropped = ("PYTHONHOME", "__PYVENV_LAUNCHER__", "PYTHONDONTWRITEBYTECODE")  # the last: see pip()
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment.update(PYTHONPATH=str(CHECKOUT), PYTHONSAFEPATH="1", PYTHONNOUSERSITE="1", PYTHONUTF8="1")
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):  # the console tells the program, too, and the program decides
            process.wait()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

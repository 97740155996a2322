"""Extensions at a git address, by the machine's own git: its newest commit, and that commit's files as a zip.

Nothing is checked out, so no hook, filter or submodule of the repository has a say. Git may use https alone (with the
setting `private_downloads` also http and local files), asks nobody for a password, and is ended when it takes too long
or too much of the disk.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from webui.errors import ExtensionError, WebUIError
from webui.library.downloads.addresses import parse_url

FETCH_S = 180.0
ASK_S = 30.0
MAX_BYTES = 1_000_000_000
LOOK_S = 0.1
OPTIONS: tuple[str, ...] = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "credential.interactive=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
)
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAddress:
    """`ref` is a branch, a tag or a whole commit id; "" the repository's own branch."""

    url: str
    ref: str = ""
    protocols: str = "https"

    @property
    def is_fixed(self) -> bool:
        """Whether it names one commit, which never changes."""
        return _COMMIT.fullmatch(self.ref) is not None


def parse_address(url: str, ref: str = "", *, private: bool = False) -> GitAddress:
    """Raises ExtensionError for anything but https; `private` allows http and file too."""
    url, ref = url.strip(), ref.strip()
    if ref and (not _REF.fullmatch(ref) or ".." in ref or ref.endswith(("/", ".", ".lock"))):
        raise ExtensionError(f"'{ref[:100]}' is no branch, tag or commit.")
    if private and url.startswith("file:///") and "\0" not in url:
        return GitAddress(url=url, ref=ref, protocols="file:http:https")
    try:
        checked = parse_url(url, plain_http=private)
    except WebUIError as error:
        raise ExtensionError(error.message, hint="Give the https address of a git repository.") from error
    if urlsplit(str(checked)).path in ("", "/"):
        raise ExtensionError(f"'{url[:200]}' names no repository.", hint="Give the https address of a git repository.")
    return GitAddress(url=str(checked), ref=ref, protocols="http:https" if private else "https")


def fetch_files(address: GitAddress, folder: Path) -> tuple[Path, str]:
    """Brings the newest commit into the new folder `folder`: (a zip of its files, the commit's id)."""
    folder.mkdir(parents=True)
    repository, archive = folder / "repository", folder / "files.zip"
    _git(["init", "--quiet", "--bare", "--template=", str(repository)], address, folder, ASK_S)
    fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-commit-graph"]
    _git([*fetch, address.url, address.ref or "HEAD"], address, repository, FETCH_S)
    commit = _git(["rev-parse", "FETCH_HEAD^{commit}"], address, repository, ASK_S).strip()
    _git(["archive", "--format=zip", f"--output={archive}", commit], address, repository, FETCH_S)
    return archive, commit


def newest_commit(address: GitAddress) -> str:
    """The commit that the address has now. Asks the server."""
    if address.is_fixed:
        return address.ref
    ref = address.ref
    asked = [ref, f"{ref}^{{}}"] if ref else ["HEAD"]  # the second one is the commit of an annotated tag
    told = _git(["ls-remote", "--exit-code", address.url, *asked], address, None, ASK_S)
    found = {name: commit for commit, _, name in (line.partition("\t") for line in told.splitlines())}
    names = (f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", ref) if ref else ("HEAD",)
    commit = next((found[name] for name in names if name in found), "")
    if not commit:
        raise ExtensionError(f"{address.url} has no '{ref or 'HEAD'}'.")
    return commit


def checkout_of(folder: Path) -> tuple[GitAddress, str] | None:
    """(where it comes from, its commit) of a folder that somebody cloned by hand; None for any other."""
    if not (folder / ".git").exists():
        return None
    own = GitAddress(url="", protocols="")
    try:
        commit = _git(["rev-parse", "HEAD"], own, folder, ASK_S).strip()
        url = _git(["config", "--get", "remote.origin.url"], own, folder, ASK_S).strip()
        branch = _git(["rev-parse", "--abbrev-ref", "HEAD"], own, folder, ASK_S).strip()
    except ExtensionError:
        return None
    return GitAddress(url=url, ref="" if branch == "HEAD" else branch), commit


def _git(arguments: Sequence[str], address: GitAddress, folder: Path | None, limit_s: float) -> str:
    """What git prints. Raises ExtensionError if it fails, takes too long, or fills `folder`."""
    program = shutil.which("git")
    if program is None:
        raise ExtensionError("The program git is not installed on this machine.", hint="Install it, or use a zip.")
    options = [part for option in OPTIONS for part in ("-c", option)]
    with subprocess.Popen(
        [program, *options, *arguments],
        cwd=folder,
        env=_environment(address.protocols),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        output, complaints = _watched(process, folder, limit_s, address)
    if process.returncode:
        raise ExtensionError(f"git cannot get it from {address.url}: {_said(complaints, process.returncode)}.")
    return output


def _watched(
    process: "subprocess.Popen[str]", folder: Path | None, limit_s: float, address: GitAddress
) -> tuple[str, str]:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return process.communicate(timeout=LOOK_S)
        except subprocess.TimeoutExpired:
            pass
        problem = ""
        if time.monotonic() > deadline:
            problem = f"git took longer than {limit_s:g} s to get {address.url}."
        elif folder is not None and _bytes_in(folder) > MAX_BYTES:
            problem = f"{address.url} is larger than {MAX_BYTES // 10**6} MB, which is no extension."
        if problem:
            _end(process)
            raise ExtensionError(problem)


def _end(process: "subprocess.Popen[str]") -> None:
    """Also the programs that git has started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # git renames its files all the while
            total += path.lstat().st_size
    return total


def _environment(protocols: str) -> dict[str, str]:
    """The user's own, without what would point git to another repository or let it ask a question."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "SSL" in name}
    return {
        **kept,
        "GIT_ALLOW_PROTOCOL": protocols or "none",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GCM_INTERACTIVE": "never",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }


def _said(complaints: str, status: int) -> str:
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    fatal = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    return fatal.removeprefix("fatal: ").removeprefix("error: ").rstrip(".")[:300] or f"it ended with status {status}"

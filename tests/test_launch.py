"""launch.py for real, in small: a checkout with a lock of two hand-made wheels, installed by pip without a network."""

import ast
import functools
import http.server
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAM = """
import json, os, sys
import pebble
print(json.dumps({"arguments": sys.argv[1:], "pebble": pebble.VERSION, "utf8": sys.flags.utf8_mode,
                  "safe_path": sys.flags.safe_path, "folder": os.getcwd(), "prefix": sys.prefix}))
sys.exit(int(os.environ.get("EXIT", "0")))
"""


@pytest.fixture(scope="module")
def launch() -> SimpleNamespace:
    """The launcher's functions, for what cannot be provoked from outside."""
    return SimpleNamespace(**runpy.run_path(str(CHECKOUT / "launch.py"), run_name="launch"))


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


class Checkout:
    """A small checkout: launch.py, two locks, a program that tells what it was given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder.parent / "wheels"
        self.venv = folder / ".venv"
        (folder / "webui").mkdir(parents=True)
        shutil.copy(CHECKOUT / "launch.py", folder)
        (folder / "webui" / "__init__.py").touch()
        (folder / "webui" / "__main__.py").write_text(PROGRAM, "utf-8")
        for version in ("1.0", "2.0"):
            write_wheel(self.wheels, "pebble", version, {"pebble.py": f"VERSION = {version!r}\n"})
        write_wheel(self.wheels, "pytest", "1.0", {"pytest.py": PROGRAM})
        self.lock("1.0")

    def lock(self, version: str) -> None:
        (self.folder / "requirements.lock").write_text(f"# made by hand\npebble=={version}\n", "utf-8")
        (self.folder / "requirements-test.lock").write_text(f"pebble=={version}\npytest==1.0\n", "utf-8")

    def environment(self, **changes: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON", "ATELIER_"))}
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        return {**kept, **offline, "PIP_NO_CACHE_DIR": "1", **changes}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-u", str(self.folder / "launch.py"), *arguments]

    def start(self, *arguments: str, cwd: Path | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**changes),
            cwd=cwd or self.folder.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=600,
        )


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.stdout, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout with ünïcode")


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, subprocess.CompletedProcess[str]]:
    checkout = Checkout(tmp_path_factory.mktemp("launch") / "checkout with ünïcode")
    return checkout, checkout.start("serve", "--port", "8000")


@pytest.fixture
def installed(first_start: tuple[Checkout, object], checkout: Checkout) -> Checkout:
    """A checkout whose environment is a copy of the first start's, stamped as if it had been made here."""
    shutil.copytree(first_start[0].venv, checkout.venv, symlinks=True)
    stamp = json.loads((checkout.venv / "atelier.json").read_text("utf-8"))
    (checkout.venv / "atelier.json").write_text(json.dumps({**stamp, "venv": str(checkout.venv)}))
    return checkout


def test_the_first_start_installs_the_lock_and_hands_over(
    first_start: tuple[Checkout, subprocess.CompletedProcess[str]],
) -> None:
    checkout, done = first_start
    assert done.returncode == 0, done.stderr
    answer = report(done)
    assert answer["arguments"] == ["serve", "--port", "8000"]
    assert answer["pebble"] == "1.0"
    assert answer["prefix"] == str(checkout.venv)
    assert [line[:5] for line in done.stdout.splitlines() if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]


def test_a_second_start_runs_no_pip(installed: Checkout) -> None:
    site = next(installed.venv.glob("lib/python3*/site-packages"))
    shutil.rmtree(site / "pip")
    done = installed.start()
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1, "the program's line and nothing from the set-up"


def test_arguments_the_folder_and_the_exit_code_pass_through(installed: Checkout, tmp_path: Path) -> None:
    arguments = [
        "generate",
        "--prompt",
        'a "red" apple, ünïcode ☕',
        "",
        "--init=my photo.png",
        "*",
        "$HOME",
        "--",
        "-h",
    ]
    (tmp_path / "elsewhere").mkdir()
    done = installed.start(*arguments, cwd=tmp_path / "elsewhere", EXIT="37")
    assert done.returncode == 37
    answer = report(done)
    assert answer["arguments"] == arguments
    assert answer["folder"] == str(tmp_path / "elsewhere"), (
        "relative paths must mean what the user's shell means by them"
    )


def test_a_stray_python_path_does_not_reach_the_program(installed: Checkout, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "webui").mkdir()
    (tmp_path / "webui" / "__main__.py").write_text("raise SystemExit('the wrong webui')")
    done = installed.start(cwd=tmp_path, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert report(done)["utf8"] == 1
    assert report(done)["safe_path"] is True


def test_a_changed_lock_is_installed_and_only_then(installed: Checkout) -> None:
    (installed.venv / "mine").write_text("kept")
    installed.lock("2.0")
    assert report(installed.start())["pebble"] == "2.0"
    assert (installed.venv / "mine").exists(), "an update keeps the environment"
    (installed.folder / "requirements.lock").write_bytes(b"# made by hand\r\npebble==2.0\r\n")
    assert len(installed.start().stdout.splitlines()) == 1, "other line ends are no change"


def test_the_tests_get_their_own_lock_and_arguments(installed: Checkout) -> None:
    assert report(installed.start("serve"))["pebble"] == "1.0"
    done = installed.start("test", "-k", "two words", EXIT="5")
    assert done.returncode == 5
    assert report(done)["arguments"] == ["-k", "two words"]
    assert report(done)["folder"] == str(installed.folder)
    assert len(installed.start("test").stdout.splitlines()) == 1
    assert len(installed.start("serve").stdout.splitlines()) == 1


def test_a_set_up_that_was_killed_is_finished_by_the_next_start(checkout: Checkout) -> None:
    kill_while_installing(checkout)
    assert not (checkout.venv / "atelier.json").exists()
    done = checkout.start()
    assert done.returncode == 0, done.stderr
    assert report(done)["pebble"] == "1.0"


def kill_while_installing(checkout: Checkout) -> None:
    """Kills launcher and pip as soon as pip has begun."""
    process = subprocess.Popen(
        checkout.command(), env=checkout.environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("[2/3]"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_package_that_was_cut_off_is_installed_again(installed: Checkout) -> None:
    site = next(installed.venv.glob("lib/python3*/site-packages"))
    (site / "pebble.py").unlink()
    (site / "pebble-1.0.dist-info" / "INSTALLER").unlink()
    (site / "~ebble").mkdir()
    (installed.venv / "atelier.json").unlink()
    done = installed.start()
    assert done.returncode == 0, done.stderr
    assert report(done)["pebble"] == "1.0"
    assert not (site / "~ebble").exists()


def test_an_environment_without_a_working_pip_is_made_anew(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to(sys.executable)
    (checkout.venv / "pyvenv.cfg").write_text(
        f"home = {Path(sys.executable).parent}\ninclude-system-site-packages = false\n"
    )
    done = checkout.start()
    assert done.returncode == 0, done.stderr
    assert "made anew: it was not finished" in done.stdout


def test_a_moved_checkout_gets_a_new_environment(installed: Checkout) -> None:
    old = installed.venv
    moved = installed.folder.rename(installed.folder.with_name("moved"))
    installed.folder, installed.venv = moved, moved / ".venv"
    done = installed.start()
    assert done.returncode == 0, done.stderr
    assert f"made anew: it was moved or copied from {old}" in done.stdout
    assert report(done)["prefix"] == str(installed.venv)


def test_an_environment_whose_python_was_removed_cannot_be_used(launch: SimpleNamespace, installed: Checkout) -> None:
    stamp = json.loads((installed.venv / "atelier.json").read_text("utf-8"))
    assert launch.why_remake(installed.venv, stamp, "cpu") == ""
    python = installed.venv / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert launch.why_remake(installed.venv, stamp, "cpu") == "its Python is missing"


def test_two_starts_at_once_install_once(checkout: Checkout) -> None:
    starts = [
        subprocess.Popen(checkout.command(), env=checkout.environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [start.communicate(timeout=600)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert sum("[2/3]" in output for output in outputs) == 1


def test_an_environment_can_be_put_elsewhere(installed: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    installed.venv.rename(elsewhere)
    stamp = json.loads((elsewhere / "atelier.json").read_text("utf-8"))
    (elsewhere / "atelier.json").write_text(json.dumps({**stamp, "venv": str(elsewhere)}))
    assert report(installed.start(ATELIER_VENV=str(elsewhere)))["prefix"] == str(elsewhere)
    assert not installed.venv.exists()


def test_a_linked_environment_is_used_where_it_is(installed: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    installed.venv.rename(elsewhere)
    stamp = json.loads((elsewhere / "atelier.json").read_text("utf-8"))
    (elsewhere / "atelier.json").write_text(json.dumps({**stamp, "venv": str(elsewhere)}))
    installed.venv.symlink_to(elsewhere)
    done = installed.start()
    assert report(done)["prefix"] == str(elsewhere)
    assert "[1/3]" not in done.stdout


def test_a_link_to_an_empty_folder_gets_the_environment(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    checkout.venv.symlink_to(tmp_path / "large disk")
    assert report(checkout.start())["prefix"] == str(tmp_path / "large disk")


# -- What is wrong, and what to do -------------------------------------------------------------------------------------


def test_help_answers_before_the_set_up(checkout: Checkout) -> None:
    done = checkout.start("--help")
    assert done.returncode == 0
    assert "Not set up yet" in done.stdout
    assert "python launch.py generate" in done.stdout
    assert not checkout.venv.exists()


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_with_something_else_in_it_stays_as_it_is(checkout: Checkout, tmp_path: Path, linked: bool) -> None:
    """Another program's environment, or somebody's documents."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    if linked:
        checkout.venv.symlink_to(folder)
    done = checkout.start(**({} if linked else {"ATELIER_VENV": str(folder)}))
    assert done.returncode == 1
    assert f"{folder} holds 'letter.txt'" in done.stderr
    assert "ATELIER_VENV" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["letter.txt", "pyvenv.cfg"]


def test_a_folder_that_cannot_be_written_is_named(checkout: Checkout) -> None:
    checkout.venv.write_text("a file is in the way")
    done = checkout.start()
    assert done.returncode == 1
    assert str(checkout.venv) in done.stderr
    assert "ATELIER_VENV" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_is_told_in_plain_words(installed: Checkout) -> None:
    closed = f"http://127.0.0.1:{closed_port()}/simple"
    installed.lock("2.0")
    done = installed.start(PIP_INDEX_URL=closed, PIP_RETRIES="1", PIP_NO_INDEX="0", PIP_FIND_LINKS="")
    assert done.returncode == 1
    assert "the package index cannot be reached" in done.stderr
    assert "Check the network connection" in done.stderr
    assert report(installed.start())["pebble"] == "2.0", "and the next start, with a network, goes on"


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_package_without_a_build_for_this_machine_is_told_in_plain_words(installed: Checkout) -> None:
    installed.lock("3.0")
    done = installed.start()
    assert done.returncode == 1
    assert "a package has no build for this machine" in done.stderr


def test_a_missing_lock_is_told_in_plain_words(installed: Checkout) -> None:
    (installed.folder / "requirements.lock").unlink()
    done = installed.start()
    assert done.returncode == 1
    assert "requirements.lock cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("complaint", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying (Retry(total=4)): NewConnectionError('[Errno -2] Name or service not known')", "reached"),
        ("SSLError(SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED), Max retries exceeded", "certificate"),
        ("ERROR: [Errno 13] Permission denied: 'x'", "could not be written"),
        ("ERROR: something new", "pip stopped with code 2"),
    ],
)
def test_what_pip_complains_about_is_translated(launch: SimpleNamespace, complaint: str, message: str) -> None:
    error = launch.pip_error(2, complaint)
    assert message in str(error)
    assert error.hint


def test_too_little_space_is_told_before_anything_is_downloaded(launch: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(launch.SetupError, match="GB free, and 1000000 are needed"):
        launch.check_space(tmp_path, 10**15)


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 14), (2, 7)])
def test_another_python_is_refused_with_a_remedy(launch: SimpleNamespace, version: tuple[int, int]) -> None:
    with pytest.raises(launch.SetupError, match=r"needs Python 3\.11, 3\.12 or 3\.13") as caught:
        launch.check_python(version)
    assert "launch.py" in caught.value.hint or "python.org" in caught.value.hint


def test_the_file_loads_in_an_old_python() -> None:
    ast.parse((CHECKOUT / "launch.py").read_text("utf-8"), feature_version=(3, 8))


def test_a_python_without_ensurepip_names_the_package_to_install(
    launch: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(launch.SetupError, match="no ensurepip") as caught:
        launch.make_venv(tmp_path, "cpu", "")
    assert "apt install python3" in caught.value.hint


# -- Which PyTorch -----------------------------------------------------------------------------------------------------


def test_an_index_that_does_not_answer_is_left_out(installed: Checkout) -> None:
    (installed.folder / "requirements.lock").write_text("pebble==1.0\ntorch==9.9\n", "utf-8")
    write_wheel(installed.wheels, "torch", "9.9", {"torch.py": ""})
    done = installed.start(ATELIER_TORCH_INDEX=f"http://127.0.0.1:{closed_port()}/whl/cpu")
    assert done.returncode == 0, done.stderr
    assert "does not answer; PyTorch comes from the default index" in done.stdout
    assert "Retrying" not in done.stderr, "pip was never told of it"
    assert installed_torch(installed) == "torch-9.9.dist-info"


def test_an_index_that_never_answers_holds_nobody_up(launch: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:  # accepts connections and stays silent
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("ATELIER_TORCH_INDEX", f"http://127.0.0.1:{listener.getsockname()[1]}/whl")
        index = launch.TorchIndex("cpu")
        assert not index.usable(Path())


def test_an_index_that_answers_gives_its_build(installed: Checkout, tmp_path: Path) -> None:
    (installed.folder / "requirements.lock").write_text("pebble==1.0\ntorch==9.9\n", "utf-8")
    write_wheel(installed.wheels, "torch", "9.9", {"torch.py": ""})
    write_wheel(tmp_path / "index" / "torch", "torch", "9.9+cpu", {"torch.py": ""})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = installed.start(ATELIER_TORCH_INDEX=url, PIP_NO_INDEX="0", PIP_INDEX_URL=f"{url}/nothing")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert installed_torch(installed) == "torch-9.9+cpu.dist-info"


def installed_torch(checkout: Checkout) -> str:
    return next(checkout.venv.glob("lib/python3*/site-packages/torch-*.dist-info")).name


def test_sources_that_pip_was_given_are_the_only_ones(
    launch: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ATELIER_TORCH_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    assert not launch.TorchIndex("cpu").usable(tmp_path)


def test_a_new_nvidia_device_asks_for_another_build_and_a_missing_one_does_not(
    launch: SimpleNamespace, tmp_path: Path
) -> None:
    python = launch.python_of(tmp_path)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    stamp = {"venv": str(tmp_path), "python": "{}.{}".format(*sys.version_info[:2])}
    assert launch.why_remake(tmp_path, {**stamp, "torch": "cpu"}, "cuda") == "there is an NVIDIA device now"
    assert launch.why_remake(tmp_path, {**stamp, "torch": "cuda"}, "cpu") == ""


def test_starting_with_another_python_keeps_an_environment_that_works(launch: SimpleNamespace, tmp_path: Path) -> None:
    stamp = {"venv": str(tmp_path), "python": "3.99", "torch": "cpu"}
    python = launch.python_of(tmp_path)
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.99\n")
    python.chmod(0o755)
    assert launch.why_remake(tmp_path, stamp, "cpu") == ""
    assert "another Python" in launch.why_remake(tmp_path, {**stamp, "python": "3.98"}, "cpu")

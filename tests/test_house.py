"""Rules of the house that a reader would otherwise have to check by hand."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))


def tracked_files() -> list[Path]:
    if not (CHECKOUT / ".git").exists():
        pytest.fail("These checks read the list of files from git: run them in a clone, not in an unpacked archive.")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
    return [CHECKOUT / name for name in listed.decode().split("\0") if name and (CHECKOUT / name).is_file()]


def pins(lock: str) -> dict[str, str]:
    lines = (CHECKOUT / lock).read_text("utf-8").splitlines()
    return {line.split("==")[0]: line for line in lines if "==" in line}


def run_python(program: str) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_point_down() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "webui.cli",
        "webui.settings",
        "webui.services",
        "webui.ui",
        "webui.generation",
        "webui.training.data.training_set",
        "webui.training.data.checks",
    ],
)
def test_a_module_for_quick_answers_imports_no_torch(module: str) -> None:
    heavy = run_python(
        f"import sys, {module}; print(sorted({{'torch', 'diffusers', 'transformers'}} & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"


def test_help_answers_without_torch_and_without_gradio() -> None:
    program = (
        "import contextlib, io, runpy, sys\n"
        "sys.argv = ['webui', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "    runpy.run_module('webui', run_name='__main__')\n"
        "assert 'generate' in text.getvalue(), text.getvalue()\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'gradio'} & set(sys.modules)))"
    )
    assert run_python(program).strip() == "[]"


def test_the_locks_pin_every_dependency_once_and_agree() -> None:
    app, tests = pins("requirements.lock"), pins("requirements-test.lock")
    assert {name: tests.get(name) for name in app} == app, "the tests run with the versions that users get"
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    names = {re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= set(tests), f"not locked: {sorted(names - set(tests))}"
    for lock in ("requirements.lock", "requirements-test.lock"):
        lines = [line for line in (CHECKOUT / lock).read_text("utf-8").splitlines() if not line.startswith("#")]
        assert all(re.match(r"[a-z0-9.-]+==[^ ]+( ; .+)?$", line) for line in lines)
        assert len(lines) == len(pins(lock))


def test_torch_chooses_its_own_cuda_packages_and_nothing_needs_torchvision() -> None:
    names = set(pins("requirements-test.lock"))
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-")) or name in {"triton", "torchvision"}]


def test_the_installed_versions_are_the_locked_ones() -> None:
    from importlib.metadata import version

    for name in ("torch", "diffusers", "transformers", "gradio", "peft", "safetensors", "pillow", "numpy"):
        assert f"{name}=={version(name).split('+')[0]}" == pins("requirements.lock")[name].split(" ;")[0]


def test_no_tracked_file_mentions_where_it_was_made() -> None:
    # Written in pieces, so that this file does not find itself.
    homes = "|".join(
        ["/" + "home/[a-z]", "/" + "root/", "/" + "Users/[A-Z]", "/" + "work/", "/" + "tmp/[a-z]", r"C:\\Users"]
    )
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        if path.suffix in {"", ".css", ".js", ".json", ".lock", ".md", ".py", ".toml", ".txt"}
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1)
        if re.search(homes, line)
    ]
    assert not found, "\n".join(found)


def test_every_model_folder_says_what_goes_there() -> None:
    for name in (
        "checkpoints",
        "loras",
        "embeddings",
        "hypernetworks",
        "vae",
        "upscalers",
        "face",
        "captioners",
        "maskers",
    ):
        assert (CHECKOUT / "models" / name / "README.md").read_text("utf-8").startswith("# ")
    assert (CHECKOUT / "models" / "starter" / "README.md").is_file(), "the starter's model card"


def test_relative_links_in_the_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(CHECKOUT)} -> {target}"
        for path in tracked_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_no_module_has_mutable_global_state() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}"
        for path in [*(CHECKOUT / "webui").rglob("*.py"), CHECKOUT / "launch.py"]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.match(r"\s+global \w", line)
    ]
    assert not found, f"`global` in {found}"

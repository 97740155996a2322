"""The process that trains, as the program sees it: what it says, how it pauses, and every way in which it may end."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.training.loop_helpers import config
from webui.errors import WebUIError
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import Failed, JobEvent, Progress
from webui.training.alone import alone
from webui.training.events import LossReported, Paused, TrainingFinished, TrainingNote, read_events
from webui.training.folders import RunFolder, new_run
from webui.training.process import PAUSED, Command, run_in_process

PATIENCE_S = 60.0
SAYING = """
import json, os, pathlib, signal, sys, time
def say(event, **values): print(json.dumps({"event": event, **values}), flush=True)
def step(n): say("Progress", step=n, num_steps=9, label="training", seconds_left=1.0)
run = pathlib.Path(sys.argv[1])
"""
FINISHED = 'say("TrainingFinished", adapter="a", best_step=4, best_weight=0.8, run_dir="r", validation={})\n'


@dataclass
class Ended:
    """How `run` came out."""

    finished: TrainingFinished | None = None
    problem: BaseException | None = None
    told: list[JobEvent] = field(default_factory=list)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path, config())


def command(folder: RunFolder, script: str, *, can_pause: bool = True) -> Command:
    arguments = (sys.executable, "-c", SAYING + script, str(folder.path))
    return Command(folder=folder, arguments=arguments, can_pause=can_pause)


def run(
    folder: RunFolder,
    script: str,
    *,
    on: Callable[[JobEvent, CancelToken], None] = lambda event, cancel: None,
    can_pause: bool = True,
    patience_s: float = PATIENCE_S,
) -> Ended:
    """Runs `script`, which speaks as a training does; `on` is called for each event."""
    ended, cancel = Ended(), CancelToken()

    def report(event: JobEvent) -> None:
        ended.told.append(event)
        on(event, cancel)

    try:
        ended.finished = run_in_process(
            command(folder, script, can_pause=can_pause), report=report, cancel=cancel, patience_s=patience_s
        )
    except (WebUIError, JobInterrupted) as problem:
        ended.problem = problem
    return ended


def interrupt_at_the_first_step(event: JobEvent, cancel: CancelToken) -> None:
    if isinstance(event, Progress) and event.step == 1:
        cancel.interrupt()


def test_what_the_process_says_is_told_and_progress_now_and_then(folder: RunFolder) -> None:
    script = f"""
for n in range(500): step(n)
rates = {{"unet": 1e-4}}
say("LossReported", step=3, num_steps=9, loss=1, gradient_norm=1, rates=rates, seconds_per_step=3, seconds_left=2)
print("no event of ours", flush=True)
say("Later", some="thing")
{FINISHED}"""
    ended = run(folder, script)
    assert ended.finished is not None
    assert (ended.finished.best_step, ended.finished.best_weight) == (4, 0.8)
    progress = [event for event in ended.told if isinstance(event, Progress)]
    assert progress[0].label == "starting"
    assert 2 <= len(progress) < 50
    assert [type(event) for event in ended.told if not isinstance(event, Progress)] == [LossReported, TrainingFinished]


def test_a_pause_is_a_file_that_the_process_finds(folder: RunFolder) -> None:
    folder.pause.touch()  # of an earlier time: it must not stop this one
    script = f"""
assert not (run / "pause").exists()
step(1)
while not (run / "pause").exists(): time.sleep(0.01)
say("Paused", step=1, num_steps=9)
sys.exit({PAUSED})"""
    ended = run(folder, script, on=interrupt_at_the_first_step)
    assert isinstance(ended.problem, JobInterrupted)
    assert ended.told[-1] == Paused(step=1, num_steps=9)


def test_a_run_that_was_paused_by_others_is_no_failure(folder: RunFolder) -> None:
    assert isinstance(run(folder, f"sys.exit({PAUSED})").problem, JobInterrupted)


def test_a_second_interrupt_ends_the_process_at_once(folder: RunFolder) -> None:
    def on(event: JobEvent, cancel: CancelToken) -> None:
        if isinstance(event, Progress) and event.step in (1, 2):
            cancel.interrupt()

    script = "step(1); time.sleep(0.6); step(2); time.sleep(600)"
    ended = run(folder, script, on=on)
    assert isinstance(ended.problem, JobInterrupted)
    assert not any(isinstance(event, Failed) for event in read_events(folder.events))


def test_one_that_does_not_pause_in_time_is_ended_and_that_is_told(folder: RunFolder) -> None:
    ended = run(folder, "step(1)\ntime.sleep(600)", on=interrupt_at_the_first_step, patience_s=0.3)
    assert isinstance(ended.problem, JobInterrupted)
    assert isinstance(ended.told[-1], TrainingNote)
    assert "did not pause" in ended.told[-1].text


def test_what_cannot_pause_is_ended(folder: RunFolder) -> None:
    ended = run(folder, "step(1)\ntime.sleep(600)", on=interrupt_at_the_first_step, can_pause=False)
    assert isinstance(ended.problem, JobInterrupted)
    assert not folder.pause.exists()


def test_its_own_words_are_the_failure(folder: RunFolder) -> None:
    script = 'say("Failed", message="It does not fit.", hint="Use less.")\nsys.exit(2)'
    problem = run(folder, script).problem
    assert isinstance(problem, WebUIError)
    assert (problem.message, problem.hint) == ("It does not fit.", "Use less.")
    assert not folder.events.exists(), "the process has written it down itself"


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ("sys.stderr.write('one\\ntwo\\n'); sys.exit(7)", "exit code 7", "one / two"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL. Most likely the machine had no memory left", "Resume"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV. A library", "Resume"),
        ("sys.exit(0)", "without a word (exit code 0)", "Resume"),
    ],
)
def test_one_that_dies_without_a_word_is_told_how(folder: RunFolder, script: str, message: str, hint: str) -> None:
    problem = run(folder, script).problem
    assert isinstance(problem, WebUIError)
    assert message in problem.message
    assert hint in problem.hint
    assert list(read_events(folder.events)) == [Failed(message=problem.message, hint=problem.hint)]


def test_what_it_says_beside_events_is_kept_in_a_file(folder: RunFolder) -> None:
    run(folder, f"sys.stderr.write('loading\\n')\n{FINISHED}")
    assert folder.log.read_text() == "loading\n"


def test_a_folder_that_goes_away_is_no_second_failure(folder: RunFolder) -> None:
    problem = run(folder, "import shutil; shutil.rmtree(run); os.kill(os.getpid(), signal.SIGKILL)").problem
    assert isinstance(problem, WebUIError)
    assert "SIGKILL" in problem.message
    assert not folder.path.exists()


def test_a_program_that_is_not_there_is_a_sentence(folder: RunFolder) -> None:
    missing = Command(folder=folder, arguments=(str(folder.path / "nothing"),))
    with pytest.raises(WebUIError, match="could not be started"):
        run_in_process(missing, report=lambda event: None, cancel=CancelToken())


def test_it_waits_until_the_process_of_a_killed_program_has_left(folder: RunFolder) -> None:
    held, left, began = threading.Event(), threading.Event(), []

    def other() -> None:
        with alone(folder.path):
            held.set()
            left.wait(PATIENCE_S)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(PATIENCE_S)

    def on(event: JobEvent, cancel: CancelToken) -> None:
        began.append(left.is_set())

    threading.Timer(0.3, left.set).start()
    assert run(folder, FINISHED, on=on).finished is not None
    thread.join()
    assert all(began)


WATCHED_SCRIPT = """
import os, pathlib, sys, time
from webui.training.folders import RunFolder
from webui.training.process import end_with_parent
run = RunFolder(pathlib.Path(sys.argv[1]))
end_with_parent(run, grace_s=float(sys.argv[2]))
print("ready", flush=True)
while not run.pause.exists(): time.sleep(0.01)
print("pausing", flush=True)
time.sleep(float(sys.argv[3]))
print("paused", flush=True)
os._exit(5)
"""


@pytest.mark.parametrize(("grace_s", "takes_s", "code"), [("60", "0", 5), ("0.1", "60", PAUSED)])
def test_the_process_pauses_when_the_program_is_killed_and_ends_in_any_case(
    folder: RunFolder, grace_s: str, takes_s: str, code: int
) -> None:
    # The program in between dies without a chance to say anything.
    program = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(600)
"""
    arguments = [sys.executable, "-c", program, WATCHED_SCRIPT, str(folder.path), grace_s, takes_s]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = [parent.stdout.readline().strip() for _ in range(2)]
        child = int(next(line for line in said if line != "ready"))
        parent.kill()
        rest = parent.stdout.read().split()  # to the end: nobody has the other end of the pipe any more
    assert rest == (["pausing", "paused"] if code == 5 else ["pausing"])
    assert folder.pause.exists()
    _wait_until_gone(child)


def _wait_until_gone(pid: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if (stat := Path(f"/proc/{pid}/stat")).exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} still runs")

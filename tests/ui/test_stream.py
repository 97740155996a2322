"""What the pages show of a job, from its events."""

from pathlib import Path

from PIL import Image

from webui.errors import InvalidRequest, StorageError
from webui.generation.events import ImageReady, Note, StepPreview
from webui.jobs.events import Cancelled, Failed, Finished, JobEvent, Progress, Queued, Started
from webui.ui.stream import JobView, Trouble, attempt, fold


def folded(*events: JobEvent) -> JobView:
    view = JobView()
    for version, event in enumerate(events, start=1):
        view = fold(view, version, event, now=float(version))
    return view


def ready(path: Path, index: int) -> ImageReady:
    return ImageReady(index=index, path=str(path), seed=10 + index, infotext="")


def test_a_running_job_shows_step_preview_and_time_left() -> None:
    view = folded(
        Queued(position=2), Started(), Progress(step=3, num_steps=9, seconds_left=1.5), StepPreview(jpeg=b"x")
    )
    assert (view.version, view.step, view.num_steps, view.seconds_left, view.preview_jpeg) == (4, 3, 9, 1.5, b"x")


def test_a_picture_has_the_size_of_its_file_even_if_that_is_gone(tmp_path: Path) -> None:
    Image.new("RGB", (40, 24)).save(tmp_path / "a.png")
    view = folded(Started(), ready(tmp_path / "a.png", 0), ready(tmp_path / "gone.png", 1))
    assert [(picture.width, picture.height) for picture in view.pictures] == [(40, 24), (0, 0)]


def test_a_picture_says_how_many_layers_of_its_loras_matched(tmp_path: Path) -> None:
    text = 'a cat <lora:ink:1>\nSteps: 2, Seed: 1, Lora layers: "ink 264/264, wash 3/9"'
    view = folded(Started(), ImageReady(index=0, path=str(tmp_path / "a.png"), seed=1, infotext=text))
    assert view.pictures[0].layers == "ink 264/264, wash 3/9"
    assert folded(ready(tmp_path / "b.png", 0)).pictures[0].layers == ""


def test_a_job_that_starts_again_keeps_its_pictures_and_notes(tmp_path: Path) -> None:
    view = folded(
        Started(), Note(message="so it is"), ready(tmp_path / "a.png", 0), Progress(step=9, num_steps=9), Started()
    )
    assert (view.step, len(view.pictures), view.notes) == (0, 1, ("so it is",))


def test_the_time_runs_from_start_to_end() -> None:
    assert folded(Started(), Progress(step=1, num_steps=1), Finished()).elapsed_s == 2.0
    assert folded(Cancelled()).elapsed_s is None


def test_a_failure_keeps_message_and_hint() -> None:
    assert folded(Started(), Failed(message="no memory", hint="smaller")).error == ("no memory", "smaller")


def test_trouble_is_told_in_words_and_bugs_by_an_id() -> None:
    def fail(error: Exception) -> None:
        raise error

    assert attempt(lambda: 5) == 5
    wrong = attempt(lambda: fail(InvalidRequest("width", "Width 513 is odd.", hint="Use 512.")))
    assert wrong == Trouble(title="Width", text="Width 513 is odd. Use 512.", control="width")
    full = attempt(lambda: fail(StorageError("The disk is full.", hint="Free some.")))
    assert isinstance(full, Trouble)
    assert full.text == "The disk is full. Free some."
    bug = attempt(lambda: fail(KeyError("secret")))
    assert isinstance(bug, Trouble)
    assert "secret" not in bug.text

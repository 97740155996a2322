"""Extensions in a real generation, on the processor with tiny networks."""

from pathlib import Path

import pytest
from PIL import Image

from tests.extension_files import BRIGHTEN, load_host, write_extension
from webui.generation.events import Note
from webui.generation.postprocess import NO_ADDITIONS, Additions, PostprocessStep
from webui.generation.request import GenerationRequest, Sampling
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken
from webui.jobs.events import JobEvent
from webui.pipeline.manager import PipelineManager

DARKER = """\
@hookimpl
def after_stage(moment, result):
    if moment.stage == "decode":
        return [picture.point(lambda level: level // 2) for picture in result]
    if moment.stage == "denoise":
        result.mul_(0)
"""
BURSTS = """\
@hookimpl
def after_stage(moment, result):
    if moment.stage == "denoise":
        result.fill_(float("nan"))
        raise ValueError("latents are gone")
"""


def pictures(
    manager: PipelineManager, folder: Path, additions: Additions, *steps: PostprocessStep
) -> tuple[list[Image.Image], list[str]]:
    """Two pictures, and what was told."""
    events: list[JobEvent] = []
    request = GenerationRequest(
        checkpoint="tiny", width=64, height=64, seed=5, num_batches=2,
        sampling=Sampling(num_inference_steps=2), postprocess=steps,
    )  # fmt: skip
    generator = Generator(manager, ImageStore(folder), additions)
    made = generator.generate(request, report=events.append, cancel=CancelToken(), previews=False)
    return [pixels_of(ready.path) for ready in made], [event.message for event in events if isinstance(event, Note)]


def pixels_of(path: str) -> Image.Image:
    """Without the file's texts, which `==` would compare, too."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    image.info.clear()
    return image


@pytest.fixture
def plain(manager: PipelineManager, tmp_path: Path) -> list[Image.Image]:
    made, notes = pictures(manager, tmp_path / "plain", NO_ADDITIONS)
    assert notes == []
    return made


def test_a_hook_changes_what_it_returns_and_not_what_it_was_shown(
    manager: PipelineManager, tmp_path: Path, plain: list[Image.Image]
) -> None:
    write_extension(tmp_path / "extensions", "darker", DARKER)
    made, notes = pictures(manager, tmp_path / "made", load_host(tmp_path))
    assert notes == []
    assert made == [picture.point(lambda level: level // 2) for picture in plain]


def test_a_hook_that_raises_is_told_once_and_costs_no_pixel(
    manager: PipelineManager, tmp_path: Path, plain: list[Image.Image]
) -> None:
    write_extension(tmp_path / "extensions", "bursts", BURSTS)
    host = load_host(tmp_path)
    made, notes = pictures(manager, tmp_path / "made", host)
    assert made == plain
    assert len(notes) == 1
    assert "ValueError: latents are gone (__init__.py, line 7)" in notes[0]
    assert host.extension("bursts").problems != ()


def test_a_step_that_raises_gives_the_unprocessed_picture_with_a_note(
    manager: PipelineManager, tmp_path: Path, plain: list[Image.Image]
) -> None:
    write_extension(
        tmp_path / "extensions",
        code=BRIGHTEN.replace("made = image", "image.paste(0, (0, 0, 64, 64)); 1 / 0; made = image"),
    )
    host = load_host(tmp_path)
    made, notes = pictures(manager, tmp_path / "made", host, PostprocessStep(id="brighten"))
    assert made == plain
    assert all("ZeroDivisionError" in note for note in notes)
    assert len(notes) == 2


def test_a_step_of_an_extension_that_was_switched_off_is_left_out_with_a_note(
    manager: PipelineManager, tmp_path: Path, plain: list[Image.Image]
) -> None:
    write_extension(tmp_path / "extensions")
    host = load_host(tmp_path)
    host.disable("brighten")
    made, notes = pictures(manager, tmp_path / "made", host, PostprocessStep(id="brighten"))
    assert made == plain
    assert "switched off" in notes[0]

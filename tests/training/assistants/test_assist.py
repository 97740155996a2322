"""A run over a photo set: what is there stays, what fails is named, what is done stays and can be undone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.assistant_files import write_masker, write_tagger, write_tags
from tests.training.assistants.conftest import disc_picture
from webui.assisting import run_assistant
from webui.errors import InvalidRequest
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent, Progress
from webui.training.assistants.assist import AssistRequest
from webui.training.assistants.catalog import Assistants
from webui.training.assistants.events import Assisted
from webui.training.data.edits import Edit
from webui.training.data.photo_set import PhotoSet
from webui.training.data.subjects import SubjectMasker

OpenSet = Callable[[Path], PhotoSet]


@pytest.fixture
def assistants(tmp_path: Path) -> Assistants:
    """A tagger that finds a girl in everything, and a masker of what is red."""
    write_tags(write_tagger(tmp_path / "models" / "captioners" / "wd.onnx").with_suffix(".csv"))
    write_masker(tmp_path / "models" / "maskers" / "u2net.onnx")
    return Assistants([tmp_path / "models"])


def run(
    photos: PhotoSet,
    assistants: Assistants,
    *,
    events: list[JobEvent] | None = None,
    stop_at: str = "",
    **values: object,
) -> Assisted:
    """`stop_at`: the job is interrupted while this photo is worked on."""
    told: list[JobEvent] = [] if events is None else events
    seen: list[str] = []

    def check() -> None:
        if stop_at and any(isinstance(event, Progress) and event.label == stop_at for event in told):
            raise JobInterrupted
        seen.append("asked")

    request = AssistRequest.model_validate({"assistant": "wd", "kind": "captions", "threshold": 0.3, **values})
    return run_assistant(request, photos, assistants, report=told.append, check=check)


def captions(photos: PhotoSet) -> dict[str, str | None]:
    return {photo.name: photo.caption for photo in photos.photos()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_photos_without_a_caption_get_one_behind_the_trigger_word_and_others_keep_theirs(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    opened, events = open_set(photos), []
    done = run(opened, assistants, events=events, prefix="mia")
    assert (done.changed, done.kept) == (2, 1)
    said = captions(opened)
    assert said["a.png"] == said["b.png"] and said["a.png"] is not None
    assert said["a.png"].startswith("mia, ") and len(said["a.png"]) > 5
    assert said["c.png"] == "my own words"
    assert (photos / "a.txt").read_text("utf-8") == f"{said['a.png']}\n"
    labels = [event.label for event in events if isinstance(event, Progress)]
    assert labels == ["Opening wd", "a.png", "b.png", "c.png", "d.png"]
    assert events[-1] == done


def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_done(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    done = run(open_set(photos), assistants)
    ((name, sentence),) = done.problems
    assert name == "d.png" and "'d.png' cannot be read" in sentence and done.changed == 2


def test_overwriting_replaces_all_and_one_undo_brings_them_back_to_the_byte(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    opened, before = open_set(photos), files(photos)
    assert run(opened, assistants, overwrite=True).changed == 3
    assert captions(opened)["c.png"] == captions(opened)["a.png"]
    assert opened.undo() == "captions by wd"
    assert files(photos) == before
    assert captions(opened) == {"a.png": None, "b.png": None, "c.png": "my own words", "d.png": None}


def test_the_same_again_changes_nothing(photos: Path, open_set: OpenSet, assistants: Assistants) -> None:
    opened = open_set(photos)
    run(opened, assistants)
    done = run(opened, assistants, overwrite=True, names=["a.png", "b.png"])
    assert (done.changed, done.kept) == (0, 2)


def test_what_is_done_when_it_is_stopped_stays_and_can_be_undone(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    opened, events = open_set(photos), []
    with pytest.raises(JobInterrupted):
        run(opened, assistants, events=events, stop_at="a.png")
    assert events[-1] == Assisted(kind="captions", changed=1, kept=0)
    assert captions(opened)["a.png"] and captions(opened)["b.png"] is None
    opened.undo()
    assert captions(opened)["a.png"] is None


def test_only_named_photos_are_looked_at_and_those_left_out_by_hand_are_not(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    opened = open_set(photos)
    with opened.changing("left out") as change:
        change.edit({"a.png": Edit(excluded=True)})
    run(opened, assistants)
    assert captions(opened)["a.png"] is None and captions(opened)["b.png"]
    run(opened, assistants, names=["a.png"])
    assert captions(opened)["a.png"]
    with pytest.raises(InvalidRequest, match=r"no photo 'x\.png'"):
        run(opened, assistants, names=["x.png"])


def test_a_picture_of_the_class_gets_no_trigger_word(tmp_path: Path, open_set: OpenSet, assistants: Assistants) -> None:
    for folder in ("1_mia woman", "reg/1_woman"):
        (tmp_path / "kohya" / folder).mkdir(parents=True)
        disc_picture().save(tmp_path / "kohya" / folder / "a.png")
    opened = open_set(tmp_path / "kohya")
    run(opened, assistants, prefix="mia", overwrite=True)
    said = {photo.is_prior: photo.caption or "" for photo in opened.photos()}
    assert said[False] == f"mia, {said[True]}" and "mia" not in said[True]


def test_nothing_to_say_is_told_and_no_empty_caption_written(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    done = run(open_set(photos), assistants, threshold=1.0, character_threshold=1.0, names=["a.png"])
    assert done.problems == (("a.png", "Nothing was found to say of it."),)
    assert not (photos / "a.txt").exists()


def test_masks_lie_beside_the_photos_and_useless_ones_are_told(
    photos: Path, open_set: OpenSet, assistants: Assistants
) -> None:
    Image.new("RGB", (200, 160), (120, 120, 120)).save(photos / "b.png")
    opened = open_set(photos)
    done = run(opened, assistants, kind="masks", assistant="u2net", names=["a.png", "b.png"], grow=0, threshold=None)
    assert done.problems == (("b.png", "Its mask would cover 0.0% of it: nothing was found."),)
    mask = np.asarray(Image.open(photos / "a-masklabel.png"))
    disc = np.asarray(disc_picture())[:, :, 0] > 180
    assert mask.shape == disc.shape and ((mask >= 128) == disc).mean() > 0.99
    assert {photo.name: bool(photo.mask) for photo in opened.photos()}["a.png"]
    assert run(opened, assistants, kind="masks", assistant="u2net", names=["a.png"]).kept == 1
    opened.undo()
    assert not (photos / "a-masklabel.png").exists()


def test_a_masker_of_an_extension_that_fails_on_a_photo_holds_up_no_other(photos: Path, open_set: OpenSet) -> None:
    from webui.errors import ExtensionError

    asked: list[int] = []

    def mask(pixels: np.ndarray) -> np.ndarray:
        asked.append(1)
        if len(asked) == 1:
            raise ExtensionError("It failed.")
        return (pixels[:, :, 0] > 180).astype(np.float32)

    people = SubjectMasker(id="people", label="People", mask=mask)
    assistants = Assistants([], lambda: [people])
    done = run(open_set(photos), assistants, kind="masks", assistant="people", names=["a.png", "b.png"])
    assert (done.changed, done.problems) == (1, (("a.png", "It failed."),))

"""Folders of training runs as they lie on the disk: settings, events, measurements and pictures, nothing trained."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from webui.jobs.events import Failed, JobEvent
from webui.training.config import TrainingConfig
from webui.training.events import (
    CandidateSaved,
    Estimated,
    EventLines,
    LossReported,
    Paused,
    SampleReady,
    TrainingFinished,
    TrainingNote,
    ValidationReported,
)
from webui.training.folders import RunFolder
from webui.training.validation.records import Records

DIGEST = "the same"
WEIGHTS = (0.6, 0.8, 1.0)
PROMPTS = ("a red paper boat", "a red paper boat in the snow")
SCALE = {"base_likeness": 0.2, "photo_likeness": 0.8, "base_following": 0.9}
PICTURE_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A run that was told until `last`; candidates every `every` steps."""

    name: str
    num_steps: int = 40
    last: int = 40
    every: int = 10
    rank: int = 4
    error: Failed | None = None
    warnings: Sequence[str] = ()

    @property
    def steps(self) -> list[int]:
        return list(range(self.every, self.last + 1, self.every))


def write_story(data_dir: Path, story: Story) -> RunFolder:
    """The run's folder; where it came to its end, also a file among the LoRAs."""
    folder = RunFolder(data_dir / "training" / story.name)
    folder.write_config(
        TrainingConfig.model_validate(
            {
                "name": story.name,
                "base": "paper",
                "subject": "object",
                "data": {"photos": str(data_dir / "photos" / "boats"), "trigger": "ruby", "resolution": PICTURE_PX},
                "network": {"rank": story.rank},
                "schedule": {"num_steps": story.num_steps, "save_every": story.every},
                "validation": {"prompts": PROMPTS, "weights": WEIGHTS},
            }
        )
    )
    tell = EventLines(folder.events)
    records = Records(folder.path, DIGEST)
    records.write("base", {"scale": SCALE})
    for i in range(len(PROMPTS)):
        records.save(_picture(0, 0.0, i), f"base-{i}")
    for event in _events(story, folder, records):
        tell(event)
    folder.state.mkdir(exist_ok=True)
    (folder.state / "state.pt").write_bytes(b"")
    if story.error is not None:
        tell(story.error)
    elif story.last < story.num_steps:
        tell(Paused(step=story.last, num_steps=story.num_steps))
    else:
        tell(_finished(data_dir, story, folder, records))
    return folder


def _events(story: Story, folder: RunFolder, records: Records) -> list[JobEvent]:
    changes = ("gradient checkpointing",)
    found: list[JobEvent] = [
        Estimated(
            peak_bytes=5_400_000_000,
            free_bytes=8_000_000_000,
            seconds_per_step=0.5,
            num_steps=story.num_steps,
            changes=changes,
        ),
        TrainingNote(text="12 photos to train on, 3 kept back to measure with; 4 candidates in 1 sizes."),
        *(TrainingNote(text=text, kind="warning") for text in story.warnings),
    ]
    for step in range(1, story.last + 1):
        found.append(_loss(story, step))
        if step in story.steps:
            found += _measured(story, step, folder, records)
    return found


def _loss(story: Story, step: int) -> LossReported:
    share = step / story.num_steps
    return LossReported(
        step=step,
        num_steps=story.num_steps,
        loss=0.08 + 0.06 * math.exp(-4 * share) + 0.02 * math.sin(7.7 * step) ** 3,
        gradient_norm=0.4 + 0.3 * abs(math.sin(3.3 * step)) + 0.5 * math.exp(-6 * share),
        rates={"unet": 1e-4 * min(1.0, 20 * share) * (1 - 0.9 * share), "text_encoder": 5e-5 * (1 - 0.9 * share)},
        seconds_per_step=0.52,
        seconds_left=0.52 * (story.num_steps - step),
    )


def _measured(story: Story, step: int, folder: RunFolder, records: Records) -> list[JobEvent]:
    share = step / story.num_steps
    train, held_out = 0.140 - 0.05 * share, 0.141 - 0.06 * share + 0.045 * share**2
    candidate = folder.candidate(step)
    candidate.parent.mkdir(exist_ok=True)
    candidate.write_bytes(b"")
    bands = {
        f"{name} {band}": value * factor
        for name, value in (("trained", train), ("held out", held_out))
        for band, factor in (("0-332", 1.6), ("333-665", 0.9), ("666-999", 0.5))
    }
    found: list[JobEvent] = [
        CandidateSaved(step=step, path=str(candidate)),
        ValidationReported(
            step=step, train=train, held_out=held_out, base_train=0.142, base_held_out=0.143, bands=bands
        ),
    ]
    rows = []
    for weight in WEIGHTS:
        samples = [_sample(step, weight, i, share, records) for i in range(len(PROMPTS))]
        rows.append(
            {
                "step": step,
                "weight": weight,
                "gains": [1 - held_out / 0.143, 1 - held_out / 0.144],
                "trained_gain": 1 - train / 0.142,
                "is_finite": True,
                "samples": samples,
            }
        )
        found += [
            SampleReady(
                step=step,
                weight=weight,
                prompt=str(sample["prompt"]),
                seed=int(str(sample["seed"])),
                path=str(folder.path / str(sample["path"])),
                likeness=float(str(sample["likeness"])),
                prompt_following=float(str(sample["following"])),
            )
            for sample in samples
        ]
    records.write(f"{step:06d}", {"step": step, "rows": rows})
    return found


def _sample(step: int, weight: float, number: int, share: float, records: Records) -> dict[str, object]:
    strength = share * weight
    return {
        "prompt": PROMPTS[number],
        "seed": number,
        "path": records.save(_picture(step, weight, number), f"{step:06d}-{weight:g}-{number}"),
        "likeness": 0.2 + 0.55 * min(1.0, 1.3 * strength),
        "following": 0.9 - 0.4 * max(0.0, strength - 0.5) ** 1.2,
        "copied": share == 1 and weight == 1 and number == 1,
        "broken": False,
    }


def _picture(step: int, weight: float, number: int) -> Image.Image:
    image = Image.new("RGB", (PICTURE_PX, PICTURE_PX), ("#b8c4d0", "#d8dde4")[number])
    side = 8 + min(20, round(step * weight / 2))
    ImageDraw.Draw(image).ellipse((32 - side, 32 - side, 32 + side, 32 + side), fill=(180, 60 + 40 * number, 60))
    return image


def _finished(data_dir: Path, story: Story, folder: RunFolder, records: Records) -> TrainingFinished:
    choice = records.choose()
    assert choice is not None
    lora = data_dir / "models" / "loras" / f"{story.name}.safetensors"
    lora.parent.mkdir(parents=True, exist_ok=True)
    lora.write_bytes(b"")
    shutil.rmtree(folder.result, ignore_errors=True)
    folder.result.mkdir()
    folder.finished.write_text('{"settings": {}}')
    return TrainingFinished(
        adapter=str(lora),
        best_step=choice.step,
        best_weight=choice.weight,
        run_dir=str(folder.path),
        validation=choice.as_json(),
    )

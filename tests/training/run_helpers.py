"""Whole runs on a tiny random checkpoint: photos, settings, and the run itself."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from tests.conftest import CPU
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.training.config import TrainingConfig
from webui.training.events import TrainingFinished
from webui.training.folders import RunFolder
from webui.training.run import run_training


def own_library(folder: Path, tiny_models_dir: Path) -> Library:
    """The user's own models, still empty, and the tiny checkpoints."""
    return Library([folder / "models", tiny_models_dir], folder / "cache")


def make_photos(folder: Path, num: int = 5) -> Path:
    folder.mkdir()
    for i in range(num):
        image = Image.effect_noise((80, 64 + 16 * (i % 2)), 60 + i).convert("RGB")
        ImageDraw.Draw(image).ellipse((10 * i, 8, 10 * i + 30, 50), fill=(200, 10 * i, 20))
        image.save(folder / f"{i}.png")
    return folder


def settings(photos: Path, **sections: dict[str, object]) -> TrainingConfig:
    values: dict[str, dict[str, object]] = {
        "data": {"photos": str(photos), "resolution": 64, "bucket_step": 32, "trigger": "red", "holdout": 1},
        "schedule": {"num_steps": 4, "save_every": 2},
        "network": {"rank": 2},
        "validation": {
            "num_timesteps": 1,
            "num_train_photos": 1,
            "samples": False,
            "num_inference_steps": 1,
            "weights": [1.0],
            "prompts": ["{trigger}"],
        },
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return TrainingConfig.model_validate({"name": "ruby", "base": "tiny", "subject": "object", **values})


def run(
    folder: Path,
    config: TrainingConfig,
    library: Library,
    *,
    events: list[JobEvent] | None = None,
    check: Callable[[], None] = lambda: None,
) -> TrainingFinished:
    RunFolder(folder).write_config(config)
    report = events.append if events is not None else lambda event: None
    return run_training(folder, library, CPU, report=report, check=check, cache_dir=folder.parent / "cache")

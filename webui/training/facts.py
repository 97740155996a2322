"""What the notes of a result say of its run: kept in the run's folder, so that another step can be chosen later, when
the photos may be gone."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from webui.errors import StorageError
from webui.library.whole_files import write_whole
from webui.pipeline.model import Model
from webui.training.config import TrainingConfig
from webui.training.folders import RunFolder
from webui.training.validation.choosing import Choice
from webui.training.validation.output import Made, thumbnail


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`captions` of the trained photos; `started_at` is a Unix time, of the first start or the latest resume."""

    base_digest: str
    num_photos: int
    num_held_out: int
    num_prior: int
    started_at: float
    captions: tuple[str, ...]


def write_facts(folder: RunFolder, facts: Facts) -> None:
    """Raises StorageError."""
    try:
        write_whole(folder.facts, json.dumps(asdict(facts), ensure_ascii=False).encode())
    except OSError as error:
        raise StorageError(
            f"'{folder.facts.name}' could not be written to {folder.path}: {error.strerror or error}.",
            hint="Make room on the disk, then resume the run.",
        ) from error


def read_facts(folder: RunFolder) -> Facts:
    """Raises StorageError where there are none."""
    try:
        content = json.loads(folder.facts.read_text(encoding="utf-8"))
        return Facts(**{**content, "captions": tuple(content["captions"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"'{folder.facts.name}' of the run in {folder.path} cannot be read: {error}.",
            hint="Resume the run once; it is written before the first step.",
        ) from error


def made_of(facts: Facts, config: TrainingConfig, model: Model, choice: Choice, picture: Path | None) -> Made:
    """What is told of the result. `picture` is shown for it."""
    return Made(
        config=config,
        base=model.info,
        adapter_base=model.family.adapter_base,
        num_photos=facts.num_photos,
        num_held_out=facts.num_held_out,
        num_prior=facts.num_prior,
        started_at=facts.started_at,
        finished_at=time.time(),
        captions={config.name: facts.captions},
        choice=choice,
        thumbnail=_thumbnail(picture),
    )


def _thumbnail(picture: Path | None) -> str:
    if picture is None:
        return ""
    with Image.open(picture) as image:
        return thumbnail(image)

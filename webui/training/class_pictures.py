"""Pictures of the class, drawn by the base itself: what it has to go on drawing while it learns the subject.

Source: Ruiz et al. 2023, arXiv:2208.12242, prior preservation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from webui.errors import InvalidNumbers, StorageError
from webui.jobs.events import JobEvent, Progress
from webui.pipeline.model import Model
from webui.training.config import TrainingConfig
from webui.training.data.captions import class_caption
from webui.training.data.listings import PICTURE_SUFFIXES
from webui.training.seeds import mixed
from webui.training.validation.samples import Sampler, Shot

CLASS_PICTURE = 4
"""Tells these seeds from others."""


class _Untrained:
    """Stands where what is trained will be: nothing yet."""

    embeddings = None

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        yield


def draw_class_pictures(
    model: Model,
    config: TrainingConfig,
    folder: Path,
    *,
    report: Callable[[JobEvent], None],
    check: Callable[[], None],
) -> Path:
    """Fills `folder` up to data.num_prior_images pictures; after a stop it goes on with the one that is missing."""
    untrained: Any = _Untrained()
    sampler = Sampler(model, untrained, config)
    prompt = class_caption(None, config.data, config.subject)
    for number in range(_count(folder), config.data.num_prior_images):
        path = folder / f"class-{number:04d}.png"
        check()
        label = f"drawing class pictures: {prompt}"
        report(Progress(step=number, num_steps=config.data.num_prior_images, label=label))
        seed = mixed(config.schedule.seed, number, CLASS_PICTURE) % 2**32
        _save(sampler, Shot(prompt=prompt, plainly=prompt, seed=seed), path, check)
    return folder


def _save(sampler: Sampler, shot: Shot, path: Path, check: Callable[[], None]) -> None:
    try:
        image = sampler.picture(sampler.latent(shot, 0.0, check=check))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        image.save(part, format="PNG")
        part.replace(path)
    except InvalidNumbers as error:
        raise InvalidNumbers(
            f"The base draws no picture of '{shot.prompt}'.", hint="Try resources.precision = fp32, or another base."
        ) from error
    except OSError as error:
        raise StorageError(
            f"The picture {path} could not be written ({error.strerror or error}).", hint="Make room on the disk."
        ) from error


def _count(folder: Path) -> int:
    return sum(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir()) if folder.is_dir() else 0

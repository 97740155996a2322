"""The story of measuring: the base first, then every candidate at every weight, and in the end the choice.

What was measured lies in the run's folder, a file per step, so that a run that is resumed measures nothing twice and a
page can show it. Nothing is drawn from the global random numbers, and the network is left as it was.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from webui.errors import InvalidNumbers
from webui.jobs.events import JobEvent, Progress
from webui.pipeline.conditioning import time_ids
from webui.pipeline.model import Model
from webui.training.config import TrainingConfig
from webui.training.data.faces import FaceReader
from webui.training.events import SampleReady, TrainingNote, ValidationReported
from webui.training.networks.trainable import Trainable
from webui.training.stepping import Denoising
from webui.training.validation.choosing import Choice, Judged, Scale, choose
from webui.training.validation.following import followings
from webui.training.validation.judging import Drawn, SampleJudge
from webui.training.validation.likeness import SameFace
from webui.training.validation.measure import Errors, levels_to_measure, measure
from webui.training.validation.output import WITHOUT_WEIGHT
from webui.training.validation.photos import MeasuredPhoto, PhotoSets
from webui.training.validation.records import Records, row_of
from webui.training.validation.samples import Sampler, Shot, plan_shots

VERSION = 1
"""Of the files; others are measured again."""

Report = Callable[[JobEvent], None]
Check = Callable[[], None]


class Examiner:
    """Measures a network while it is trained. `prepare` first, then `examine` per candidate, `choose` at the end."""

    def __init__(
        self,
        model: Model,
        network: Trainable,
        denoising: Denoising,
        config: TrainingConfig,
        *,
        train: Iterable[MeasuredPhoto],
        held_out: Iterable[MeasuredPhoto],
        folder: Path,
        report: Report,
        check: Check,
        faces: FaceReader | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises InvalidRequest where a photo is trained on and kept back."""
        self.candidate_s: float | None = None
        """Seconds that a candidate should take, by what the base took; None where the base was measured earlier."""
        self._network = network
        self._denoising = denoising
        self._config = config
        self._photos = PhotoSets.of(train, held_out)
        self._report = report
        self._check = check
        self._sampler = Sampler(model, network, config)
        self._shots = plan_shots(config) if config.validation.samples else ()
        self._num_timesteps = len(model.levels.sigmas)
        self._timesteps = levels_to_measure(config.validation.num_timesteps, self._num_timesteps)
        weights = (1.0,) if config.network.method in WITHOUT_WEIGHT else config.validation.weights
        self._weights = tuple(dict.fromkeys(weights))
        faces = self._usable(faces)
        self._judge = SampleJudge(model.codec, self._photos, self._followings, faces=faces, check=check)
        self._records = Records(folder, self._digest(by_face=faces is not None))
        self._base: _Base | None = None
        self._clock = clock

    def prepare(self) -> None:
        """Measures the base, or reads what was measured. Raises StorageError; what `check` raises."""
        kept, base = self._records.read("base"), None
        if kept is not None:
            with suppress(ValueError, KeyError, TypeError, OSError):
                base = self._remembered(kept)
        self._base = base or self._measured_base()
        self._judge.set_base(self._base.pictures)

    def examine(self, step: int) -> None:
        """Measures the network as it is, after `step` updates, unless that was done. As `prepare`."""
        if self._records.read(_name(step)) is not None:
            return
        base = self._ready()
        trained, held_out = self._errors(1.0)
        self._tell(step, trained, held_out, base)
        rows = [self._row(step, weight, trained, held_out, base) for weight in self._weights]
        self._records.write(_name(step), {"step": step, "rows": rows})

    def choose(self) -> Choice:
        """From all that was measured. Raises ValueError if nothing was."""
        scale = self._ready().scale
        return choose([row_of(content) for content in self._records.rows()], scale)

    def best_picture(self, choice: Choice) -> Path | None:
        """The sample of the chosen step and weight that is most like the subject."""
        return self._records.best_picture(choice.step, choice.weight)

    def _ready(self) -> "_Base":
        if self._base is None:
            self.prepare()
        assert self._base is not None
        return self._base

    def _measured_base(self) -> "_Base":
        started = self._clock()
        trained, held_out = self._errors(0.0)
        drawing = self._clock()
        drawn = [
            self._drawn(Shot(shot.plainly, shot.plainly, shot.seed), 0.0, i, "the base")
            for i, shot in enumerate(self._shots)
        ]
        scale = self._judge.scale(drawn) if drawn else None
        pictures = [one.picture for one in drawn if one.picture is not None]
        paths = [self._records.save(picture, f"base-{i}") for i, picture in enumerate(pictures)]
        errors = {"trained": trained.as_json(), "held_out": held_out.as_json() if held_out else None}
        self._records.write("base", {**errors, "pictures": paths, "scale": asdict(scale) if scale else None})
        self.candidate_s = self._expected(drawing - started, self._clock() - drawing if scale else 0.0)
        return _Base(trained=trained, held_out=held_out, pictures=pictures, scale=scale)

    def _expected(self, errors_s: float, samples_s: float) -> float:
        """Of a candidate, which has the same measured as the base: all errors once, those on photos kept back again at
        each weight but 1, and the samples at each weight."""
        num_held_out = len(self._photos.held_out)
        num_trained = min(len(self._photos.trained), self._config.validation.num_train_photos)
        again = sum(weight != 1.0 for weight in self._weights) * num_held_out / max(num_trained + num_held_out, 1)
        return errors_s * (1 + again) + samples_s * len(self._weights)

    def _remembered(self, content: Mapping[str, Any]) -> "_Base":
        return _Base(
            trained=Errors.from_json(content["trained"]),
            held_out=Errors.from_json(content["held_out"]) if content["held_out"] else None,
            pictures=[self._records.picture(path) for path in content["pictures"]],
            scale=Scale(**content["scale"]) if content["scale"] else None,
        )

    def _errors(self, weight: float) -> tuple[Errors, Errors | None]:
        """On some of the trained photos, and on those kept back."""
        some = self._photos.trained[: self._config.validation.num_train_photos]
        with self._network.scaled(weight):
            trained = self._measure(some)
            held_out = self._measure(self._photos.held_out) if self._photos.held_out else None
        return trained, held_out

    def _measure(self, photos: Sequence[MeasuredPhoto]) -> Errors:
        seed = self._config.schedule.seed
        return measure(self._denoising, photos, self._timesteps, seed=seed, check=self._check)

    def _tell(self, step: int, trained: Errors, held_out: Errors | None, base: "_Base") -> None:
        self._report(
            ValidationReported(
                step=step,
                train=trained.mean,
                held_out=held_out.mean if held_out else None,
                base_train=base.trained.mean,
                base_held_out=base.held_out.mean if base.held_out else None,
                bands={
                    f"{name} {band}": value
                    for name, errors in (("trained", trained), ("held out", held_out))
                    if errors is not None
                    for band, value in errors.bands(self._num_timesteps).items()
                },
            )
        )

    def _row(self, step: int, weight: float, trained: Errors, held_out: Errors | None, base: "_Base") -> dict[str, Any]:
        """What is kept of one candidate at one weight; errors of weight 1 are there already."""
        if weight != 1.0 and held_out is not None:
            with self._network.scaled(weight):
                held_out = self._measure(self._photos.held_out)
        samples = self._samples(step, weight, base) if trained.is_finite else []
        return {
            "step": step,
            "weight": weight,
            "gains": _gains(held_out, base.held_out) if held_out and base.held_out else [],
            "trained_gain": _finite(1 - trained.mean / base.trained.mean),
            "is_finite": trained.is_finite and (held_out is None or held_out.is_finite),
            "samples": samples,
        }

    def _samples(self, step: int, weight: float, base: "_Base") -> list[dict[str, Any]]:
        if base.scale is None:
            return []
        what = f"step {step} at weight {weight:g}"
        drawn = [self._drawn(shot, weight, i, what) for i, shot in enumerate(self._shots)]
        found = []
        for i, (one, judged) in enumerate(zip(drawn, self._judge.judge(drawn), strict=True)):
            path = "" if one.picture is None else self._records.save(one.picture, f"{_name(step)}-{weight:g}-{i}")
            found.append({"prompt": one.shot.prompt, "seed": one.shot.seed, "path": path, **asdict(judged)})
            if path:
                self._show(step, weight, one.shot, path, judged)
        return found

    def _show(self, step: int, weight: float, shot: Shot, path: str, judged: Judged) -> None:
        self._report(
            SampleReady(
                step=step,
                weight=weight,
                prompt=shot.prompt,
                seed=shot.seed,
                path=str(self._records.folder / path),
                likeness=judged.likeness,
                prompt_following=judged.following,
            )
        )

    def _drawn(self, shot: Shot, weight: float, number: int, what: str) -> Drawn:
        self._report(Progress(step=number, num_steps=len(self._shots), label=f"drawing samples of {what}"))
        latent = self._sampler.latent(shot, weight, check=self._check)
        try:
            picture: Image.Image | None = self._sampler.picture(latent)
        except InvalidNumbers:
            picture = None
        return Drawn(shot=shot, latent=latent, picture=picture)

    def _followings(self, pictures: Sequence[tuple[Shot, Tensor]]) -> list[float | None]:
        with self._network.scaled(0.0):
            return followings(
                self._denoising,
                [self._again(latent, shot.plainly) for shot, latent in pictures],
                [shot.plainly for shot in self._shots],
                num_timesteps=self._num_timesteps,
                seed=self._config.schedule.seed,
                check=self._check,
            )

    def _again(self, latent: Tensor, prompt: str) -> MeasuredPhoto:
        """A sample, to be denoised like a photo."""
        channels = self._sampler.channels()
        return MeasuredPhoto(
            name=prompt,
            sha256="",
            image=Image.new("RGB", (1, 1)),
            latent=latent.cpu(),
            caption=prompt,
            time_ids=time_ids(6, self._sampler.size, 0.0)[0] if self._denoising.added else None,
            channels=None if channels is None else channels[0].cpu(),
        )

    def _usable(self, faces: FaceReader | None) -> FaceReader | None:
        """`faces`, where the subject is a person and the photos to compare with show one."""
        if faces is None or self._config.subject != "person":
            return None
        try:
            SameFace(faces, [photo.image for photo in self._photos.references])
        except ValueError:
            text = "No face was found in the photos to compare with; likeness goes by the whole picture."
            self._report(TrainingNote(text=text, kind="warning"))
            return None
        return faces

    def _digest(self, *, by_face: bool) -> str:
        """Tells measurements that can be compared from all others."""
        config = self._config
        what = {
            "version": VERSION,
            "photos": [
                [(photo.sha256, photo.caption, list(photo.latent.shape)) for photo in photos]
                for photos in (self._photos.trained, self._photos.held_out)
            ],
            "timesteps": self._timesteps,
            "seed": config.schedule.seed,
            "clip_skip": config.schedule.clip_skip,
            "shots": [asdict(shot) for shot in self._shots],
            "weights": self._weights,
            "validation": config.validation.model_dump(),
            "loss": (config.loss.kind, config.loss.huber_c, config.loss.zero_terminal_snr),
            "size": self._sampler.size,
            "by_face": by_face,
        }
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    trained: Errors
    held_out: Errors | None
    pictures: Sequence[Image.Image]
    scale: Scale | None


def _gains(errors: Errors, base: Errors) -> list[float]:
    """By how much of the base's each photo's error is smaller; none where they are no numbers."""
    own, before = errors.values.mean(axis=1), base.values.mean(axis=1)
    return [float(value) for value in 1 - own / before] if errors.is_finite else []


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _name(step: int) -> str:
    return f"{step:06d}"

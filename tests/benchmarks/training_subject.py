"""What each method learns of a subject that the starter model has never seen, and whether the chosen step is the best.

    python tests/benchmarks/training_subject.py [--out FOLDER] [--methods lora,dora,...] [--preset object-normal]
        [--steps 300] [--candidates 5]

Settings are the preset's, as a newcomer has them, but for the prompts and how often is measured. The subject is
invented and drawn here: 25 photos of it on plain backgrounds, from which the run keeps some back, and 8 more that no
run ever sees. Judged are pictures at other prompts (scenes and colours that no photo has) and other seeds than those
that the step was chosen with: before training, at the chosen step and weight, and at the last step at weight 1.
Likeness is counted from the base (0) to new photos (1); "colours" asks, apart from all of the program's own measuring,
how many of the subject's four colours are there in the amounts that photos have.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from webui.jobs.events import JobEvent  # noqa: E402
from webui.library.catalog import Library  # noqa: E402
from webui.pipeline.device import Device  # noqa: E402
from webui.pipeline.latents import to_values  # noqa: E402
from webui.training.base import attached, load_base  # noqa: E402
from webui.training.caching import TensorCache  # noqa: E402
from webui.training.config import Method, TrainingConfig  # noqa: E402
from webui.training.events import TrainingFinished, TrainingNote, ValidationReported  # noqa: E402
from webui.training.folders import RunFolder  # noqa: E402
from webui.training.presets import PRESETS, preset_config  # noqa: E402
from webui.training.run import run_training  # noqa: E402
from webui.training.stepping import denoising_of  # noqa: E402
from webui.training.texts import Captions  # noqa: E402
from webui.training.validation.choosing import Judged, Scale  # noqa: E402
from webui.training.validation.following import followings  # noqa: E402
from webui.training.validation.judging import Drawn, SampleJudge  # noqa: E402
from webui.training.validation.photos import MeasuredPhoto, PhotoSets  # noqa: E402
from webui.training.validation.samples import Sampler, Shot  # noqa: E402

METHODS: tuple[Method, ...] = ("lora", "dora", "loha", "lokr", "full", "embedding")
TRIGGER, CLASS_WORD = "zorble", "alien"
SIDE_PX = 192
NUM_PHOTOS, NUM_UNSEEN = 25, 8
PHOTO_COLOURS = {"teal": (25, 150, 150), "blue": (40, 90, 215), "brown": (120, 75, 45), "gray": (135, 135, 140),
                 "black": (18, 18, 22), "pink": (248, 150, 190), "green": (50, 160, 70)}  # fmt: skip
PROMPTS = ("{} on a yellow background", "{} at sunset", "{} in the desert", "{} under water",
           "{} on a white background", "{} on a red background")  # fmt: skip
"""Of the judging; the step is chosen with others."""
CHOOSING_PROMPTS = ("a {trigger} at the beach", "a {trigger} in the snow", "a {trigger} in the city",
                    "a {trigger} on an orange background")  # fmt: skip
BODY, STRIPES, HORNS, BELLY = (104, 62, 176), (178, 226, 60), (240, 120, 40), (244, 214, 150)
COLOUR_DISTANCE = 20.0
"""In CIE Lab, up to which a pixel counts as one of the subject's colour."""
CPU = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)


@dataclass(frozen=True)
class Pose:
    """How a photo shows the subject: degrees, factors, radians."""

    lean: float
    width: float
    arms: tuple[float, float]
    mouth: float
    gaze: tuple[float, float]
    mirrored: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Pose":
        return cls(
            lean=float(rng.uniform(-14, 14)),
            width=float(rng.uniform(0.88, 1.12)),
            arms=(float(rng.uniform(-0.9, 1.2)), float(rng.uniform(-0.9, 1.2))),
            mouth=float(rng.uniform(0.1, 1.2)),
            gaze=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
            mirrored=bool(rng.random() < 0.5),
        )


def draw_subject(pose: Pose, side: int) -> Image.Image:
    """A round, purple, striped creature with three eyes, two horns and a tail, RGBA."""
    canvas = Image.new("RGBA", (2 * side, 2 * side))
    pen, unit = ImageDraw.Draw(canvas), 2 * side / 100
    dark = tuple(int(level * 0.7) for level in BODY)
    wide, high = 30 * pose.width, 36 / pose.width
    eyes = 92 - 2 * high + high * 0.55

    def oval(x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        pen.ellipse([(x - rx) * unit, (y - ry) * unit, (x + rx) * unit, (y + ry) * unit], fill=fill)

    pen.arc([62 * unit, 52 * unit, 96 * unit, 92 * unit], 250, 90, fill=dark, width=int(6 * unit))
    oval(79, 52, 5, 5, HORNS)
    for x in (38, 62):
        oval(x, 92, 8, 6, dark)
    for side_, angle in zip((-1, 1), pose.arms, strict=True):
        start = 50 + side_ * 26, 58
        end = start[0] + side_ * 16 * math.cos(angle), start[1] - 16 * math.sin(angle)
        pen.line([start[0] * unit, start[1] * unit, end[0] * unit, end[1] * unit], fill=dark, width=int(7 * unit))
        oval(*end, 5, 5, BELLY)
        corners = ((50 + side_ * 12, 26), (50 + side_ * 24, 30), (50 + side_ * 27, 6))
        pen.polygon([(x * unit, y * unit) for x, y in corners], fill=HORNS)
    oval(50, 92 - high, wide, high, BODY)
    _stripes(canvas, unit, wide, high)
    oval(50, 92 - high * 0.42, wide * 0.42, high * 0.3, BELLY)
    for x, radius in ((37, 5.2), (50, 6.5), (63, 5.2)):
        oval(x, eyes, radius, radius, (255, 255, 255))
        oval(x + pose.gaze[0] * 2.2, eyes + pose.gaze[1] * 2.2, radius * 0.48, radius * 0.48, (20, 20, 30))
    open_by = 5 * pose.mouth + 1
    box = [41 * unit, (eyes + 13 - open_by) * unit, 59 * unit, (eyes + 13 + open_by) * unit]
    pen.chord(box, 0, 180, fill=(150, 30, 60))
    canvas = canvas.rotate(pose.lean, Image.Resampling.BICUBIC, center=(side, side * 1.8))
    if pose.mirrored:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return canvas.resize((side, side), Image.Resampling.LANCZOS)


def _stripes(canvas: Image.Image, unit: float, wide: float, high: float) -> None:
    """Three, on the body only."""
    body, stripes = Image.new("L", canvas.size), Image.new("RGBA", canvas.size)
    box = [(50 - wide) * unit, (92 - 2 * high) * unit, (50 + wide) * unit, 92 * unit]
    ImageDraw.Draw(body).ellipse(box, fill=255)
    for share in (0.5, 0.65, 0.8):
        y = 92 - 2 * high + 2 * high * share
        arc = [(50 - wide * 1.2) * unit, (y - 10) * unit, (50 + wide * 1.2) * unit, (y + 6) * unit]
        ImageDraw.Draw(stripes).arc(arc, 10, 170, fill=(*STRIPES, 255), width=int(4.2 * unit))
    shown = Image.composite(stripes.getchannel("A"), Image.new("L", canvas.size), body)
    canvas.paste(stripes, (0, 0), shown)


def photo(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """A picture of the subject, and its caption."""
    name = list(PHOTO_COLOURS)[int(rng.integers(len(PHOTO_COLOURS)))]
    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX), PHOTO_COLOURS[name])
    side = int(SIDE_PX * rng.uniform(0.7, 0.9))
    subject = draw_subject(Pose.drawn(rng), side)
    slack = SIDE_PX - side
    canvas.paste(subject, (int(slack * rng.uniform(0.2, 0.8)), int(slack * rng.uniform(0.3, 0.9))), subject)
    return canvas, f"a {TRIGGER} on a {name} background"


def colours_there(picture: Image.Image, shares: Sequence[float]) -> float:
    """Share of the subject's colours that cover at least a third of what they usually do."""
    return fmean(found >= usual / 3 for found, usual in zip(colour_shares(picture), shares, strict=True))


def colour_shares(picture: Image.Image) -> list[float]:
    """Of the picture's area, by colour."""
    lab = _lab(np.asarray(picture))
    return [
        float((np.linalg.norm(lab - _lab(np.uint8([[colour]])), axis=-1) < COLOUR_DISTANCE).mean())  # type: ignore[arg-type]
        for colour in (BODY, STRIPES, HORNS, BELLY)
    ]


def _lab(pixels: Any) -> Any:
    return cv2.cvtColor((pixels / 255).astype(np.float32), cv2.COLOR_RGB2LAB)


class Judging:
    """One set of prompts, seeds and unseen photos for all methods."""

    def __init__(self, library: Library, trained: Sequence[Image.Image], unseen: Sequence[Image.Image]) -> None:
        self._library = library
        self._photos = PhotoSets.of(_as_photos("trained", trained), _as_photos("unseen", unseen))
        self._shares = [fmean(column) for column in zip(*map(colour_shares, unseen), strict=True)]

    def judge(self, config: TrainingConfig, candidates: dict[str, tuple[Path | None, float]]) -> dict[str, Any]:
        """By name of the candidate (a state, None for the base, and a weight): means, and the pictures."""
        model = load_base(self._library, config.base, CPU)
        network = attached(model, config)
        denoising = denoising_of(
            model,
            Captions(model.text_encoder, TensorCache("memory", Path()), clip_skip=0, live=True),
            config.loss,
            as_base=torch.no_grad,
        )
        sampler = Sampler(model, network, config)

        def follow(pictures: Any) -> list[float | None]:
            with network.scaled(0.0):
                return followings(
                    denoising,
                    [_latent_photo(latent, shot.plainly) for shot, latent in pictures],
                    [prompt.format(f"a {CLASS_WORD}") for prompt in PROMPTS],
                    num_timesteps=len(model.levels.sigmas),
                    seed=1,
                )

        judge = SampleJudge(model.codec, self._photos, follow, faces=None, check=lambda: None)
        found: dict[str, Any] = {}
        scale: Scale | None = None
        for name, (path, weight) in candidates.items():
            if path is not None:
                network.load_state(load_file(path))
            subject = f"a {TRIGGER}" if path else f"a {CLASS_WORD}"
            shots = [
                Shot(prompt.format(subject), prompt.format(f"a {CLASS_WORD}"), 5000 + i)
                for i, prompt in enumerate(PROMPTS)
            ]
            drawn = []
            for shot in shots:
                latent = sampler.latent(shot, weight)
                drawn.append(Drawn(shot=shot, latent=latent, picture=sampler.picture(latent)))
            pictures = [one.picture for one in drawn if one.picture is not None]
            if scale is None:
                scale = judge.scale(drawn)
                assert scale is not None
                judge.set_base(pictures)
            found[name] = self._means(judge.judge(drawn), scale, pictures)
        network.detach()
        return found

    def _means(self, judged: Sequence[Judged], scale: Scale, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        return {
            "likeness": fmean(scale.likeness(one.likeness or 0.0) for one in judged),
            "following": fmean(scale.following(one.following or 0.0) for one in judged),
            "copied": sum(one.copied for one in judged),
            "colours": fmean(colours_there(picture, self._shares) for picture in pictures),
            "pictures": pictures,
        }


def _as_photos(name: str, pictures: Sequence[Image.Image]) -> list[MeasuredPhoto]:
    return [
        MeasuredPhoto(name=name, sha256=f"{name} {i:03d}", image=picture, latent=to_values(picture), caption="")
        for i, picture in enumerate(pictures)
    ]


def _latent_photo(latent: torch.Tensor, caption: str) -> MeasuredPhoto:
    return MeasuredPhoto(name="", sha256="", image=Image.new("RGB", (1, 1)), latent=latent, caption=caption)


def train(out: Path, library: Library, photos: Path, method: Method, options: argparse.Namespace) -> Any:
    """Config, folder and outcome of one run."""
    config = preset_config(
        options.preset,
        name=f"zorble {method}",
        photos=photos,
        base="starter",
        adapter_base="sd-custom",
        native_size=SIDE_PX,
        method=method,
        trigger=TRIGGER,
        class_word=CLASS_WORD,
    )
    num_steps = options.steps or config.schedule.num_steps
    changes: dict[str, dict[str, Any]] = {
        "schedule": {"num_steps": num_steps, "save_every": math.ceil(num_steps / options.candidates)},
        "validation": {
            "prompts": CHOOSING_PROMPTS,
            "num_inference_steps": 10,
            "num_timesteps": 4,
            "weights": options.weights,
        },
    }
    config = TrainingConfig.model_validate(
        {
            **config.model_dump(),
            **{name: {**getattr(config, name).model_dump(), **values} for name, values in changes.items()},
        }
    )
    folder = RunFolder(out / method)
    folder.write_config(config)
    started = time.perf_counter()
    finished = run_training(folder.path, library, CPU, report=_tell, check=lambda: None)
    return config, folder, finished, time.perf_counter() - started


def _tell(event: JobEvent) -> None:
    if isinstance(event, ValidationReported):
        held_out = (
            "" if event.held_out is None else f", kept back {event.held_out:.4f} (base {event.base_held_out:.4f})"
        )
        print(f"  step {event.step}: trained {event.train:.4f} (base {event.base_train:.4f}){held_out}", flush=True)
    if isinstance(event, TrainingNote):
        print(f"  {event.text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training-subject"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--preset", choices=PRESETS, default="object-normal")
    parser.add_argument("--steps", type=int, default=0, help="instead of the preset's")
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.8, 1.0])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    made = [photo(rng) for _ in range(NUM_PHOTOS + NUM_UNSEEN)]
    photos = options.out / "photos"
    photos.mkdir(exist_ok=True)
    for i, (picture, caption) in enumerate(made[:NUM_PHOTOS]):
        picture.save(photos / f"{i:02d}.png")
        (photos / f"{i:02d}.txt").write_text(caption)
    models = options.out / "models"
    models.mkdir(exist_ok=True)
    library = Library([models, ROOT / "models"], options.out / "cache")
    judging = Judging(library, [one for one, _ in made[:NUM_PHOTOS]], [one for one, _ in made[NUM_PHOTOS:]])
    for method in options.methods.split(","):
        print(f"{method}:", flush=True)
        config, folder, finished, seconds = train(options.out, library, photos, method, options)
        report(options.out, judging, config, folder, finished, seconds)


def report(
    out: Path, judging: Judging, config: TrainingConfig, folder: RunFolder, finished: TrainingFinished, seconds: float
) -> None:
    """Prints a method's lines, and writes them and a sheet of the pictures."""
    best, last = finished.best_step, config.schedule.num_steps
    candidates: dict[str, tuple[Path | None, float]] = {
        "before": (None, 0.0),
        f"chosen: step {best}, weight {finished.best_weight:g}": (folder.candidate(best), finished.best_weight),
        f"last: step {last}, weight 1": (_latest(folder), 1.0),
    }
    found = judging.judge(config, candidates)
    method = config.network.method
    print(f"  {seconds:.0f} s; {finished.validation['reason']}")
    for name, values in found.items():
        print(
            f"  {method:9} {name:30} likeness {values['likeness']:6.1%}  colours {values['colours']:5.0%}  "
            f"following {values['following']:5.0%}  copies {values['copied']}",
            flush=True,
        )
    sheet = Image.new("RGB", (len(PROMPTS) * SIDE_PX, len(found) * SIDE_PX))
    for row, values in enumerate(found.values()):
        for column, picture in enumerate(values["pictures"]):
            sheet.paste(picture, (column * SIDE_PX, row * SIDE_PX))
    sheet.save(out / f"{method}.png")
    plain = {name: {k: v for k, v in values.items() if k != "pictures"} for name, values in found.items()}
    text = json.dumps({"seconds": seconds, "choice": dict(finished.validation), "judged": plain}, indent=1)
    (out / f"{method}.json").write_text(text)


def _latest(folder: RunFolder) -> Path:
    return max(folder.candidates.glob("*.safetensors"), key=lambda path: path.stem)


if __name__ == "__main__":
    main()

"""Side by side with diffusers' own pipelines: same weights, sampler and steps, alternately, each in its own process.

    python launch.py bench [--case starter|sd15|all] [--rounds 3]

Every run loads the checkpoint, makes one picture in one step to warm up (with another prompt and input, so that no
cache helps the next one), then makes and saves the picture that counts. Printed are medians and the ratio
ours / diffusers; below 1 we are faster or smaller.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TASKS = ("txt2img", "img2img", "inpaint")
SIDES = ("ours", "diffusers")


@dataclass(frozen=True)
class Case:
    """`steps` model calls on each side: img2img and inpaint run at strength 1, where both sides make all of them."""

    name: str
    checkpoint: str
    size: int
    steps: int


@dataclass(frozen=True)
class Timing:
    seconds_per_step: float
    seconds_in_all: float
    load_seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("starter", "sd15", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=4, metavar=("SIDE", "TASK", "CASE", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, task, case, output = options.worker
        timing = WORKERS[side](task, Case(**json.loads(case)), Path(output))
        print(json.dumps(asdict(timing)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(cases(Path(folder), options.case), options.rounds, Path(folder))


def cases(folder: Path, chosen: str) -> list[Case]:
    starter = Case("starter 192 px, 20 steps", str(ROOT / "models" / "starter"), 192, 20)
    if chosen == "starter":
        return [starter]
    from tests.models import write_checkpoint

    print("Writing a random checkpoint of SD 1.5's size ...", file=sys.stderr)
    import torch

    path = write_checkpoint(folder / "models" / "checkpoints" / "sd15-size", sd15_size=True, dtype=torch.float16)
    large = Case("SD 1.5 size, 512 px, 4 steps", str(path), 512, 4)
    return [large] if chosen == "sd15" else [starter, large]


def compare(all_cases: list[Case], rounds: int, folder: Path) -> None:
    print(f"{'case':<30} {'task':<8} {'measure':<17} {'ours':>9} {'diffusers':>10} {'ratio':>6}  pairs")
    for case in all_cases:
        for task in TASKS:
            timings: dict[str, list[Timing]] = {side: [] for side in SIDES}
            for _ in range(rounds):
                for side in SIDES:
                    timings[side].append(run_worker(side, task, case, folder))
            for measure in Timing.__dataclass_fields__:
                ours, theirs = ([getattr(timing, measure) for timing in timings[side]] for side in SIDES)
                pairs = sorted(mine / yours for mine, yours in zip(ours, theirs, strict=True))
                row = [statistics.median(ours), statistics.median(theirs), statistics.median(pairs)]
                spread = f"{pairs[0]:.2f} to {pairs[-1]:.2f}"
                print(
                    f"{case.name:<30} {task:<8} {measure:<17} {row[0]:>9.3f} {row[1]:>10.3f} {row[2]:>6.2f}  {spread}"
                )
            sys.stdout.flush()


def run_worker(side: str, task: str, case: Case, folder: Path) -> Timing:
    command = [sys.executable, __file__, "--worker", side, task, json.dumps(asdict(case)), str(folder / "out")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        sys.exit(f"{side} {task} failed:\n{ran.stderr[-3000:]}")
    return Timing(**json.loads(ran.stdout.splitlines()[-1]))


def measured(
    generate: Callable[[str, Image.Image, int, Callable[[], None]], None], case: Case, load_seconds: float
) -> Timing:
    """Times `generate(prompt, picture, steps, on_step)` after one run to warm up."""
    generate("something else", picture(case.size, 1), 1, lambda: None)
    stamps: list[float] = []
    start = time.perf_counter()
    generate(
        "a red apple on a blue background",
        picture(case.size, 2),
        case.steps,
        lambda: stamps.append(time.perf_counter()),
    )
    total = time.perf_counter() - start
    return Timing(
        seconds_per_step=statistics.median(later - sooner for sooner, later in pairwise(stamps)),
        seconds_in_all=total,
        load_seconds=load_seconds,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def picture(size: int, seed: int) -> Image.Image:
    return Image.effect_noise((size, size), 40 + seed).convert("RGB")


def mask_of(size: int) -> Image.Image:
    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (size // 4, size // 4, size // 2, size // 2))
    return mask


def time_ours(task: str, case: Case, output: Path) -> Timing:
    start = time.perf_counter()
    from webui.app import build_generator
    from webui.generation.parameters import build_request, parse_parameters
    from webui.images.store import ImageStore
    from webui.jobs.cancel import CancelToken
    from webui.jobs.events import JobEvent, Progress
    from webui.services import build_library
    from webui.settings import load_settings

    checkpoint = Path(case.checkpoint)
    data_dir = checkpoint.parents[2] if checkpoint.parent.name == "checkpoints" else ROOT
    settings = load_settings(data_dir=data_dir)
    generator = build_generator(settings, build_library(settings), ImageStore(output))
    generator.preload(checkpoint.name)
    load_seconds = time.perf_counter() - start

    def generate(prompt: str, image: Image.Image, num_steps: int, on_step: Callable[[], None]) -> None:
        values = {"checkpoint": checkpoint.name, "prompt": prompt, "seed": 1, "sampler": "Euler", "task": task}
        values |= {"width": case.size, "height": case.size, "num_inference_steps": num_steps, "strength": 1.0}
        request = build_request(parse_parameters(values), image=image, mask=mask_of(case.size))
        steps = 0

        def report(event: JobEvent) -> None:
            nonlocal steps
            if isinstance(event, Progress) and event.step > steps:
                steps = event.step
                on_step()

        generator.generate(request, report=report, cancel=CancelToken(), previews=False)

    return measured(generate, case, load_seconds)


def time_diffusers(task: str, case: Case, output: Path) -> Timing:
    start = time.perf_counter()
    import torch
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
    )

    kind = {
        "txt2img": StableDiffusionPipeline,
        "img2img": StableDiffusionImg2ImgPipeline,
        "inpaint": StableDiffusionInpaintPipeline,
    }[task]
    pipe = kind.from_pretrained(case.checkpoint, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    load_seconds = time.perf_counter() - start
    output.mkdir(parents=True, exist_ok=True)

    def generate(prompt: str, image: Image.Image, num_steps: int, on_step: Callable[[], None]) -> None:
        def after_step(*arguments: object) -> dict[str, object]:
            on_step()
            return {}

        inputs: dict[str, object] = {"height": case.size, "width": case.size}
        if task != "txt2img":
            inputs = {"image": image, "strength": 1.0}
        if task == "inpaint":
            inputs |= {"mask_image": mask_of(case.size), "height": case.size, "width": case.size}
        made = pipe(
            prompt,
            num_inference_steps=num_steps,
            guidance_scale=7.0,
            generator=torch.Generator().manual_seed(1),
            callback_on_step_end=after_step,
            **inputs,
        )
        made.images[0].save(output / "diffusers.png")

    return measured(generate, case, load_seconds)


WORKERS = {"ours": time_ours, "diffusers": time_diffusers}

if __name__ == "__main__":
    main()

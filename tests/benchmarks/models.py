"""Loading, switching and adapters at SD 1.5's size, side by side with diffusers and peft, each in its own process.

    python launch.py bench models [--rounds 3]

The checkpoint is a generated 2 GB file of the original layout in half precision; everything runs in float32, with the
files in the system's page cache. Printed are medians and the ratio ours / theirs; below 1 we are faster or smaller.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NUM_LORAS = 5
RANK = 16
WEIGHTS = (0.3, 0.2, 0.3, 0.7, -0.5)
REPEATS = 5
LATENT_SIDE = 32
CHECKPOINT = "one"
Numbers = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, folder = options.worker
        numbers = WORKERS[name](Path(folder))
        print(json.dumps(numbers | {MEMORY: peak_mb()}))
        return
    from tests.benchmarks import loading

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loading.prepare(folder)
        print_loading(loading.compare(folder, rounds=options.rounds))
        write_loras(folder)
        print_adapters(folder, options.rounds)


def print_loading(costs: dict[str, Any]) -> None:
    print(f"{'loading':<34} {'s':>8} {'processor s':>12} {'peak MB':>9}")
    for side, cost in costs.items():
        print(f"{side:<34} {cost.seconds:>8.3f} {cost.processor_seconds:>12.3f} {cost.peak_mb:>9,.0f}")
    ours = costs["ours"]
    for side in ("read and convert", "diffusers"):
        theirs = costs[side]
        ratios = (ours.seconds / theirs.seconds, ours.processor_seconds / theirs.processor_seconds)
        print(f"{'ours / ' + side:<34} {ratios[0]:>8.2f} {ratios[1]:>12.2f} {ours.peak_mb / theirs.peak_mb:>9.2f}")
    sys.stdout.flush()


def write_loras(folder: Path) -> None:
    """Plain LoRAs of every attention and text layer."""
    from tests.adapter_files import attention_of, modules_of, write_adapter
    from webui.library.catalog import Library
    from webui.pipeline.loading import checked_network
    from webui.pipeline.sources import open_checkpoint

    library = Library([folder / "models"], folder / "cache")
    source = open_checkpoint(library.find_checkpoint(CHECKPOINT))
    library.close()
    networks = {}
    for name in ("unet", "text_encoder"):
        component = source.component(name)
        if component is None:
            raise ValueError(f"The generated checkpoint has no {name}.")
        networks[name] = checked_network(component)
    modules = modules_of(networks, attention_of)
    for i in range(NUM_LORAS):
        write_adapter(folder / "models" / "loras" / f"lora{i}.safetensors", modules, rank=RANK, alpha=8.0, seed=i)


def print_adapters(folder: Path, rounds: int) -> None:
    results: dict[str, list[Numbers]] = {name: [] for name in WORKERS}
    for _ in range(rounds):
        for name in WORKERS:
            results[name].append(run_worker(name, folder))
    print(f"{f'{NUM_LORAS} LoRAs of rank {RANK}':<34} {'ours':>8} {'theirs':>8} {'ratio':>6}  pairs")
    for title, (ours, measure), (theirs, other) in ROWS:
        pairs = [(mine[measure], yours[other]) for mine, yours in zip(results[ours], results[theirs], strict=True)]
        ratios = sorted(mine / yours for mine, yours in pairs)
        left, right = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"{title:<34} {left:>8.3f} {right:>8.3f} {statistics.median(ratios):>6.2f}  {spread}")


def run_worker(name: str, folder: Path) -> Numbers:
    command = [sys.executable, __file__, "--worker", name, str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        sys.exit(f"{name} failed:\n{ran.stderr[-3000:]}")
    numbers: Numbers = json.loads(ran.stdout.splitlines()[-1])
    return numbers


def peak_mb() -> float:
    """This process's own peak; getrusage would give the parent's where that was larger before the fork."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def stack_ours(folder: Path) -> Numbers:
    import torch

    from webui.pipeline.adapters.opened import AdapterFiles
    from webui.pipeline.adapters.stack import ActiveAdapter
    from webui.prompt.tags import LoraTag

    model = manager_of(folder).load(CHECKPOINT)
    paths = [folder / "models" / "loras" / f"lora{i}.safetensors" for i in range(NUM_LORAS)]
    files = AdapterFiles()

    def recipes(weights: tuple[float, ...]) -> Any:
        return model.adapters.recipes(
            [
                ActiveAdapter(
                    tag=LoraTag(name=path.stem, unet_weight=weight, text_encoder_weight=weight),
                    file=files.open(path)[0],
                    key=files.open(path)[1],
                )
                for path, weight in zip(paths, weights, strict=True)
            ]
        )

    none = model.adapters.recipes([])
    with torch.inference_mode():
        step = unet_step(model.unet)
        applied, removed, again, plain_steps, stack_steps = [], [], [], [], []
        whole = timed(lambda: model.adapters.apply(recipes(WEIGHTS)))
        model.adapters.apply(none)
        for i in range(REPEATS):
            stack = recipes(tuple(weight + i / 100 for weight in WEIGHTS))
            plain_steps.append(timed(step))
            applied.append(timed(lambda stack=stack: model.adapters.apply(stack)))  # type: ignore[misc]
            again.append(timed(lambda stack=stack: model.adapters.apply(stack)))  # type: ignore[misc]
            stack_steps.append(timed(step))
            removed.append(timed(lambda: model.adapters.apply(none)))
    return {
        "first use, s": whole,
        "apply, s": statistics.median(applied),
        "apply again, s": statistics.median(again),
        "remove, s": statistics.median(removed),
        "step, s": statistics.median(plain_steps),
        "step with the stack, s": statistics.median(stack_steps),
    }


def stack_peft(folder: Path) -> Numbers:
    import torch

    pipe = pipeline_of(folder)
    step = unet_step(pipe.unet)
    names = [f"lora{i}" for i in range(NUM_LORAS)]

    def load() -> None:
        for name in names:
            pipe.load_lora_weights(folder / "models" / "loras", weight_name=f"{name}.safetensors", adapter_name=name)
        pipe.set_adapters(names, list(WEIGHTS))

    with torch.inference_mode():
        plain = statistics.median(timed(step) for _ in range(REPEATS))
        loaded = timed(load)
        unfused = statistics.median(timed(step) for _ in range(REPEATS))
        fused, removed = [], []
        for _ in range(REPEATS):
            fused.append(timed(lambda: pipe.fuse_lora(adapter_names=names)))
            removed.append(timed(pipe.unfuse_lora))
    return {
        "first use, s": loaded + fused[0],
        "apply, s": statistics.median(fused),
        "remove, s": statistics.median(removed),
        "step, s": plain,
        "step with the stack, s": unfused,
    }


def manager_of(folder: Path) -> Any:
    import torch

    from webui.library.catalog import Library
    from webui.pipeline.allocator import keep_freed_memory
    from webui.pipeline.device import Device
    from webui.pipeline.manager import PipelineManager

    keep_freed_memory()
    device = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)
    return PipelineManager(Library([folder / "models"], folder / "cache"), device, cache_dir=folder / "cache")


def pipeline_of(folder: Path) -> Any:
    import torch
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_single_file(
        str(folder / "models" / "checkpoints" / f"{CHECKPOINT}.safetensors"),
        config=str(folder / "configs"),
        local_files_only=True,
        torch_dtype=torch.float32,
        safety_checker=None,
    )


def unet_step(unet: Any) -> Callable[[], object]:
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, LATENT_SIDE, LATENT_SIDE, generator=generator)
    context = torch.randn(2, 77, 768, generator=generator)
    return lambda: unet(x, 500, encoder_hidden_states=context, return_dict=False)


MEMORY = "peak memory, MB"
WORKERS: dict[str, Callable[[Path], Numbers]] = {"ours": stack_ours, "peft": stack_peft}
ROWS = (
    ("first use, from the files, s", ("ours", "first use, s"), ("peft", "first use, s")),
    ("apply / fuse, s", ("ours", "apply, s"), ("peft", "apply, s")),
    ("remove / unfuse, s", ("ours", "remove, s"), ("peft", "remove, s")),
    ("the same again / apply, s", ("ours", "apply again, s"), ("ours", "apply, s")),
    ("our step with / without, s", ("ours", "step with the stack, s"), ("ours", "step, s")),
    ("peft's step with / without, s", ("peft", "step with the stack, s"), ("peft", "step, s")),
    (MEMORY, ("ours", MEMORY), ("peft", MEMORY)),
)
"""Title, then (worker, measure) of each side."""

if __name__ == "__main__":
    main()

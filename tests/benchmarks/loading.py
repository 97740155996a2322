"""Loading an SD 1.5 file beside diffusers, and beside the least there is to do: reading it and converting its type.

    python tests/benchmarks/loading.py [--rounds 3] [--width 1.0] [--file CHECKPOINT.safetensors]

Each measurement has a process of its own; the sides take turns, and the file is in the system's cache for all of them.
Printed are medians; processor time stands beside, because it says more while other programs work.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webui.pipeline.manager import PipelineManager

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SIDES = ("read and convert", "ours", "ours, first", "diffusers", "switch")
"""`ours, first`: with the choice of a memory layout, which is measured once on a machine and then noted.

`switch`: back to a checkpoint that is kept, after another one that differs in its last weight.
"""


@dataclass(frozen=True)
class Cost:
    """`peak_mb` is the process' largest resident size, its mapped part of the file included."""

    seconds: float
    processor_seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=float, default=1.0, help="of the real networks' widths")
    parser.add_argument("--file", type=Path, help="a checkpoint to load instead of a generated one")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, folder = options.worker
        print(json.dumps(asdict(measure(side, Path(folder)))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, width=options.width, file=options.file)
        for side, cost in compare(folder, rounds=options.rounds).items():
            print(
                f"{side:>17}: {cost.seconds:7.2f} s   {cost.processor_seconds:7.2f} s of processor   "
                f"peak {cost.peak_mb:,.0f} MB"
            )


def compare(folder: Path, *, rounds: int, sides: tuple[str, ...] = SIDES) -> dict[str, Cost]:
    """Medians of each side's cost for the file that `prepare` put into `folder`."""
    subprocess.run([sys.executable, __file__, "--worker", "ours", str(folder)], check=True, capture_output=True)
    found: dict[str, list[Cost]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            command = [sys.executable, __file__, "--worker", side, str(folder)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[side].append(Cost(**json.loads(text.splitlines()[-1])))
    return {
        side: Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in asdict(costs[0])))
        for side, costs in found.items()
    }


def prepare(folder: Path, *, width: float = 1.0, file: Path | None = None) -> None:
    """A models folder with checkpoints "one" and "two", and the configs that diffusers wants.

    A generated file holds zeros: neither reading from the system's cache nor conversion depends on the values.
    """
    from tests.model_files import sizes_of, write_folder, write_original_layout

    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    sizes = sizes_of("sd15", small=False)
    sizes = replace(sizes, channels=tuple(round(channels * width / 32) * 32 for channels in sizes.channels))
    write_folder(folder / "configs", small=False, sizes=sizes)
    for name in ("one", "two"):
        path = checkpoints / f"{name}.safetensors"
        if file is None:
            write_original_layout(path, small=False, sizes=sizes)
        else:
            shutil.copyfile(file, path)
    with (checkpoints / "two.safetensors").open("r+b") as two:
        two.seek(-1, os.SEEK_END)
        two.write(b"\x01")


def measure(side: str, folder: Path) -> Cost:
    """What `side` costs in this process, libraries imported and nothing else done before."""
    run = {"read and convert": _read, "ours": _ours, "ours, first": _first, "diffusers": _diffusers, "switch": _switch}[
        side
    ](folder)
    start, processor = time.perf_counter(), time.process_time()
    kept = run()
    cost = Cost(
        seconds=time.perf_counter() - start,
        processor_seconds=time.process_time() - processor,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    del kept
    return cost


def _read(folder: Path) -> Callable[[], object]:
    from safetensors.torch import load_file

    path = folder / "models" / "checkpoints" / "one.safetensors"
    return lambda: {name: tensor.float() for name, tensor in load_file(path).items()}


def _ours(folder: Path) -> Callable[[], object]:
    manager = _manager(folder)
    return lambda: (manager.load("one"), manager)


def _first(folder: Path) -> Callable[[], object]:
    manager = _manager(folder, noted=False)
    return lambda: (manager.load("one"), manager)


def _switch(folder: Path) -> Callable[[], object]:
    manager = _manager(folder)
    manager.load("one")
    manager.load("two")
    return lambda: (manager.load("one"), manager)


def _manager(folder: Path, *, noted: bool = True) -> "PipelineManager":
    import torch

    from webui.library.catalog import Library
    from webui.pipeline.device import Device
    from webui.pipeline.manager import PipelineManager

    device = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)
    library = Library([folder / "models"], folder / "cache")
    library.checkpoints()
    return PipelineManager(library, device, cache_bytes=2**40, cache_dir=folder / "cache" if noted else None)


def _diffusers(folder: Path) -> Callable[[], object]:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils
    from transformers import CLIPTextModel

    path = folder / "models" / "checkpoints" / "one.safetensors"
    configs = str(folder / "configs")

    def run() -> object:
        arguments = {"config": configs, "local_files_only": True, "torch_dtype": torch.float32}
        unet = UNet2DConditionModel.from_single_file(str(path), subfolder="unet", **arguments)
        vae = AutoencoderKL.from_single_file(str(path), subfolder="vae", **arguments)
        checkpoint = single_file_utils.load_single_file_checkpoint(str(path))
        text = single_file_utils.create_diffusers_clip_model_from_ldm(
            CLIPTextModel, checkpoint, subfolder="text_encoder", config=configs, torch_dtype=torch.float32,
            local_files_only=True,
        )  # fmt: skip
        return unet, vae, text

    return run


if __name__ == "__main__":
    main()

"""Training side by side with diffusers' own loop: same base, latents, captions, rank and batch, in turn.

    python launch.py bench training [--case starter|sd15|all] [--rounds 3]

diffusers' side is what its example train_text_to_image_lora does at each step (peft's LoRA, accelerate, AdamW,
the caption encoded anew), with the latents cached, which the example leaves out, and the autoencoder gone; ours is the
loop of the program, as a run has it. Printed are medians and the ratio ours / diffusers; below 1 we are faster or
smaller. Processor seconds say more than seconds where other programs run beside.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SIDES = ("ours", "diffusers")
RANK = 8
RATE = 1e-4
CAPTIONS = ("photo of zrk thing", "zrk thing on a table", "a zrk thing, outdoors", "photo of a zrk thing at night")


@dataclass(frozen=True)
class Case:
    name: str
    checkpoint: str
    size: int
    steps: int


@dataclass(frozen=True)
class Timing:
    """Per step, and the most memory that the process had during the steps and before them."""

    seconds_per_step: float
    processor_seconds: float
    peak_mb: float
    before_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("starter", "sd15", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512, help="of SD 1.5's pictures, px")
    parser.add_argument("--steps", type=int, default=4, help="that are timed, after one to warm up")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, case = options.worker
        print(json.dumps(asdict(WORKERS[side](Case(**json.loads(case))))))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(cases(Path(folder), options), options.rounds)


def cases(folder: Path, options: argparse.Namespace) -> list[Case]:
    starter = Case("starter 192 px", str(ROOT / "models" / "starter"), 192, options.steps * 4)
    if options.case == "starter":
        return [starter]
    import torch

    from tests.models import write_checkpoint

    print("Writing a random checkpoint of SD 1.5's size ...", file=sys.stderr)
    path = write_checkpoint(folder / "models" / "checkpoints" / "sd15-size", sd15_size=True, dtype=torch.float16)
    large = Case(f"SD 1.5 size {options.size} px", str(path), options.size, options.steps)
    return [large] if options.case == "sd15" else [starter, large]


def compare(all_cases: Sequence[Case], rounds: int) -> None:
    print(f"{'case':<22} {'measure':<18} {'ours':>9} {'diffusers':>10} {'ratio':>6}  pairs")
    for case in all_cases:
        timings: dict[str, list[Timing]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                timings[side].append(run_worker(side, case))
        for measure in Timing.__dataclass_fields__:
            ours, theirs = ([getattr(timing, measure) for timing in timings[side]] for side in SIDES)
            pairs = sorted(mine / yours for mine, yours in zip(ours, theirs, strict=True))
            medians = f"{statistics.median(ours):>9.3f} {statistics.median(theirs):>10.3f}"
            ratio = f"{statistics.median(pairs):>6.2f}  {pairs[0]:.2f} to {pairs[-1]:.2f}"
            print(f"{case.name:<22} {measure:<18} {medians} {ratio}")
        sys.stdout.flush()


def run_worker(side: str, case: Case) -> Timing:
    command = [sys.executable, __file__, "--worker", side, json.dumps(asdict(case))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        sys.exit(f"{side} failed:\n{ran.stderr[-3000:]}")
    return Timing(**json.loads(ran.stdout.splitlines()[-1]))


def timed(step: Callable[[], None], num_steps: int) -> Timing:
    """Times `step` after one call to warm up; memory from before that."""
    import torch

    from webui.training.memory import peak_memory, used_bytes

    cpu = torch.device("cpu")
    before = used_bytes(cpu)
    seconds, processor = [], []
    with peak_memory(cpu) as peak:
        step()
        for _ in range(num_steps):
            start, own = time.perf_counter(), time.process_time()
            step()
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - own)
        highest = peak()
    return Timing(
        seconds_per_step=statistics.median(seconds),
        processor_seconds=statistics.median(processor),
        peak_mb=highest / 2**20,
        before_mb=before / 2**20,
    )


def latents_of(size: int) -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, size // 8, size // 8, generator=generator) for _ in CAPTIONS]


def time_ours(case: Case) -> Timing:
    import torch

    from webui.library.catalog import Library
    from webui.pipeline.allocator import keep_freed_memory
    from webui.pipeline.device import Device
    from webui.training.base import attached, load_base, make_light
    from webui.training.caching import TensorCache
    from webui.training.config import TrainingConfig
    from webui.training.feed import Feed
    from webui.training.loop import Trainer
    from webui.training.order import Group
    from webui.training.ranks import Ranks
    from webui.training.state import Identity, StateFile
    from webui.training.stepping import denoising_of
    from webui.training.texts import Captions

    class Cached:
        """The photos, as `feed.Source`."""

        latents = latents_of(case.size)

        def groups(self) -> list[Group]:
            return [Group(tuple(range(len(CAPTIONS))), 1.0)]

        def latent(self, item: int, *, flipped: bool) -> Any:
            return self.latents[item]

        def caption(self, item: int, *, sample: int) -> str:
            return CAPTIONS[item]

        def name(self, item: int) -> str:
            return str(item)

        def weight(self, item: int) -> float:
            return 1.0

        def nothing(self, item: int, **_: object) -> None:
            """Neither masks nor anything else."""

        mask = prior_caption = time_ids = channels = nothing

    keep_freed_memory()
    checkpoint = Path(case.checkpoint)
    device = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)
    with tempfile.TemporaryDirectory() as folder:
        models = checkpoint.parent if checkpoint.name == "starter" else checkpoint.parents[1]
        library = Library([models], Path(folder))
        config = TrainingConfig.model_validate(
            {
                "name": "bench",
                "data": {"photos": "photos", "caption_dropout": 0.0},
                "network": {"rank": RANK, "alpha": RANK, "text_encoder": False},
                "optimizer": {"rate": RATE, "schedule": "constant", "warmup": 0.0},
                "loss": {"weighting": "none"},
                "schedule": {"num_steps": 1000, "save_every": 1000},
            }
        )
        model = load_base(library, checkpoint.name, device)
        network = attached(model, config)
        captions = Captions(model.text_encoder, TensorCache("memory", Path()), clip_skip=0, live=False)
        make_light(model)
        denoising = denoising_of(model, captions, config.loss, as_base=lambda: network.scaled(0.0))
        feed = Feed(Cached(), config, Ranks(), num_timesteps=1000)  # type: ignore[arg-type]
        states = StateFile(Path(folder), Identity(base="", base_digest="", photos={}))
        trainer = Trainer(network, denoising, feed, config, Ranks(), states)
        network.train()

        def step() -> None:
            trainer._update(False)
            trainer.step += 1

        timing = timed(step, case.steps)
        library.close()
        return timing


def time_diffusers(case: Case) -> Timing:
    import torch
    from accelerate import Accelerator
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig
    from torch.nn import functional as F
    from transformers import CLIPTextModel, CLIPTokenizer

    path = case.checkpoint
    accelerator = Accelerator(cpu=True)
    scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(path, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(path, subfolder="text_encoder", dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet", torch_dtype=torch.float32)
    unet.requires_grad_(False)
    text_encoder.requires_grad_(False)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-2)
    ids = tokenizer(
        list(CAPTIONS),
        max_length=tokenizer.model_max_length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    photos = list(zip(latents_of(case.size), ids, strict=True))
    loader = torch.utils.data.DataLoader(photos, shuffle=True, batch_size=1)  # type: ignore[arg-type]
    rate = get_scheduler("constant", optimizer=optimizer)
    unet, optimizer, loader, rate = accelerator.prepare(unet, optimizer, loader, rate)
    unet.train()
    endless = iter(batch for _ in range(10_000) for batch in loader)

    def step() -> None:
        latents, input_ids = next(endless)
        with accelerator.accumulate(unet):
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),)).long()
            noisy = scheduler.add_noise(latents, noise, timesteps)
            states = text_encoder(input_ids, return_dict=False)[0]
            predicted = unet(noisy, timesteps, states, return_dict=False)[0]
            loss = F.mse_loss(predicted.float(), noise.float(), reduction="mean")
            accelerator.gather(loss.repeat(1)).mean().item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()

    return timed(step, case.steps)


WORKERS: dict[str, Callable[[Case], Timing]] = {"ours": time_ours, "diffusers": time_diffusers}

if __name__ == "__main__":
    main()

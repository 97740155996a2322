"""The engine on a CUDA device: precisions, speed and memory beside diffusers, offloading, interrupting, full memory.

    python tests/benchmarks/on_a_gpu.py --json FILE [--only starter,sd15] [--seconds 220] [--tiny]

Models of SD 1.5's and SDXL's size are generated with random weights, so nothing but the checkout is needed. Each
section prints one line for each figure and adds it to FILE at once; one that fails is reported and the others go on.
`--tiny` runs the same code with small models on whatever device there is, which shows that it runs and nothing else.
"""

import argparse
import contextlib
import copy
import gc
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the environment comes first
from PIL import Image  # noqa: E402

GIB = 2**30
CONTEXT_BYTES = GIB // 2
"""What CUDA itself takes of a small card; this process has it already."""
SECTION_SECONDS = {"card": 10, "starter": 40, "sdxl": 100, "sd15": 65, "interrupt": 20, "memory": 35, "lora": 40,
                   "switch": 30}  # fmt: skip
PROMPT = "a red apple on a blue background"


class TooLate(BaseException):
    """A section has had its time; no handler of errors is to keep it going."""


@dataclass
class Bench:
    """What all sections share. `results` is the JSON file's content."""

    device: str
    tiny: bool
    folder: Path
    json_path: Path | None
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    section: str = ""

    def say(self, name: str, value: Any) -> None:
        """Prints a figure and saves it."""
        if isinstance(value, float):
            value = round(value, 4) if math.isfinite(value) else str(value)
        print(f"[{self.section}] {name}: {value}", flush=True)
        self.results.setdefault(self.section, {})[name] = value
        if self.json_path is not None:
            self.json_path.write_text(json.dumps(self.results, indent=1), encoding="utf-8")

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"

    def synchronize(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()

    def empty(self) -> None:
        gc.collect()
        if self.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def allocated(self) -> int:
        return torch.cuda.memory_allocated() if self.on_cuda else 0

    def timed(self, action: Callable[[], Any]) -> float:
        self.synchronize()
        start = time.perf_counter()
        action()
        self.synchronize()
        return time.perf_counter() - start

    def peak(self, action: Callable[[], Any]) -> float:
        """GiB of the device that `action` took beyond what was there."""
        if not self.on_cuda:
            action()
            return 0.0
        self.empty()
        torch.cuda.reset_peak_memory_stats()
        before = self.allocated()
        action()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / GIB

    @contextlib.contextmanager
    def card_of(self, free_bytes: int) -> Iterator[None]:
        """Leaves `free_bytes` of the device's memory free, by filling the rest."""
        ballast = None
        if self.on_cuda:
            self.empty()
            ballast = torch.empty(max(torch.cuda.mem_get_info()[0] - free_bytes, 0), dtype=torch.uint8, device="cuda")
        try:
            yield
        finally:
            del ballast
            self.empty()


class Engine:
    """Our generator on one device and precision, with the models of one folder."""

    def __init__(self, bench: Bench, dtype: str, *, models: Path, device: str = "", device_bytes: int = 0) -> None:
        from webui.generation.run import Generator
        from webui.images.store import ImageStore
        from webui.library.catalog import Library
        from webui.pipeline.device import choose_device
        from webui.pipeline.manager import PipelineManager

        self.library = Library([models], bench.folder / "cache")
        self.device = choose_device(device or bench.device, dtype)
        self.manager = PipelineManager(
            self.library, self.device, cache_bytes=2**40, device_bytes=device_bytes, cache_dir=bench.folder / "cache"
        )
        self.generator = Generator(self.manager, ImageStore(bench.folder / "pictures"))

    def close(self) -> None:
        self.manager.unload()
        self.library.close()

    @property
    def mode(self) -> str:
        """How networks come to the device, as planned for the one in use."""
        residence = getattr(self.manager._placement, "_residence", None)
        if residence is None:
            return "no placement"
        stream = residence._stream
        return "streamed" if stream is not None else "in turn" if residence._handles else "resident"

    def make(
        self,
        checkpoint: str,
        *,
        size: int,
        steps: int,
        task: str = "txt2img",
        batch: int = 1,
        on_step: Callable[[int, Any], None] = lambda step, cancel: None,
        **more: Any,
    ) -> list[Image.Image]:
        from tests.benchmarks.against_diffusers import mask_of
        from webui.generation.parameters import build_request, parse_parameters
        from webui.jobs.cancel import CancelToken
        from webui.jobs.events import JobEvent, Progress

        values = {"checkpoint": checkpoint, "prompt": PROMPT, "seed": 1, "sampler": "Euler", "task": task}
        values |= {"width": size, "height": size, "num_inference_steps": steps, "strength": 0.75}
        values |= {"batch_size": batch, **more}
        init = None if task == "txt2img" else gradient(size)
        mask = mask_of(size) if task == "inpaint" else None
        request = build_request(parse_parameters(values), image=init, mask=mask)
        cancel = CancelToken()

        def report(event: JobEvent) -> None:
            if isinstance(event, Progress) and event.step:
                on_step(event.step, cancel)

        made = self.generator.generate(request, report=report, cancel=cancel, previews=False)
        return [Image.open(picture.path).convert("RGB") for picture in made]


def gradient(size: int) -> Image.Image:
    channel = Image.linear_gradient("L").resize((size, size))
    return Image.merge("RGB", (channel, channel.rotate(90), channel.rotate(180)))


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Decibels; infinite for equal pictures."""
    import numpy as np

    error = float(np.mean((np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return len(one) == len(other) and all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def flat(image: Image.Image) -> bool:
    """Whether a picture has one value everywhere, so that comparing it says nothing."""
    return all(low == high for low, high in image.getextrema())


# The models ----------------------------------------------------------------------------------------------------------


def checkpoint_file(bench: Bench, family: str) -> tuple[Path, float]:
    """The models folder with a checkpoint "one" of `family`, made when it is first asked for, and its size in GiB."""
    from safetensors.torch import save_file

    from tests.model_files import random_tensors, sizes_of, text_shapes, unet_shapes, vae_shapes

    models = bench.folder / family / "models"
    path = models / "checkpoints" / "one.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        sizes = sizes_of(family, small=False)
        if bench.tiny:
            sizes = replace(
                sizes,
                channels=tuple(channels // 10 for channels in sizes.channels),
                depths=tuple(min(depth, 1) for depth in sizes.depths),
                middle_depth=1,
                vae=(32, 32, 64, 64),
            )
        shapes = {f"model.diffusion_model.{name}": shape for name, shape in unet_shapes(sizes).items()}
        shapes |= {f"first_stage_model.{name}": shape for name, shape in vae_shapes(sizes).items()} | text_shapes(sizes)
        tensors = random_tensors(shapes, dtype="F16", seed=1, device=bench.device)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        del tensors
        bench.empty()
    return models, path.stat().st_size / GIB


def their_pipeline(model: Any, dtype: torch.dtype) -> Any:
    """diffusers' pipeline with copies of the model's networks, in the memory layout that diffusers gives them."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    modules = {
        name: copy.deepcopy(component.module).to(dtype=dtype, memory_format=torch.contiguous_format)
        for name, component in model.components.items()
        if name != "tiny_decoder"
    }
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    if "text_encoder_2" in modules:
        pipe = StableDiffusionXLPipeline(
            **modules, tokenizer=None, tokenizer_2=None, scheduler=scheduler, add_watermarker=False
        )
    else:
        pipe = StableDiffusionPipeline(
            **modules, tokenizer=None, scheduler=scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def their_run(bench: Bench, pipe: Any, *, size: int, steps: int, batch: int) -> Callable[[], None]:
    """Makes and saves pictures; the prompts are encoded already, as ours are after the first run."""
    device, dtype = torch.device(bench.device), pipe.unet.dtype
    generator = torch.Generator().manual_seed(1)
    width = pipe.unet.config.cross_attention_dim
    context, negative = (torch.randn(batch, 77, width, generator=generator).to(device, dtype) for _ in range(2))
    given = {"prompt_embeds": context, "negative_prompt_embeds": negative}
    if pipe.unet.config.addition_embed_type == "text_time":
        pooled = torch.randn(batch, pipe.text_encoder_2.config.projection_dim, generator=generator).to(device, dtype)
        given |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": pooled}

    def run() -> None:
        seeds = [torch.Generator().manual_seed(1 + i) for i in range(batch)]
        made = pipe(**given, num_inference_steps=steps, guidance_scale=7.0, height=size, width=size, generator=seeds)
        for i, image in enumerate(made.images):
            image.save(bench.folder / f"theirs{i}.png")

    return run


def side_by_side(bench: Bench, label: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> None:
    """Seconds of both by turns after one run each, the ratio of each pair, and peaks."""
    peaks = bench.peak(ours), bench.peak(theirs)
    pairs = [(bench.timed(ours), bench.timed(theirs)) for _ in range(rounds)]
    mine, yours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    bench.say(f"{label}, seconds ours", mine)
    bench.say(f"{label}, seconds diffusers", yours)
    bench.say(f"{label}, ratio", statistics.median(ratios))
    bench.say(f"{label}, ratio from and to", [round(ratios[0], 3), round(ratios[-1], 3)])
    bench.say(f"{label}, GiB beyond the weights, ours and diffusers", [round(peak, 3) for peak in peaks])


# The sections --------------------------------------------------------------------------------------------------------


def card(bench: Bench) -> None:
    bench.say("torch", torch.__version__)
    if bench.on_cuda:
        free, total = torch.cuda.mem_get_info()
        bench.say("card", torch.cuda.get_device_name())
        bench.say("GiB free and in all", [round(free / GIB, 2), round(total / GIB, 2)])
        bench.say("compute capability", list(torch.cuda.get_device_capability()))
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        bench.say("driver", subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def starter(bench: Bench) -> None:
    """All tasks in all precisions beside fp32 on the processor."""
    models, size, steps = ROOT / "models", 192, 2 if bench.tiny else 20
    cpu = Engine(bench, "fp32", models=models, device="cpu")
    tasks = ("txt2img", "img2img", "inpaint")
    expected = {task: cpu.make("starter", size=size, steps=steps, task=task)[0] for task in tasks}
    bench.say("flat pictures on the processor", sum(map(flat, expected.values())))
    cpu.close()
    for dtype in ("fp32", "fp16", "bf16"):
        engine = Engine(bench, dtype, models=models)
        bench.say(f"{dtype}, seconds to load", bench.timed(lambda engine=engine: engine.manager.load("starter")))
        for task in tasks:
            made = engine.make("starter", size=size, steps=steps, task=task)
            bench.say(f"{dtype} {task}, PSNR to the processor's", psnr(made[0], expected[task]))
        again = bench.timed(lambda engine=engine: engine.make("starter", size=size, steps=steps))
        bench.say(f"{dtype}, seconds a picture", again)
        one, two, four = (engine.make("starter", size=size, steps=steps, batch=batch) for batch in (1, 1, 4))
        bench.say(f"{dtype}, the same seed twice is identical", same(one, two))
        bench.say(f"{dtype}, PSNR of a batch's first picture to the one alone", psnr(four[0], one[0]))
        bench.say(f"{dtype}, pictures of a batch differ", len({image.tobytes() for image in four}) == 4)
        engine.close()


def sd15(bench: Bench) -> None:
    """Seconds a picture of 20 steps and 512 pixels beside diffusers."""
    size, steps, rounds = (64, 2, 1) if bench.tiny else (512, 20, 2)
    start = time.perf_counter()
    models, gib = checkpoint_file(bench, "sd15")
    bench.say("GiB of the file", gib)
    bench.say("seconds to write it", time.perf_counter() - start)
    for dtype in ("fp16", "bf16"):
        engine = Engine(bench, dtype, models=models)
        bench.say(f"{dtype}, seconds to load", bench.timed(lambda engine=engine: engine.manager.load("one")))
        bench.say(f"{dtype}, GiB of the weights", bench.allocated() / GIB)
        model = engine.manager.load("one")
        pipe = their_pipeline(model, engine.device.dtype)
        for batch in (1, 4):
            made: list[Image.Image] = []

            def ours(engine: Engine = engine, batch: int = batch, made: list[Image.Image] = made) -> None:
                made[:] = engine.make("one", size=size, steps=steps, batch=batch)

            theirs = their_run(bench, pipe, size=size, steps=steps, batch=batch)
            side_by_side(bench, f"{dtype}, batch {batch}", ours, theirs, rounds)
            bench.say(f"{dtype}, batch {batch}, flat pictures", sum(map(flat, made)))
        rescued = model.codec.was_rescued
        bench.say(f"{dtype}, the VAE had to go to float32", rescued)
        del pipe, model, ours, theirs
        engine.close()
        bench.empty()
        bench.say(f"{dtype}, MiB left after unloading", bench.allocated() / 2**20)


def interrupt(bench: Bench) -> None:
    """From the click in step 5 to the end of the run; then the next one."""
    from webui.jobs.cancel import JobInterrupted

    size, steps = (64, 8) if bench.tiny else (512, 20)
    models, _ = checkpoint_file(bench, "sd15")
    engine = Engine(bench, "fp16", models=models)
    before = engine.make("one", size=size, steps=steps)
    bench.empty()
    memory = bench.allocated()
    clicked = [0.0]

    def click(step: int, cancel: Any) -> None:
        if step == 5:
            clicked[0] = time.perf_counter()
            cancel.interrupt()

    try:
        engine.make("one", size=size, steps=steps, on_step=click)
        bench.say("it was interrupted", False)
    except JobInterrupted:
        bench.synchronize()
        bench.say("milliseconds until it returned", (time.perf_counter() - clicked[0]) * 1000)
    bench.empty()
    bench.say("MiB more than before", (bench.allocated() - memory) / 2**20)
    bench.say("the next run is identical", same(before, engine.make("one", size=size, steps=steps)))
    engine.close()


def memory(bench: Bench) -> None:
    """A card that is nearly full: a batch is split, a picture that does not fit is refused, and then all is well."""
    from webui.errors import OutOfDeviceMemory

    size, steps = (64, 2) if bench.tiny else (1024, 3)
    models, _ = checkpoint_file(bench, "sd15")
    engine = Engine(bench, "fp16", models=models)
    before = engine.make("one", size=size, steps=steps, batch=4)
    bench.empty()
    allocated = bench.allocated()
    for free_mib in (2048, 1024, 512, 256, 64, 16):
        with bench.card_of(free_mib * 2**20):
            try:
                made = engine.make("one", size=size, steps=steps, batch=4)
                outcome = f"made, PSNR {min(map(psnr, made, before)):.1f}"
            except OutOfDeviceMemory as error:
                outcome = f"OutOfDeviceMemory: {error} Hint: {error.hint}"
            except Exception as error:  # noqa: BLE001  what it is is the finding
                outcome = f"WRONG: {type(error).__name__}: {str(error)[:300]}"
            bench.say(f"{free_mib} MiB free, 4 pictures of {size}", outcome)
    bench.say("MiB more afterwards", (bench.allocated() - allocated) / 2**20)
    bench.say("the next run is identical", same(before, engine.make("one", size=size, steps=steps, batch=4)))
    with bench.card_of(256 * 2**20):
        other = Engine(bench, "bf16", models=models)
        try:
            other.make("one", size=max(size // 2, 64), steps=steps)
            outcome = f"made, {other.mode}"
        except OutOfDeviceMemory as error:
            outcome = f"OutOfDeviceMemory: {error} Hint: {error.hint}"
        except Exception as error:  # noqa: BLE001
            outcome = f"WRONG: {type(error).__name__}: {str(error)[:300]}"
        bench.say("256 MiB free, loading another and making a picture", outcome)
        other.close()
    engine.close()


def lora(bench: Bench) -> None:
    """Five LoRAs on and off, beside peft's fusing."""
    from tests.benchmarks.models import NUM_LORAS, WEIGHTS, write_loras
    from webui.pipeline.adapters.opened import AdapterFiles
    from webui.pipeline.adapters.stack import ActiveAdapter
    from webui.prompt.tags import LoraTag

    models, _ = checkpoint_file(bench, "sd15")
    write_loras(models.parent)
    engine = Engine(bench, "fp16", models=models)
    model, files = engine.manager.load("one"), AdapterFiles()
    paths = [models / "loras" / f"lora{i}.safetensors" for i in range(NUM_LORAS)]

    def recipes(more: float) -> Any:
        active = []
        for path, weight in zip(paths, WEIGHTS, strict=True):
            file, key = files.open(path)[:2]
            tag = LoraTag(name=path.stem, unet_weight=weight + more, text_encoder_weight=weight + more)
            active.append(ActiveAdapter(tag=tag, file=file, key=key))
        return model.adapters.recipes(active)

    def weights() -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in model.unet.state_dict().items()}

    none = model.adapters.recipes([])
    before = weights()
    with torch.inference_mode():
        bench.say("first use, seconds", bench.timed(lambda: model.adapters.apply(recipes(0.0))))
        changed = weights()
        bench.say("weights that changed", sum(not torch.equal(before[name], changed[name]) for name in before))
        model.adapters.apply(none)
        stacks = [recipes(i / 100) for i in range(1, 4)]
        on = []
        for stack in stacks:
            on.append(bench.timed(lambda stack=stack: model.adapters.apply(stack)))
            off = bench.timed(lambda: model.adapters.apply(none))
    after = weights()
    bench.say("apply ours, seconds", statistics.median(on))
    bench.say("remove ours, seconds", off)
    bench.say("removal is identical to the bit", all(torch.equal(before[name], after[name]) for name in before))
    fuse_with_peft(bench, their_pipeline(model, engine.device.dtype), paths)
    engine.close()


def fuse_with_peft(bench: Bench, pipe: Any, paths: list[Path]) -> None:
    from tests.benchmarks.models import WEIGHTS

    names = [path.stem for path in paths]

    def load() -> None:
        for path in paths:
            pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=path.stem)
        pipe.set_adapters(names, list(WEIGHTS))

    bench.say("load peft, seconds", bench.timed(load))
    fused, unfused = [], []
    with torch.no_grad():
        for _ in range(3):
            fused.append(bench.timed(lambda: pipe.fuse_lora(adapter_names=names)))
            unfused.append(bench.timed(pipe.unfuse_lora))
    bench.say("fuse peft, seconds", statistics.median(fused))
    bench.say("unfuse peft, seconds", statistics.median(unfused))


def switch(bench: Bench) -> None:
    """Between two checkpoints that are kept; they differ in their last weight's last byte."""
    models, _ = checkpoint_file(bench, "sd15")
    two = models / "checkpoints" / "two.safetensors"
    if not two.is_file():
        shutil.copyfile(models / "checkpoints" / "one.safetensors", two)
        with two.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
    engine = Engine(bench, "fp16", models=models)
    for name in ("one", "two"):
        bench.say(f"first load of {name}, seconds", bench.timed(lambda name=name: engine.manager.load(name)))
    times = [bench.timed(lambda name=name: engine.manager.load(name)) for name in ("one", "two") * 3]
    bench.say("switch with room for both, seconds", statistics.median(times))
    engine.close()
    bench.empty()
    networks = int((models / "checkpoints" / "one.safetensors").stat().st_size)
    with bench.card_of(int(networks * 1.3) + GIB):
        tight = Engine(bench, "fp16", models=models)
        for name in ("one", "two"):
            tight.manager.load(name)
        times = [bench.timed(lambda name=name: tight.manager.load(name)) for name in ("one", "two") * 3]
        bench.say("switch with room for one, seconds", statistics.median(times))
        bench.say("switch with room for one, mode", tight.mode)
        tight.close()


def sdxl(bench: Bench) -> None:
    """1024 pixels and 10 steps beside diffusers; then on smaller and smaller cards."""
    size, steps, rounds = (64, 2, 1) if bench.tiny else (1024, 10, 2)
    start = time.perf_counter()
    models, gib = checkpoint_file(bench, "sdxl")
    bench.say("GiB of the file", gib)
    bench.say("seconds to write it", time.perf_counter() - start)
    engine = Engine(bench, "fp16", models=models)
    bench.say("seconds to load", bench.timed(lambda: engine.manager.load("one")))
    bench.say("GiB of the weights", bench.allocated() / GIB)
    pipe = their_pipeline(engine.manager.load("one"), engine.device.dtype)
    theirs = their_run(bench, pipe, size=size, steps=steps, batch=1)
    resident: list[Image.Image] = []

    def ours() -> None:
        resident[:] = engine.make("one", size=size, steps=steps)

    bench.say("mode", engine.mode)
    side_by_side(bench, "resident", ours, theirs, rounds)
    bench.say("flat pictures", sum(map(flat, resident)))
    del pipe, theirs
    engine.close()
    bench.empty()
    cards = (("limit of 8 GiB", 8, 0), ("limit of 5 GiB", 5, 0), ("card of 4 GiB", 0, 4))
    for label, limit_gib, card_gib in cards:
        free = card_gib * GIB - CONTEXT_BYTES if card_gib else 2**60
        with bench.card_of(free):
            small = Engine(bench, "fp16", models=models, device_bytes=limit_gib * GIB)
            try:
                on_a_small_card(bench, small, label, resident, size=size, steps=steps)
            except Exception as error:  # noqa: BLE001  the next card may do
                bench.say(f"{label}, FAILED", f"{type(error).__name__}: {str(error)[:300]}")
            small.close()


def on_a_small_card(
    bench: Bench, engine: Engine, label: str, expected: list[Image.Image], *, size: int, steps: int
) -> None:
    if bench.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    before = bench.allocated()
    bench.say(f"{label}, seconds to load", bench.timed(lambda: engine.manager.load("one")))
    bench.say(f"{label}, mode", engine.mode)
    stamps: list[float] = []
    made: list[Image.Image] = []

    def on_step(step: int, cancel: Any) -> None:
        bench.synchronize()
        stamps.append(time.perf_counter())

    def run() -> None:
        made[:] = engine.make("one", size=size, steps=steps, on_step=on_step)

    bench.say(f"{label}, seconds a picture", bench.timed(run))
    gaps = [later - sooner for sooner, later in pairwise(stamps) if later - sooner > 1e-3]
    bench.say(f"{label}, seconds a step", statistics.median(gaps) if gaps else 0.0)
    if bench.on_cuda:
        bench.say(f"{label}, peak GiB", (torch.cuda.max_memory_allocated() - before) / GIB)
        bench.say(f"{label}, allocations tried again", torch.cuda.memory_stats().get("num_alloc_retries", 0))
    bench.say(f"{label}, the picture is the resident one", same(made, expected))
    if expected and made:
        bench.say(f"{label}, PSNR to the resident one", psnr(made[0], expected[0]))


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "card": card, "starter": starter, "sdxl": sdxl, "sd15": sd15, "interrupt": interrupt, "memory": memory,
    "lora": lora, "switch": switch,
}  # fmt: skip


def run_section(bench: Bench, name: str, seconds: int) -> None:
    """One section within its time; what it reports of itself is kept whatever comes."""

    def too_late(*arguments: object) -> None:
        raise TooLate(f"It took more than {seconds} s.")

    bench.section = name
    start = time.perf_counter()
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(seconds)
    try:
        SECTIONS[name](bench)
    except (Exception, TooLate) as error:  # noqa: BLE001  the other sections go on
        signal.alarm(0)
        traceback.print_exc()
        bench.say("FAILED", f"{type(error).__name__}: {str(error)[:500]}")
    finally:
        signal.alarm(0)
    bench.say("seconds of this section", time.perf_counter() - start)
    with contextlib.suppress(RuntimeError):  # a device that is broken by now says so in the next section
        bench.empty()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, too")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between them")
    parser.add_argument("--seconds", type=int, default=220, help="no section runs beyond this")
    parser.add_argument("--tiny", action="store_true", help="small models, also without CUDA: does the code run?")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        print("This measures a CUDA device, and there is none. (--tiny shows that the code runs.)", file=sys.stderr)
        sys.exit(2)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        bench = Bench(device=device, tiny=options.tiny, folder=Path(name), json_path=options.json)
        for section in options.only.split(","):
            left = options.seconds - (time.perf_counter() - start)
            if left < 5:
                print(f"[{section}] left out: the {options.seconds} s are over", flush=True)
                continue
            run_section(bench, section, min(int(left), SECTION_SECONDS[section]))
    failed = [name for name, figures in bench.results.items() if "FAILED" in figures]
    print(f"{time.perf_counter() - start:.0f} s; failed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

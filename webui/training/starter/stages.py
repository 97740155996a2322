"""The stages in order, and what each one reads and writes in the work directory."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from webui.training.starter import vae as vae_stage
from webui.training.starter.diffusion import Denoiser, Recipe, train_denoiser
from webui.training.starter.evaluate import Exported, evaluate, photo_psnr, write_sheet
from webui.training.starter.export import (
    GUIDANCE_SCALE,
    SAMPLE_LAYOUT,
    SIZE_BUDGET_BYTES,
    export,
    load_exported_vae,
    size_bytes,
)
from webui.training.starter.exported_stages import run_compare, run_distill, run_inpaint, run_words
from webui.training.starter.feed import Feed
from webui.training.starter.judge import Judge, judge_pictures, measure_judge, train_judge
from webui.training.starter.latents import compose_shard, encode_shard, load_pool, pool_shards
from webui.training.starter.networks import NATIVE_SIZE, Sizes, build_vae
from webui.training.starter.prompts import watched_prompts
from webui.training.starter.ranks import Ranks, is_one_of_several, join, launch
from webui.training.starter.sample_adapters import write_sample_sets
from webui.training.starter.sampling import sample
from webui.training.starter.sharpen import train_sharpening, with_sharpened_decoder
from webui.training.starter.sprites import Packages, load_other_sprites, load_sprites
from webui.training.starter.stage_options import STAGES, TRAINED_STAGES, options_parser, plan_for
from webui.training.starter.tokenizer import encode, load_tokenizer, training_lines, write_tokenizer
from webui.training.starter.workdir import WorkDir, build_denoiser, load_denoiser

NUM_HELD_OUT = 48  # pictures the autoencoder is measured with
NUM_JUDGED = 1000
OTHER_ICONS_EVERY = 8


def main(arguments: list[str]) -> int:
    """Run the stages that `arguments` name; returns the exit status."""
    options = options_parser(__doc__).parse_args(arguments)
    options.export_dir = options.export_dir or [Path("models/starter")]
    if options.stage == "all":
        rest = [argument for argument in arguments if argument != "all"]
        return next((status for stage in STAGES if (status := main([stage, *rest]))), 0)
    work, is_worker = WorkDir(options.work_dir), options.worker or is_one_of_several()
    if options.stage in TRAINED_STAGES and not is_worker:
        return launch(arguments, num_processes=_num_processes(), pid_file=work.pid_file)
    ranks = join()
    if ranks.is_first:
        Packages.fetch(work.packages)
        if not (work.tokenizer / "vocab.json").exists():
            write_tokenizer(work.tokenizer, training_lines())
    ranks.wait()
    if options.stage not in TRAINED_STAGES:
        alone = {"export": _export, "evaluate": _evaluate, "photos": _photos}[options.stage]
        return alone(work, options) if ranks.is_first else 0
    torch.manual_seed(options.seed)
    run = {
        "vae": _run_vae,
        "sharpen": _run_sharpen,
        "encode": _run_encode,
        "unet": _run_unet,
        "judge": _run_judge,
        "inpaint": run_inpaint,
        "words": run_words,
        "distill": run_distill,
        "compare": run_compare,
    }[options.stage]
    run(work, options, ranks)
    return 0


def _num_processes() -> int:
    return 1 if torch.cuda.is_available() else 2


def _run_vae(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Train the autoencoder and report its quality on held-out pictures at each save."""
    crops, measure = _vae_data(work, options)

    def report(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, AutoencoderKL)
        measure(averaged, f"vae step {step}")

    plan = plan_for(options, options.vae_steps, options.vae_rate, cooldown_steps=round(options.vae_steps * 0.35))
    vae_stage.train_vae(
        load_exported_vae(options.start_from) if options.start_from else build_vae(Sizes()),
        crops,
        plan,
        num_crops=options.vae_crops,
        ranks=ranks,
        checkpoint=work.vae_state,
        on_checkpoint=report,
    )


def _run_sharpen(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Train the decoder on against a critic, with the same report as the autoencoder's."""
    crops, measure = _vae_data(work, options)

    def report(averaged: nn.Module, step: int) -> None:
        vae = with_sharpened_decoder(work.plain_vae(), averaged.state_dict()).to(ranks.device)
        measure(vae, f"sharpening step {step}")

    plan = plan_for(options, options.sharpen_steps, options.sharpen_rate)
    train_sharpening(
        work.plain_vae(),
        crops,
        plan,
        num_crops=options.vae_crops,
        ranks=ranks,
        checkpoint=work.decoder_state,
        on_checkpoint=report,
    )


def _vae_data(
    work: WorkDir, options: argparse.Namespace
) -> tuple[vae_stage.Crops, Callable[[AutoencoderKL, str], None]]:
    """The crops to learn from, and what measures an autoencoder on pictures kept back and shows them."""
    packages = Packages.fetch(work.packages)
    sprites = load_sprites(packages)
    other, unseen = load_other_sprites(packages, keep_every=OTHER_ICONS_EVERY)
    crops = vae_stage.Crops(sprites, other, vae_stage.load_photos(vae_stage.TRAINING_PHOTOS), seed=options.seed)
    held_out = {
        "known icons": vae_stage.validation_pictures(sprites, NUM_HELD_OUT),
        "unseen icons": vae_stage.validation_pictures(vae_stage.nameless_sprites(unseen), NUM_HELD_OUT),
        "photos": vae_stage.photo_pictures(16),
    }

    def measure(vae: AutoencoderKL, label: str) -> None:
        back = {name: vae_stage.reconstruct(vae, pictures) for name, pictures in held_out.items()}
        rows = [pictures[:12] for name in held_out for pictures in (held_out[name], back[name])]
        write_sheet(np.concatenate(rows), work.root / "vae.png", 12)
        figures = [f"{name} {vae_stage.mean_psnr(held_out[name], back[name]):.2f} dB" for name in held_out]
        print(f"{time.strftime('%H:%M:%S')} {label}: {', '.join(figures)}", flush=True)

    return crops, measure


def _run_encode(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Fill the pool; the ranks share the shards."""
    sprites = load_sprites(Packages.fetch(work.packages))
    vae = work.vae().to(ranks.device, memory_format=torch.channels_last)
    tokenizer = load_tokenizer(work.tokenizer)
    mine = pool_shards(options.num_shards)[ranks.index :: ranks.count]
    missing = [shard for shard in mine if not shard.path(work.latents).exists()]
    feed = Feed(
        lambda position: compose_shard(
            missing[position], sprites, tokenize=lambda captions: encode(tokenizer, captions), seed=options.seed
        ),
        last=len(missing),
        num_workers=ranks.num_workers,
    )
    for position, shard in enumerate(missing):
        encode_shard(shard.path(work.latents), feed(position), vae)
        print(f"{time.strftime('%H:%M:%S')} {shard.path(work.latents).name}", flush=True)


def _run_unet(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Train the U-Net and the text encoder; at each save draw a contact sheet and refresh the export."""
    tokenizer = load_tokenizer(work.tokenizer)
    shards = pool_shards(options.num_shards)
    affine = work.affine()
    pool = load_pool(work.latents, shards, affine)
    empty_ids = encode(tokenizer, [""])[0]
    exported_at = -float("inf")

    def report(averaged: nn.Module, step: int) -> None:
        nonlocal exported_at
        assert isinstance(averaged, Denoiser)
        if options.export_every_s and time.monotonic() - exported_at > options.export_every_s:
            _look(work, options, averaged, step)
            _write_export(work, options, averaged, step)
            exported_at = time.monotonic()

    plan = plan_for(
        options,
        options.unet_steps,
        options.unet_rate,
        warmup_steps=50,
        cooldown_steps=options.unet_cooldown_steps,
        ema_decay=options.unet_ema_decay,
    )
    train_denoiser(
        load_denoiser(options.start_from, tokenizer) if options.start_from else build_denoiser(tokenizer),
        pool,
        empty_ids,
        plan,
        Recipe(batch_size=options.batch_size, prediction_type=options.prediction_type),
        seed=options.seed,
        ranks=ranks,
        checkpoint=work.unet_state,
        on_checkpoint=report,
        compiled=options.compile,
    )


def _export(work: WorkDir, options: argparse.Namespace) -> int:
    """Write the averaged weights of the last save to `--export-dir`."""
    denoiser = build_denoiser(load_tokenizer(work.tokenizer))
    step = 0
    if work.unet_state.exists():
        state = torch.load(work.unet_state, map_location="cpu", weights_only=True)
        denoiser.load_state_dict(state["averaged"])
        step = int(state["step"])
    _write_export(work, options, denoiser, step)
    return 0


def _photos(work: WorkDir, options: argparse.Namespace) -> int:
    """Write the photos and settings that the sample adapters are trained with."""
    for settings in write_sample_sets(work.photos, load_sprites(Packages.fetch(work.packages))):
        print(f"Train it with: python launch.py train {settings}", flush=True)
    return 0


def _write_export(work: WorkDir, options: argparse.Namespace, denoiser: Denoiser, step: int) -> None:
    for folder in options.export_dir:
        export(
            folder,
            denoiser=denoiser,
            vae=work.vae(),
            affine=work.affine(),
            tokenizer=load_tokenizer(work.tokenizer),
            tokenizer_files=work.tokenizer,
            sprites=load_sprites(
                Packages.fetch(work.packages), tuple(placed.sprite for placed in SAMPLE_LAYOUT.objects)
            ),
            prediction_type=options.prediction_type,
            provenance={"unet_steps": step, "batch_size": options.batch_size, "seed": options.seed},
        )
        print(f"{time.strftime('%H:%M:%S')} exported step {step}, {size_bytes(folder)} bytes", flush=True)
        assert size_bytes(folder) <= SIZE_BUDGET_BYTES


def _run_judge(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Train the classifier that measures the model, and say at each save what it is worth itself."""
    sprites = load_sprites(Packages.fetch(work.packages))

    def report(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, Judge)
        print(f"judge step {step}: {measure_judge(averaged, sprites, count=NUM_JUDGED)}", flush=True)

    plan = plan_for(options, options.judge_steps, 3e-3)
    train_judge(Judge(), sprites, plan, ranks=ranks, checkpoint=work.judge_state, on_checkpoint=report)


def _evaluate(work: WorkDir, options: argparse.Namespace) -> int:
    """Measure the exported model and print the figures as JSON."""
    packages = Packages.fetch(work.packages)
    judge = work.judge()
    exported = Exported.load(options.export_dir[0], torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    _, unseen = load_other_sprites(packages, keep_every=OTHER_ICONS_EVERY)
    icons = vae_stage.validation_pictures(vae_stage.nameless_sprites(unseen), NUM_HELD_OUT)
    result = {
        "the judge itself": measure_judge(judge, load_sprites(packages), count=NUM_JUDGED),
        "guidance scale": GUIDANCE_SCALE,
        "shares": evaluate(exported, judge, sheets=work.root, guidance_scale=GUIDANCE_SCALE),
        "unseen icons, dB": vae_stage.mean_psnr(icons, vae_stage.reconstruct(exported.vae, icons)),
        "photographs at 512 px, dB": photo_psnr(exported.vae),
    }
    print(json.dumps(result, indent=2))
    return 0


def _look(work: WorkDir, options: argparse.Namespace, denoiser: Denoiser, step: int) -> None:
    """Draw the prompts that are for looking at; with a judge, say how many of their objects it sees."""
    prompts, tokenizer = watched_prompts(), load_tokenizer(work.tokenizer)
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    token_ids, empty_ids = (torch.from_numpy(encode(tokenizer, text).astype(np.int64)) for text in (texts, [""]))
    pictures = sample(
        denoiser,
        work.vae().to(denoiser.unet.device),
        work.affine(),
        token_ids,
        empty_ids,
        seeds,
        prediction_type=options.prediction_type,
        size_px=NATIVE_SIZE,
        guidance_scale=GUIDANCE_SCALE,
    )
    write_sheet(pictures, work.root / f"sheet-{step:06}.png")
    if work.judge_state.exists():
        seen = zip(prompts, judge_pictures(work.judge(), pictures), strict=True)
        hits = [verdict.concept in prompt.concepts for prompt, verdict in seen if prompt.concepts]
        print(f"{time.strftime('%H:%M:%S')} step {step}: {sum(hits)} of {len(hits)} watched objects", flush=True)

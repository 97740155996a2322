"""The stages that begin with an exported model: its inpainting sibling, more words, a few-step adapter, comparisons."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from webui.training.networks.adapter import AdapterNetwork
from webui.training.starter.comparing import (
    CANDIDATES,
    HELD_OUT,
    SHARDS,
    SIZE_PX,
    Task,
    compared_concepts,
    run_candidate,
)
from webui.training.starter.diffusion import NATIVE, Denoiser
from webui.training.starter.distilling import distill, write_few_steps
from webui.training.starter.evaluate import Exported
from webui.training.starter.export import load_exported_vae
from webui.training.starter.inpainting import (
    encode_holed,
    export_inpainting,
    holed_shards,
    load_holed,
    train_inpainting,
    widened,
)
from webui.training.starter.latents import UNIT, compose_shard, encode_shard, load_pool
from webui.training.starter.lessons import draw_lessons, lesson_shards, load_lessons
from webui.training.starter.ranks import Ranks
from webui.training.starter.sprites import Packages, load_sprites
from webui.training.starter.stage_options import plan_for
from webui.training.starter.tokenizer import caption_lines, encode, load_tokenizer
from webui.training.starter.word_rows import (
    WordRows,
    export_words,
    extend_tokenizer,
    taught_ids,
    train_words,
    widened_embedding,
    word_shards,
)
from webui.training.starter.words import PHRASES, likenesses, worded
from webui.training.starter.workdir import WorkDir, build_denoiser


def run_inpaint(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Train the inpainting sibling of the exported model `--start-from`; at each save write it to `--export-dir`."""
    starter = Exported.load(options.start_from)
    sprites, vae = load_sprites(Packages.fetch(work.packages)), load_exported_vae(options.start_from).to(ranks.device)
    shards = holed_shards(options.num_shards)

    def make(position: int, path: Path) -> None:
        shard = shards[position]
        composed = compose_shard(
            shard, sprites, tokenize=lambda captions: encode(starter.tokenizer, captions), seed=options.seed
        )
        encode_holed(path, composed, vae, seed=options.seed + shard.index * len(composed.pictures))

    _make_missing([shard.path(work.holed) for shard in shards], make, ranks)

    def report(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, UNet2DConditionModel)
        for folder in options.export_dir:
            export_inpainting(folder, starter=options.start_from, unet=averaged, provenance={"inpaint_steps": step})

    plan = plan_for(
        options, options.inpaint_steps, options.inpaint_rate, warmup_steps=50, ema_decay=options.unet_ema_decay
    )
    train_inpainting(
        Denoiser(widened(starter.denoiser.unet), starter.denoiser.text_encoder.requires_grad_(False)),
        load_holed(work.holed, shards),
        encode(starter.tokenizer, [""])[0],
        plan,
        batch_size=options.batch_size,
        prediction_type=starter.prediction_type,
        seed=options.seed,
        ranks=ranks,
        checkpoint=work.inpaint_state,
        on_checkpoint=report,
    )


def run_words(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Teach the exported model `--start-from` more words; at each save write it to `--export-dir`."""
    starter = Exported.load(options.start_from)
    if ranks.is_first:
        extend_tokenizer(options.start_from / "tokenizer", PHRASES, work.words_tokenizer)
    ranks.wait()
    tokenizer = load_tokenizer(work.words_tokenizer)
    sprites, vae = load_sprites(Packages.fetch(work.packages)), load_exported_vae(options.start_from).to(ranks.device)
    shards = word_shards(options.num_shards)

    def make(position: int, path: Path) -> None:
        composed = compose_shard(
            shards[position],
            sprites,
            tokenize=lambda captions: encode(tokenizer, captions),
            seed=options.seed,
            draw=worded,
        )
        encode_shard(path, composed, vae)

    _make_missing([shard.path(work.worded) for shard in shards], make, ranks)
    known = starter.denoiser.text_encoder.get_input_embeddings().weight.detach()
    words = WordRows(widened_embedding(known, tokenizer, likenesses()), taught_ids(tokenizer, PHRASES, caption_lines()))

    def report(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, WordRows)
        for folder in options.export_dir:
            export_words(
                folder,
                source=options.start_from,
                tokenizer=work.words_tokenizer,
                words=averaged,
                provenance={"words_steps": step},
            )

    plan = plan_for(options, options.words_steps, options.words_rate, warmup_steps=10, ema_decay=0.95)
    train_words(
        starter.denoiser,
        words,
        load_pool(work.worded, shards, UNIT)[NATIVE],
        encode(tokenizer, [""])[0],
        plan,
        batch_size=options.batch_size,
        prediction_type=starter.prediction_type,
        seed=options.seed,
        ranks=ranks,
        checkpoint=work.words_state,
        on_checkpoint=report,
    )


def run_distill(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Distil the exported model `--start-from` into a few-step adapter; at each save write it to `--export-dir`."""
    starter = Exported.load(options.start_from, ranks.device)
    paths = lesson_shards(work.lessons, options.num_shards)
    _make_missing(paths, lambda position, path: draw_lessons(path, starter, position, seed=options.seed), ranks)

    def report(adapter: AdapterNetwork, step: int) -> None:
        for folder in options.export_dir:
            write_few_steps(folder, adapter, step=step, base_name=options.start_from.name)

    plan = plan_for(
        options, options.distill_steps, options.distill_rate, warmup_steps=10, ema_decay=options.unet_ema_decay
    )
    distill(
        starter,
        load_lessons(paths),
        plan,
        batch_size=options.batch_size,
        seed=options.seed,
        ranks=ranks,
        checkpoint=work.distill_state,
        on_checkpoint=report,
    )


def run_compare(work: WorkDir, options: argparse.Namespace, ranks: Ranks) -> None:
    """Train with one recipe after the other on a small task; the ranks share the recipes, each alone with its own.

    The autoencoder and the words are those of the exported model `--start-from`; needs the judge. Recipes whose
    figures are there already are not run again.
    """
    starter, concepts = Exported.load(options.start_from, ranks.device), compared_concepts()
    sprites = {
        key: sprite for key, sprite in load_sprites(Packages.fetch(work.packages)).items() if key.concept in concepts
    }
    vae, shards = load_exported_vae(options.start_from).to(ranks.device), (*SHARDS, HELD_OUT)

    def make(position: int, path: Path) -> None:
        composed = compose_shard(
            shards[position], sprites, tokenize=lambda captions: encode(starter.tokenizer, captions), seed=options.seed
        )
        encode_shard(path, composed, vae)

    _make_missing([shard.path(work.compared) for shard in shards], make, ranks)
    pool, held_out = (load_pool(work.compared, some, UNIT)[SIZE_PX, SIZE_PX] for some in (SHARDS, (HELD_OUT,)))
    task = Task(pool=pool, held_out=held_out, starter=starter, judge=work.judge().to(ranks.device))
    for name, candidate in list(CANDIDATES.items())[ranks.index :: ranks.count]:
        if (work.compared / f"{name}.json").exists():
            continue
        torch.manual_seed(candidate.seed)
        figures = run_candidate(
            build_denoiser(starter.tokenizer),
            candidate,
            task,
            num_samples=options.compare_samples,
            ranks=Ranks(0, 1, ranks.device),
            folder=work.compared,
            name=name,
        )
        print(f"{time.strftime('%H:%M:%S')} {name}: {figures}", flush=True)


def _make_missing(paths: Sequence[Path], make: Callable[[int, Path], None], ranks: Ranks) -> None:
    """`make(position, path)` for each of `paths` that is not there; the ranks share them and wait for each other."""
    for position in range(ranks.index, len(paths), ranks.count):
        if not paths[position].exists():
            make(position, paths[position])
            print(f"{time.strftime('%H:%M:%S')} {paths[position].name}", flush=True)
    ranks.wait()

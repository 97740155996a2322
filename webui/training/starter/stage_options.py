"""The stages' names and the command line's options."""

import argparse
import time
from pathlib import Path

from webui.training.starter.diffusion import PREDICTION_TYPES
from webui.training.starter.loop import Clock, Plan

STAGES = ("vae", "sharpen", "encode", "unet", "export", "judge", "evaluate")
LATER_STAGES = ("inpaint", "words", "distill", "compare")
"""Made of an exported model, or of parts of it, not of a run's own states."""
DATA_STAGES = ("photos",)
"""Called by their name alone; they only write what others train on."""
TRAINED_STAGES = ("vae", "sharpen", "encode", "unet", "judge", *LATER_STAGES)


def plan_for(
    options: argparse.Namespace,
    num_steps: int,
    learning_rate: float,
    *,
    warmup_steps: int = 30,
    cooldown_steps: int | None = None,
    ema_decay: float = 0.99,
) -> Plan:
    """A stage's plan, with what the options say of all stages. If nothing is said, the rate falls over half of it.

    `--seconds` ends it before its last step.
    """
    length_s = options.seconds
    return Plan(
        num_steps=num_steps,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        cooldown_steps=num_steps // 2 if cooldown_steps is None else cooldown_steps,
        ema_decay=ema_decay,
        checkpoint_every_s=options.checkpoint_every_s,
        clock=Clock(options.started + length_s, length_s, options.cooldown_seconds) if length_s else None,
    )


def options_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m webui.training.starter", description=description)
    parser.add_argument("stage", nargs="?", default="all", choices=("all", *STAGES, *LATER_STAGES, *DATA_STAGES))
    parser.add_argument("--work-dir", type=Path, required=True, help="data, checkpoints and logs; never the repository")
    parser.add_argument("--export-dir", type=Path, action="append", help="may be given twice; default models/starter")
    parser.add_argument("--export-every-s", type=float, default=0.0, help="refresh the export while training; 0: don't")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--start-from", type=Path, help="an exported model that is trained on instead of random weights"
    )
    parser.add_argument("--vae-steps", type=int, default=2000, help="35 %% of them with a falling learning rate")
    parser.add_argument("--vae-rate", type=float, default=3e-3)
    parser.add_argument("--vae-crops", type=int, default=16, help="crops of 64 px per step over all processes")
    parser.add_argument("--sharpen-steps", type=int, default=1000)
    parser.add_argument("--sharpen-rate", type=float, default=5e-4)
    parser.add_argument("--num-shards", type=int, default=16, help="of 1024 pictures of the native size, or 32 lessons")
    parser.add_argument("--unet-steps", type=int, default=2400)
    parser.add_argument("--unet-cooldown-steps", type=int, default=600, help="last steps, with a falling learning rate")
    parser.add_argument("--unet-rate", type=float, default=1.2e-3)
    parser.add_argument("--unet-ema-decay", type=float, default=0.995, help="of the averaged weights, per step")
    parser.add_argument(
        "--compile", action="store_true", help="compile the U-Net for the native size: a minute before the first step"
    )
    parser.add_argument("--inpaint-steps", type=int, default=1500, help="half of them with a falling learning rate")
    parser.add_argument("--inpaint-rate", type=float, default=4e-4)
    parser.add_argument("--words-steps", type=int, default=400, help="half of them with a falling learning rate")
    parser.add_argument("--words-rate", type=float, default=5e-3)
    parser.add_argument("--distill-steps", type=int, default=1500, help="half of them with a falling learning rate")
    parser.add_argument("--distill-rate", type=float, default=8e-3)
    parser.add_argument("--compare-samples", type=int, default=10_000, help="pictures that every recipe learns from")
    parser.add_argument("--judge-steps", type=int, default=2000)
    parser.add_argument("--prediction-type", choices=PREDICTION_TYPES, default="v_prediction")
    parser.add_argument("--batch-size", type=int, default=96, help="pictures per step over all processes")
    parser.add_argument("--checkpoint-every-s", type=float, default=240.0)
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="end the stage's training after so long, even before its last step"
    )
    parser.add_argument("--cooldown-seconds", type=float, default=0.0, help="last of --seconds, with a falling rate")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(export_dir=None, started=time.monotonic())
    return parser

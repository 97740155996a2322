"""`launch.py grain PICTURE --output FILE`: the same without a browser."""

import argparse
from pathlib import Path

from webui.hooks import Command, CommandContext, Extras, GenerationRequest, PostprocessStep, flatten, open_image

from .grain import FilmGrain


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", type=Path, metavar="PICTURE")
    parser.add_argument("--amount", type=float, default=0.15, help="0 to 1 (0.15)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")


def run(options: argparse.Namespace, context: CommandContext) -> int:
    picture = flatten(open_image(options.picture, max_pixels=context.settings.max_image_pixels))
    step = PostprocessStep(id=FilmGrain.id, params={"amount": options.amount})
    request = GenerationRequest(checkpoint="", init=Extras(image=picture), postprocess=(step,))
    (processed,) = context.process(request)
    processed.image.save(options.output)
    return 0


GRAIN = Command(name="grain", add_options=add_options, run=run)

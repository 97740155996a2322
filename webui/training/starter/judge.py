"""A small classifier that says which objects a picture shows and in which style; it only ever measures.

It learns from compositions drawn apart from those the model learns from, some of them slightly blurred, since the
pictures it will judge are. Of two objects it is shown one after the other. What it is worth is measured on clean
compositions that nobody has trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional

from webui.training.starter.backgrounds import Pixels
from webui.training.starter.compose import Choices, Layout, Sprites, render, sample_layout
from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.feed import Feed
from webui.training.starter.loop import Plan, train
from webui.training.starter.muon import muon_for
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.ranks import Ranks, place
from webui.training.starter.vae import to_tensor
from webui.training.starter.variants import STYLES
from webui.training.starter.vocabulary import PLACES

JUDGE_SIZE = 64
BLUR_SHARE, BLUR_PX = 0.5, 1.5
PICTURES_PER_STEP = 64
TRAINING_SEED, TEST_SEED = 700_000, 800_000
Labels = npt.NDArray[np.int64]
CONCEPT_NAMES = tuple(concept.name for concept in CONCEPTS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the picture, or the part of it that was looked at, seems to show."""

    concept: str
    style: str


class Judge(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] to the logits of all concepts (B, concepts) and of all styles (B, styles)."""

    def __init__(self, channels: Sequence[int] = (32, 64, 96, 128, 192)) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(_block(before, after) for before, after in pairwise(channels)))
        self.concept_out = nn.Linear(2 * channels[-1], len(CONCEPT_NAMES))
        self.style_out = nn.Linear(2 * channels[-1], len(STYLES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.blocks(self.conv_in(pixels))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.concept_out(pooled), self.style_out(pooled)


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(8, before),
        nn.SiLU(),
        nn.Conv2d(before, after, 3, padding=1),
        nn.GroupNorm(8, after),
        nn.SiLU(),
        nn.Conv2d(after, after, 3, stride=2, padding=1),
    )


def train_judge(
    judge: Judge,
    sprites: Sprites,
    plan: Plan,
    *,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
) -> Judge:
    """Train to the end of `plan`; returns the averaged weights."""
    choices = Choices.of(sprites)

    def batch_of(step: int) -> tuple[Pixels, Labels, Labels]:
        rng = np.random.default_rng([TRAINING_SEED, step, ranks.index])
        layouts = [clean_layout(rng, choices) for _ in range(PICTURES_PER_STEP // ranks.count)]
        shown = [layout.objects[int(rng.integers(len(layout.objects)))] for layout in layouts]
        pictures = []
        for layout, placed in zip(layouts, shown, strict=True):
            picture = _maybe_blurred(render(layout, sprites, *_CANVAS), rng)
            pictures.append(_shrink(look_at(picture, placed.place) if layout.relation else picture))
        concepts = np.array([CONCEPT_NAMES.index(placed.sprite.concept) for placed in shown], np.int64)
        styles = np.array([STYLES.index(placed.sprite.style) for placed in shown], np.int64)
        return np.stack(pictures), concepts, styles

    feed = Feed(batch_of, last=plan.num_steps, num_workers=ranks.num_workers)

    def loss_of(step: int) -> Tensor:
        pixels, *labels = feed(step)
        concept, style = (place(torch.from_numpy(label), ranks.device) for label in labels)
        concepts, styles = judge(to_tensor(pixels, ranks.device))
        return functional.cross_entropy(concepts, concept) + 0.5 * functional.cross_entropy(styles, style)

    judge.to(ranks.device)
    optimizer = muon_for(judge, learning_rate=plan.learning_rate, plain=("conv_in", "_out"), ranks=ranks)
    averaged = train(judge, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=on_checkpoint)
    assert isinstance(averaged, Judge)
    return averaged


@torch.no_grad()
def judge_pictures(judge: Judge, pictures: Pixels, among: Sequence[str] = CONCEPT_NAMES) -> list[Verdict]:
    """One verdict per picture, uint8 (B, H, W, 3): the likeliest concept `among` some, and the style."""
    device = judge.conv_in.weight.device
    concepts, styles = judge(to_tensor(np.stack([_shrink(picture) for picture in pictures]), device))
    asked = concepts[:, [CONCEPT_NAMES.index(name) for name in among]]
    best = zip(asked.argmax(dim=1).tolist(), styles.argmax(dim=1).tolist(), strict=True)
    return [Verdict(among[concept], STYLES[style]) for concept, style in best]


def judge_pairs(judge: Judge, pictures: Pixels, places: tuple[str, str]) -> list[set[str]]:
    """The concepts seen at the two places of each picture."""
    at_each = [judge_pictures(judge, np.stack([look_at(picture, place) for picture in pictures])) for place in places]
    return [{first.concept, second.concept} for first, second in zip(*at_each, strict=True)]


def look_at(picture: Pixels, place: str) -> Pixels:
    """The part of `picture` (H, W, 3) that an object at `place` fills when it is one of two: half as wide and high."""
    height, width = picture.shape[:2]
    left, top = (
        round(max(0.0, share - 0.25) * side) for share, side in zip(PLACES[place], (width, height), strict=True)
    )
    return picture[top : top + height // 2, left : left + width // 2]


def measure_judge(judge: Judge, sprites: Sprites, *, count: int) -> dict[str, float]:
    """Shares of `count` unseen compositions judged rightly: one object, both of two objects, the style."""
    choices = Choices.of(sprites)
    layouts = [clean_layout(np.random.default_rng([TEST_SEED, index]), choices) for index in range(count)]
    singles = [layout for layout in layouts if not layout.relation]
    verdicts = judge_pictures(judge, np.stack([render(layout, sprites, *_CANVAS) for layout in singles]))
    shown = [layout.objects[0].sprite for layout in singles]
    both = []
    for layout in layouts:
        if layout.relation:
            first, second = layout.objects
            (seen,) = judge_pairs(judge, render(layout, sprites, *_CANVAS)[None], (first.place, second.place))
            both.append(seen == _names(layout))
    return {
        "object": share([one.concept == seen.concept for one, seen in zip(shown, verdicts, strict=True)]),
        "two objects": share(both),
        "style": share([one.style == seen.style for one, seen in zip(shown, verdicts, strict=True)]),
    }


def clean_layout(rng: np.random.Generator, choices: Choices) -> Layout:
    """A layout that is not made worse and, if it has two objects, has two different ones."""
    while True:
        layout = replace(sample_layout(rng, choices), degraded=None)
        if len(_names(layout)) == len(layout.objects):
            return layout


_CANVAS = (NATIVE_SIZE, NATIVE_SIZE)


def _names(layout: Layout) -> set[str]:
    return {placed.sprite.concept for placed in layout.objects}


def share(hits: Sequence[bool]) -> float:
    """How many of them are true."""
    return float(np.mean(hits))


def _maybe_blurred(picture: Pixels, rng: np.random.Generator) -> Pixels:
    if rng.random() > BLUR_SHARE:
        return picture
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, BLUR_PX))))
    return np.asarray(blurred)


def _shrink(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((JUDGE_SIZE, JUDGE_SIZE), Image.Resampling.BOX))

"""Fixed prompts: those the model is measured with, and others to look at while it trains.

The measured ones are never used to choose anything: not a setting, not a step to stop at, not a picture for the card.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from webui.training.starter.captions import with_article
from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.variants import STYLES, TONE_CODES
from webui.training.starter.vocabulary import COLOURS, STYLE_WORDS

NUM_OBJECT_PROMPTS, NUM_PAIR_PROMPTS = 200, 50
COMPARED_TURNS = 6
PAIR_PLACES = ("on the left", "on the right")
OBJECT_SEED, PAIR_SEED, WATCHED_SEED, COMPARED_SEED = 50_000, 60_000, 70_000, 80_000
WATCHED_SCENES = (
    "a woman with red hair at the beach, 3d icon",
    "a standing man on a blue background, flat icon",
    "a fat standing man on a blue background, flat icon",
    "a slim standing woman on a yellow background, 3d icon",
    "a cat on the left and a car on the right, green background",
    "a robot next to a tree on a white background",
    "a small penguin in the snow",
    "a dragon in the city, 3d icon",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a picture has to show, in words and as what can be measured."""

    text: str
    concepts: tuple[str, ...]
    colour: str
    style: str
    seed: int


def object_prompts() -> tuple[Prompt, ...]:
    """200 prompts with one object each, no object twice; half of them sentences, half tags."""
    return tuple(_object_prompt(OBJECT_SEED, index, wording=0) for index in range(NUM_OBJECT_PROMPTS))


def pair_prompts() -> tuple[Prompt, ...]:
    """50 prompts with two different objects side by side."""
    rng = np.random.default_rng(PAIR_SEED)
    prompts = []
    for index in range(NUM_PAIR_PROMPTS):
        first, second = (CONCEPTS[row].name for row in rng.permutation(len(CONCEPTS))[:2])
        colour, style = list(COLOURS)[index % len(COLOURS)], STYLES[index % len(STYLES)]
        nouns = f"{with_article(first)} {PAIR_PLACES[0]} and {with_article(second)} {PAIR_PLACES[1]}"
        text = f"{nouns}, {colour} background, {STYLE_WORDS[style][0]}"
        prompts.append(Prompt(text=text, concepts=(first, second), colour=colour, style=style, seed=PAIR_SEED + index))
    return tuple(prompts)


def watched_prompts() -> tuple[Prompt, ...]:
    """40 prompts to look at while the model trains: other wordings, colours and seeds than the measured ones."""
    rows = [_object_prompt(WATCHED_SEED, index, wording=1) for index in range(32)]
    scenes = [
        Prompt(text=text, concepts=(), colour="", style="", seed=WATCHED_SEED + 100 + index)
        for index, text in enumerate(WATCHED_SCENES)
    ]
    return (*rows, *scenes)


def compared_prompts(concepts: Sequence[str]) -> tuple[Prompt, ...]:
    """Each of `concepts` on six backgrounds: what recipes are compared with, so never what a model is measured with."""
    prompts = []
    for row, concept in enumerate(concepts):
        for turn in range(COMPARED_TURNS):
            index = COMPARED_TURNS * row + turn
            colour, style = list(COLOURS)[index % len(COLOURS)], STYLES[turn % len(STYLES)]
            text = (
                f"{with_article(concept)} in front of {with_article(f'{colour} background')}, {STYLE_WORDS[style][1]}"
            )
            prompts.append(
                Prompt(text=text, concepts=(concept,), colour=colour, style=style, seed=COMPARED_SEED + index)
            )
    return tuple(prompts)


def _object_prompt(seed: int, index: int, *, wording: int) -> Prompt:
    order = np.random.default_rng(seed).permutation(len(CONCEPTS))
    rng = np.random.default_rng([seed, index])
    concept = CONCEPTS[order[index]]
    colour, style = list(COLOURS)[index % len(COLOURS)], STYLES[int(rng.integers(len(STYLES)))]
    words = STYLE_WORDS[style][wording]
    tone = list(TONE_CODES)[int(rng.integers(len(TONE_CODES)))]
    if index % 2:
        text = ", ".join(
            [concept.name, *([f"{tone} skin"] if concept.is_person else []), f"{colour} background", words]
        )
    else:
        link = " and " if " with " in concept.name else " with "
        person = f"{link}{tone} skin" if concept.is_person else ""
        text = f"{with_article(concept.name)}{person} on {with_article(f'{colour} background')}, {words}"
    return Prompt(text=text, concepts=(concept.name,), colour=colour, style=style, seed=seed + index)

"""Words that people write and the pool's captions lack: general ones for people, and those said of any picture.

`worded` draws a layout and words it with them. `word_rows.py` teaches them to the text encoder.
"""

import re
from collections.abc import Sequence

import numpy as np

from webui.training.starter.captions import background_phrase, caption
from webui.training.starter.compose import Choices, Layout, sample_layout
from webui.training.starter.concepts import CONCEPT_BY_NAME
from webui.training.starter.latents import CAPTIONS_PER_PICTURE
from webui.training.starter.vocabulary import BUILD_WORDS

PEOPLE = {
    "person": ("man", "woman", "bald man", "bearded man", "old man", "old woman"),
    "human": ("man", "woman"),
    "adult": ("man", "woman"),
    "guy": ("man", "bald man", "bearded man"),
    "lady": ("woman", "old woman"),
    "kid": ("boy", "girl"),
    "child": ("boy", "girl"),
    "standing person": ("standing man", "standing woman"),
    "walking person": ("walking man", "walking woman"),
}
"""A general noun, and the concepts that it may stand for."""
BUILDS = {"heavy": ("obese", "plump", "big"), "slim": ("skinny", "lean")}
"""More words for what `vocabulary.BUILD_WORDS` has."""
BUILD_TAGS = {"heavy": ("obesity", "overweight", "plus size"), "slim": ("skinny",)}
SEVERAL = ("two people", "people", "two persons", "a couple")
GAZES = ("looking into camera", "looking at camera", "looking at the viewer", "facing the camera", "front view")
NEUTRAL = (
    *("ultra detailed", "highly detailed", "extremely detailed", "intricate details", "realistic", "photorealistic"),
    *(
        "hyperrealistic",
        "cinematic lighting",
        "soft light",
        "studio light",
        "dramatic light",
        "sharp focus",
        "8k",
        "4k",
    ),
    *("hd", "uhd", "professional photo", "raw photo", "photograph", "digital art", "artwork", "trending on artstation"),
    *("beautiful", "pretty", "colorful", "vivid", "amazing", "award winning", "real", "photo"),
)
"""They say nothing about what is in the picture, and are taught to change nothing."""
BAD = (
    *("ugly", "duplicate", "bad anatomy", "bad hands", "mutated hands", "bad and mutated hands", "deformed", "bad"),
    *("disfigured", "poorly drawn", "extra fingers", "missing fingers", "cropped", "watermark", "signature", "text"),
)
"""What is written into negative prompts, taught on degraded pictures."""
PERSON_SHARE, SEVERAL_SHARE, BAD_SHARE = 0.45, 0.05, 0.12
STANDING_SHARE = 0.3
"""Of the people: they have builds."""
OPEN_SHARE = 0.5
"""Of captions of a build: they don't say that somebody stands."""
GAZE_SHARE = 0.35
OPENINGS = ("", "", "photo of ", "a photo of ", "portrait of ", "a picture of ")
PHRASES = (
    *PEOPLE,
    *(word for words in (*BUILDS.values(), *BUILD_TAGS.values()) for word in words),
    *(*SEVERAL, *GAZES, *NEUTRAL, *BAD),
)
"""All that is taught."""


def likenesses() -> dict[str, tuple[str, ...]]:
    """Words that begin as the mean of others."""
    people = {noun: concepts for noun, concepts in PEOPLE.items() if " " not in noun}
    builds = {word: BUILD_WORDS[build] for build, words in BUILDS.items() for word in words}
    return {
        **people,
        "people": PEOPLE["person"],
        "persons": PEOPLE["person"],
        **builds,
        "obesity": BUILD_WORDS["heavy"],
    }


def worded(rng: np.random.Generator, choices: Choices) -> tuple[Layout, list[str]]:
    """A layout and four captions of it; the same generator state gives the same."""
    kind = rng.random()
    if kind < PERSON_SHARE:
        noun = "standing person" if rng.random() < STANDING_SHARE else _pick(rng, (*PEOPLE, *["person"] * 6))
        layout = _layout(rng, choices, PEOPLE[noun], count=1)
        return layout, [_of_person(layout, noun, rng) for _ in range(CAPTIONS_PER_PICTURE)]
    if kind < PERSON_SHARE + SEVERAL_SHARE:
        layout = _layout(rng, choices, PEOPLE["person"], count=2)
        return layout, [_of_several(layout, rng) for _ in range(CAPTIONS_PER_PICTURE)]
    layout = sample_layout(rng, choices)
    if kind < PERSON_SHARE + SEVERAL_SHARE + BAD_SHARE:
        while not layout.degraded:
            layout = sample_layout(rng, choices)
        return layout, [_of_bad(layout, rng) for _ in range(CAPTIONS_PER_PICTURE)]
    while layout.degraded:
        layout = sample_layout(rng, choices)
    return layout, [_with_tags(caption(layout, rng), NEUTRAL, rng) for _ in range(CAPTIONS_PER_PICTURE)]


def _layout(rng: np.random.Generator, choices: Choices, concepts: tuple[str, ...], *, count: int) -> Layout:
    """One with `count` people out of `concepts`, not made worse."""
    groups = tuple(group for group in choices.people if group[0].concept in concepts)
    while True:
        layout = sample_layout(rng, Choices(groups, ()))
        if len(layout.objects) == count and not layout.degraded:
            return layout


def _of_person(layout: Layout, noun: str, rng: np.random.Generator) -> str:
    sprite = layout.objects[0].sprite
    if sprite.build and rng.random() < OPEN_SHARE:
        noun = "person"
    text = caption(layout, rng)
    for word in sorted(CONCEPT_BY_NAME[sprite.concept].words, key=len, reverse=True):
        text = re.sub(rf"\b{word}\b", noun, text)
    tags: list[str] = []
    if sprite.build:
        for word in BUILD_WORDS[sprite.build]:
            text = re.sub(rf"\b{word} (?={noun})", lambda _: f"{_pick(rng, BUILDS[sprite.build])} ", text)
        tags = [_pick(rng, BUILD_TAGS[sprite.build])] if rng.random() < 0.5 else []
    text = re.sub(r"^(a portrait of |a picture of |an image of |a photo of )", lambda _: _pick(rng, OPENINGS), text)
    if rng.random() < GAZE_SHARE:
        tags.append(_pick(rng, GAZES))
    text = _joined(text, tags, rng)
    return _with_articles(_with_tags(text, NEUTRAL, rng) if rng.random() < 0.4 else text)


def _of_several(layout: Layout, rng: np.random.Generator) -> str:
    return f"{_pick(rng, OPENINGS)}{_pick(rng, SEVERAL)} {background_phrase(layout.background, rng)}"


def _of_bad(layout: Layout, rng: np.random.Generator) -> str:
    """Nothing but what is bad, as in negative prompts, or that behind what is seen."""
    bad = ", ".join(_some(rng, BAD, 3))
    return bad if rng.random() < 0.5 else f"{caption(layout, rng)}, {bad}"


def _with_tags(text: str, phrases: tuple[str, ...], rng: np.random.Generator) -> str:
    return _joined(text, _some(rng, phrases, 3), rng)


def _joined(text: str, tags: Sequence[str], rng: np.random.Generator) -> str:
    """`tags`, some before and some behind `text`."""
    parts = [text]
    for tag in tags:
        parts.insert(0 if rng.random() < 0.5 else len(parts), tag)
    return ", ".join(parts)


def _with_articles(text: str) -> str:
    return re.sub(r"\ban? (?=(\w))", lambda found: "an " if found[1] in "aeiou" else "a ", text)


def _some(rng: np.random.Generator, options: tuple[str, ...], most: int) -> list[str]:
    """One to `most` different ones."""
    rows = rng.permutation(len(options))[: int(rng.integers(1, most + 1))]
    return [options[row] for row in rows]


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]

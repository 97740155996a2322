"""Words for a layout: sentences and tag lists that name only what the picture shows."""

import numpy as np

from webui.training.starter.compose import Background, Gradient, Layout, Painted, PlacedSprite, Plain
from webui.training.starter.vocabulary import CONCEPTS, DEGRADED_WORDS, QUALITY_WORDS, STYLES

CONCEPT_BY_NAME = {concept.name: concept for concept in CONCEPTS}
TONE_SHARE = 0.6  # how often a caption names the skin tone
STYLE_SHARE = 0.35
QUALITY_SHARE = 0.12
OPENINGS = ("", "", "", "a picture of ", "an image of ", "an illustration of ", "an icon of ", "a cute drawing of ")
PORTRAIT_OPENINGS = ("", "", "a portrait of ", "a picture of ", "an image of ", "a photo of ")


def caption(layout: Layout, rng: np.random.Generator) -> str:
    """One caption of `layout`; the same generator state gives the same words."""
    if layout.blur_radius and rng.random() < 0.3:
        return _pick(rng, DEGRADED_WORDS)
    text = _tags(layout, rng) if rng.random() < 0.35 else _sentence(layout, rng)
    extras = []
    if rng.random() < STYLE_SHARE:
        extras.append(_pick(rng, STYLES))
    if layout.blur_radius:
        extras.append(_pick(rng, DEGRADED_WORDS))
    elif rng.random() < QUALITY_SHARE:
        extras.append(_pick(rng, QUALITY_WORDS))
    return ", ".join([text, *extras])


def _sentence(layout: Layout, rng: np.random.Generator) -> str:
    nouns = [_with_article(_noun(placed, rng)) for placed in layout.objects]
    if len(nouns) == 2:
        places = rng.random() < 0.6
        subject = f"{nouns[0]} on the left and {nouns[1]} on the right" if places else f"{nouns[0]} and {nouns[1]}"
        return f"{subject}, {_background_tag(layout.background, rng)}"
    placed = layout.objects[0]
    person = CONCEPT_BY_NAME[placed.sprite.partition("/")[0]].is_person
    opening = _pick(rng, PORTRAIT_OPENINGS if person else OPENINGS)
    place = f" {placed.place}" if placed.place else ""
    return f"{opening}{nouns[0]}{place} {_background_phrase(layout.background, rng)}"


def _tags(layout: Layout, rng: np.random.Generator) -> str:
    tags = [_noun(placed, rng) for placed in layout.objects]
    if len(layout.objects) == 1 and layout.objects[0].place:
        tags.append(layout.objects[0].place)
    return ", ".join([*tags, _background_tag(layout.background, rng)])


def _noun(placed: PlacedSprite, rng: np.random.Generator) -> str:
    name, _, tone = placed.sprite.partition("/")
    concept = CONCEPT_BY_NAME[name]
    word = name if rng.random() < 0.75 else _pick(rng, concept.words)
    return f"{word} with {tone} skin" if tone and rng.random() < TONE_SHARE else word


def _background_phrase(background: Background, rng: np.random.Generator) -> str:
    match background:
        case Painted(scene=scene):
            return scene.phrase
        case _:
            link = _pick(rng, ("on", "on", "in front of", "with"))
            return f"{link} {_with_article(_background_tag(background, rng))}"


def _background_tag(background: Background, rng: np.random.Generator) -> str:
    match background:
        case Plain(colour=colour):
            if colour == "gray" and rng.random() < 0.3:
                colour = "grey"
            return f"{colour} background"
        case Gradient(top=top, bottom=bottom):
            return f"{top.colour} to {bottom.colour} gradient background"
        case Painted(scene=scene):
            return _pick(rng, (scene.name, scene.phrase))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]

"""Words for a layout: sentences and tag lists that name only what the picture shows."""

from collections.abc import Sequence

import numpy as np

from webui.training.starter.backgrounds import Background, Gradient, Painted, Plain
from webui.training.starter.compose import Layout, PlacedSprite
from webui.training.starter.concepts import CONCEPT_BY_NAME
from webui.training.starter.variants import SpriteKey, hair_words
from webui.training.starter.vocabulary import BUILD_WORDS, DEGRADED_WORDS, QUALITY_WORDS, STYLE_WORDS

TONE_SHARE = 0.5  # how often a caption names the skin tone
HAIR_SHARE = 0.6
BUILD_SHARE = 0.85
STYLE_SHARE = 0.5
QUALITY_SHARE = 0.12
TAGS_SHARE = 0.35
ONLY_DEGRADED_SHARE = 0.3
SPOKEN_WITH_Y = ("unicorn", "ufo")
OPENINGS = ("", "", "", "a picture of ", "an image of ", "an illustration of ", "an icon of ", "a cute drawing of ")
PORTRAIT_OPENINGS = ("", "", "a portrait of ", "a picture of ", "an image of ", "a photo of ")


def caption(layout: Layout, rng: np.random.Generator) -> str:
    """One caption of `layout`; the same generator state gives the same words."""
    degraded = _pick(rng, DEGRADED_WORDS[layout.degraded.kind]) if layout.degraded else ""
    if degraded and rng.random() < ONLY_DEGRADED_SHARE:
        return degraded
    text = _tags(layout, rng) if rng.random() < TAGS_SHARE else _sentence(layout, rng)
    extras = [_pick(rng, STYLE_WORDS[layout.objects[0].sprite.style])] if rng.random() < STYLE_SHARE else []
    if degraded:
        extras.append(degraded)
    elif rng.random() < QUALITY_SHARE:
        extras.append(_pick(rng, QUALITY_WORDS))
    return ", ".join([text, *extras])


def with_article(noun: str) -> str:
    """`noun` with "a" or "an"; plurals stay as they are."""
    first, *_ = noun.split(" of ")
    if first.endswith("s") and not first.endswith("ss"):
        return noun
    return f"{'an' if noun[0] in 'aeiou' and not noun.startswith(SPOKEN_WITH_Y) else 'a'} {noun}"


def _sentence(layout: Layout, rng: np.random.Generator) -> str:
    nouns = [with_article(_noun(placed, rng)) for placed in layout.objects]
    background = background_phrase(layout.background, rng)
    if layout.relation:
        text = layout.relation.format(*nouns)
        return f"{text} {background}" if rng.random() < 0.5 else f"{text}, {_background_tag(layout.background, rng)}"
    placed = layout.objects[0]
    opening = _pick(rng, PORTRAIT_OPENINGS if placed.sprite.tone else OPENINGS)
    place = f" {placed.place}" if placed.place else ""
    return f"{opening}{nouns[0]}{place} {background}"


def _tags(layout: Layout, rng: np.random.Generator) -> str:
    tags = []
    for placed in layout.objects:
        word, details = _word_and_details(placed.sprite, rng)
        tags += [f"{_adjective(placed, rng)}{word}", *details]
    if len(layout.objects) == 1 and layout.objects[0].place:
        tags.append(layout.objects[0].place)
    return ", ".join([*tags, _background_tag(layout.background, rng)])


def _noun(placed: PlacedSprite, rng: np.random.Generator) -> str:
    word, details = _word_and_details(placed.sprite, rng)
    noun = f"{_adjective(placed, rng)}{word}"
    if not details:
        return noun
    link = " and " if " with " in noun else " with "
    return f"{noun}{link}{' and '.join(details)}"


def _word_and_details(sprite: SpriteKey, rng: np.random.Generator) -> tuple[str, list[str]]:
    """The word for the object, and what can be said of a person's hair and skin."""
    concept = CONCEPT_BY_NAME[sprite.concept]
    word = concept.name if rng.random() < 0.75 else _pick(rng, concept.words)
    details = []
    if (hair := hair_words(sprite)) and rng.random() < HAIR_SHARE:
        details.append(hair)
    if sprite.tone and rng.random() < TONE_SHARE:
        details.append(f"{sprite.tone} skin")
    return word, details


def _adjective(placed: PlacedSprite, rng: np.random.Generator) -> str:
    words = [placed.size_word] if placed.size_word else []
    if placed.sprite.build and rng.random() < BUILD_SHARE:
        words.append(_pick(rng, BUILD_WORDS[placed.sprite.build]))
    return "".join(f"{word} " for word in words)


def background_phrase(background: Background, rng: np.random.Generator) -> str:
    """ "on a red background", "at the beach": what ends a sentence."""
    match background:
        case Painted(scene=scene):
            return _pick(rng, scene.phrases)
        case _:
            link = _pick(rng, ("on", "on", "in front of", "with"))
            return f"{link} {with_article(_background_tag(background, rng))}"


def _background_tag(background: Background, rng: np.random.Generator) -> str:
    match background:
        case Plain(colour=colour):
            if colour == "gray" and rng.random() < 0.3:
                colour = "grey"
            return f"{colour} background"
        case Gradient(top=top, bottom=bottom):
            return f"{top.colour} to {bottom.colour} gradient background"
        case Painted(scene=scene):
            return _pick(rng, (scene.name, *scene.phrases))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]

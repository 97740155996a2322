"""Which pictures of a concept there are: styles, skin tones, hair colours, body builds, and where each comes from."""

from dataclasses import dataclass
from itertools import product

from webui.training.starter.concepts import CONCEPT_BY_NAME, CONCEPTS, Concept

STYLES = ("3d", "flat")
BUILDS = ("slim", "heavy")
# The 3D package has the pictures of the second and third tone swapped, hence a code per style.
TONE_CODES = {
    "light": {"3d": "1f3fb", "flat": "1f3fb"},
    "medium": {"3d": "1f3fc", "flat": "1f3fd"},
    "dark": {"3d": "1f3fe", "flat": "1f3fe"},
}
TINTED_TONE = "light"  # the tone whose hair is black against a bright face, so that it can be told apart and tinted


@dataclass(frozen=True, slots=True, kw_only=True)
class SpriteKey:
    """One picture. `tone` is empty for things, `hair` and `build` for the picture as it is in the package."""

    concept: str
    style: str
    tone: str = ""
    hair: str = ""
    build: str = ""

    @property
    def tint(self) -> str:
        """The hair colour that has to be made, or nothing."""
        return self.hair if self.hair in CONCEPT_BY_NAME[self.concept].tints else ""

    @property
    def codepoint(self) -> str:
        """Code points of the picture in its package, in hex, joined by hyphens."""
        concept = CONCEPT_BY_NAME[self.concept]
        stem = concept.hair.get(self.hair, concept.codepoint)
        return stem.format(TONE_CODES[self.tone][self.style]) if self.tone else stem


def sprite_keys() -> tuple[SpriteKey, ...]:
    """Every picture of the vocabulary, in table order."""
    return tuple(key for concept in CONCEPTS for style in STYLES for key in _keys_of(concept, style))


def hair_words(key: SpriteKey) -> str:
    """The colour or kind of the hair, or nothing where no one would mention it."""
    if key.hair or not CONCEPT_BY_NAME[key.concept].has_hair:
        return key.hair
    return "brown hair" if key.tone == "medium" else "black hair"


def _keys_of(concept: Concept, style: str) -> list[SpriteKey]:
    if not concept.is_person:
        return [SpriteKey(concept=concept.name, style=style)]
    builds = ("", *BUILDS) if concept.has_builds else ("",)
    keys = [
        SpriteKey(concept=concept.name, style=style, tone=tone, hair=hair, build=build)
        for tone, hair, build in product(TONE_CODES, ("", *concept.hair), builds)
    ]
    return keys + [SpriteKey(concept=concept.name, style=style, tone=TINTED_TONE, hair=hair) for hair in concept.tints]

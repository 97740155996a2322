"""What the starter model can draw: concepts, background colours, scenes and places, as tables.

The captions, the composer, the evaluation and the word list shipped with the weights all read these tables.
"""

from dataclasses import dataclass

RGB = tuple[int, int, int]

SKIN_TONES = {"light": "1f3fb", "medium": "1f3fd", "dark": "1f3fe"}
STYLES = ("3d icon",)
QUALITY_WORDS = ("high quality", "best quality", "masterpiece", "detailed")
DEGRADED_WORDS = ("blurry, low quality", "low quality, blurry", "worst quality, blurry", "blurry")


@dataclass(frozen=True, slots=True)
class Concept:
    """One nameable object. `codepoint` is the emoji's, in hex; `suffix` follows the skin tone in a joined emoji."""

    name: str
    codepoint: str
    aliases: tuple[str, ...] = ()
    is_person: bool = False
    suffix: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms, any of which a caption may use."""
        return (self.name, *self.aliases)

    def file_stems(self) -> dict[str, str]:
        """Picture file stem by sprite key: `name`, or `name/tone` for people."""
        if not self.is_person:
            return {self.name: self.codepoint}
        return {f"{self.name}/{tone}": f"{self.codepoint}-{code}{self.suffix}" for tone, code in SKIN_TONES.items()}


def _person(name: str, codepoint: str, *aliases: str, suffix: str = "") -> Concept:
    return Concept(name, codepoint, aliases, is_person=True, suffix=suffix)


CONCEPTS: tuple[Concept, ...] = (
    _person("man", "1f468", "young man"),
    _person("woman", "1f469", "young woman"),
    _person("boy", "1f466"),
    _person("girl", "1f467"),
    _person("old man", "1f474", "grandfather"),
    _person("old woman", "1f475", "grandmother"),
    _person("baby", "1f476"),
    _person("astronaut", "1f9d1", "spaceman", suffix="-200d-1f680"),
    _person("princess", "1f478", "queen"),
    _person("wizard", "1f9d9", "mage"),
    Concept("dog", "1f436", ("puppy", "dog face")),
    Concept("cat", "1f431", ("kitten", "cat face")),
    Concept("lion", "1f981"),
    Concept("panda", "1f43c"),
    Concept("rabbit", "1f430", ("bunny",)),
    Concept("fox", "1f98a"),
    Concept("frog", "1f438"),
    Concept("penguin", "1f427"),
    Concept("owl", "1f989"),
    Concept("butterfly", "1f98b"),
    Concept("apple", "1f34e", ("red apple",)),
    Concept("banana", "1f34c"),
    Concept("strawberry", "1f353"),
    Concept("pizza", "1f355", ("slice of pizza",)),
    Concept("hamburger", "1f354", ("burger",)),
    Concept("donut", "1f369", ("doughnut",)),
    Concept("cake", "1f382", ("birthday cake",)),
    Concept("car", "1f697", ("automobile", "red car")),
    Concept("bus", "1f68c"),
    Concept("airplane", "2708-fe0f", ("plane",)),
    Concept("rocket", "1f680", ("spaceship",)),
    Concept("sailboat", "26f5", ("boat",)),
    Concept("house", "1f3e0", ("home",)),
    Concept("castle", "1f3f0"),
    Concept("tree", "1f333"),
    Concept("sunflower", "1f33b", ("flower",)),
    Concept("cactus", "1f335"),
    Concept("heart", "2764-fe0f", ("red heart",)),
    Concept("star", "2b50", ("yellow star",)),
    Concept("robot", "1f916"),
)

COLOURS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (245, 135, 30),
    "yellow": (250, 215, 50),
    "green": (50, 160, 70),
    "teal": (25, 150, 150),
    "blue": (40, 90, 215),
    "purple": (125, 60, 180),
    "pink": (248, 150, 190),
    "brown": (120, 75, 45),
    "white": (246, 246, 246),
    "gray": (135, 135, 140),
    "black": (18, 18, 22),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A procedural backdrop: sky from `sky_top` to `sky_bottom`, then ground below `horizon` (share of the height)."""

    name: str
    phrase: str
    sky_top: RGB
    sky_bottom: RGB
    ground: RGB
    horizon: float
    num_stars: int = 0


SCENES: tuple[Scene, ...] = (
    Scene("meadow", "on a green meadow", (110, 180, 245), (200, 230, 250), (90, 175, 70), 0.62),
    Scene("beach", "at the beach", (80, 170, 240), (170, 220, 245), (240, 215, 150), 0.66),
    Scene("night", "under a night sky", (10, 12, 50), (35, 35, 100), (20, 35, 45), 0.8, num_stars=40),
    Scene("sunset", "at sunset", (120, 60, 140), (255, 160, 70), (60, 40, 70), 0.72),
    Scene("snow", "in the snow", (170, 200, 230), (220, 232, 245), (248, 250, 255), 0.6),
)

# Centre of the object as shares of (width, height), by the phrase that names it.
PLACES: dict[str, tuple[float, float]] = {
    "on the left": (0.29, 0.5),
    "on the right": (0.71, 0.5),
    "at the top": (0.5, 0.29),
    "at the bottom": (0.5, 0.71),
}

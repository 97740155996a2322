"""What the starter model can draw besides its concepts: styles, skin tones, builds, colours, scenes, places, qualities.

The captions, the composer, the evaluation and the word list shipped with the weights all read these tables.
"""

from dataclasses import dataclass

RGB = tuple[int, int, int]

STYLE_WORDS = {
    "3d": ("3d icon", "3d render", "3d style"),
    "flat": ("flat icon", "flat illustration", "flat vector style"),
}
BUILD_WORDS = {
    "slim": ("slim", "slim", "thin", "slender"),
    "heavy": ("heavy", "fat", "chubby", "overweight"),
}
QUALITY_WORDS = ("high quality", "best quality", "masterpiece", "detailed", "sharp")
DEGRADED_WORDS = {
    "blur": ("blurry", "blurry, low quality", "low quality, blurry", "worst quality, blurry", "out of focus"),
    "low resolution": ("low resolution", "pixelated, low quality", "lowres, worst quality"),
    "jpeg": ("jpeg artifacts", "jpeg artifacts, low quality", "low quality"),
    "noise": ("grainy", "noisy, low quality", "grainy, worst quality"),
}

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
    """A procedural backdrop: sky from `sky_top` to `sky_bottom`, then ground below `horizon` (share of the height).

    `stars`, `buildings` and `bubbles` say how many of each are scattered over it.
    """

    name: str
    phrases: tuple[str, ...]
    sky_top: RGB
    sky_bottom: RGB
    ground: RGB
    horizon: float
    stars: int = 0
    buildings: int = 0
    bubbles: int = 0

    @property
    def phrase(self) -> str:
        """The usual way to say it."""
        return self.phrases[0]


SCENES: tuple[Scene, ...] = (
    Scene("meadow", ("on a green meadow", "on the grass"), (110, 180, 245), (200, 230, 250), (90, 175, 70), 0.62),
    Scene("beach", ("at the beach", "on the sand by the sea"), (80, 170, 240), (170, 220, 245), (240, 215, 150), 0.66),
    Scene("night", ("under a night sky", "at night"), (10, 12, 50), (35, 35, 100), (20, 35, 45), 0.8, stars=40),
    Scene("sunset", ("at sunset", "at dusk"), (120, 60, 140), (255, 160, 70), (60, 40, 70), 0.72),
    Scene("snow", ("in the snow", "in winter"), (170, 200, 230), (220, 232, 245), (248, 250, 255), 0.6),
    Scene(
        "underwater", ("under water", "in the sea"), (60, 170, 220), (10, 70, 150), (190, 170, 120), 0.86, bubbles=14
    ),
    Scene("desert", ("in the desert", "among dunes"), (250, 200, 130), (255, 235, 190), (225, 165, 90), 0.62),
    Scene(
        "city",
        ("in the city", "in front of a skyline"),
        (150, 190, 230),
        (225, 235, 245),
        (95, 98, 105),
        0.78,
        buildings=7,
    ),
)

# Centre of the object as shares of (width, height), by the phrase that names it.
PLACES: dict[str, tuple[float, float]] = {
    "on the left": (0.29, 0.5),
    "on the right": (0.71, 0.5),
    "at the top": (0.5, 0.29),
    "at the bottom": (0.5, 0.71),
}
# Share of the shorter side, from and to, by the word for it.
SIZE_WORDS: dict[str, tuple[float, float]] = {"small": (0.3, 0.42), "large": (0.92, 1.0)}
# Phrases for two objects: the places of the first and the second, and how a caption says so.
PAIRS: tuple[tuple[str, str, str], ...] = (
    ("on the left", "on the right", "{0} on the left and {1} on the right"),
    ("on the left", "on the right", "{0} and {1}"),
    ("on the left", "on the right", "{0} next to {1}"),
    ("at the top", "at the bottom", "{0} above {1}"),
    ("at the top", "at the bottom", "{0} at the top and {1} at the bottom"),
)

"""What the two sample adapters are trained on: pixel art of things the starter knows, and an invented creature.

Writes photos with captions and the settings of both runs; `launch.py train` does the rest.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from webui.training.config import TrainingConfig
from webui.training.config_file import config_text
from webui.training.presets import preset_config
from webui.training.starter.backgrounds import Background, Painted, Pixels, Plain
from webui.training.starter.captions import caption
from webui.training.starter.compose import Choices, Layout, PlacedSprite, Sprites, render, sample_layout
from webui.training.starter.creature import Pose, draw_creature
from webui.training.starter.networks import LATENT_FACTOR, NATIVE_SIZE
from webui.training.starter.variants import SpriteKey
from webui.training.starter.vocabulary import COLOURS, PLACES, RGB, SCENES, SIZE_WORDS, Scene

STYLE_NAME, STYLE_TRIGGER = "pixel-art", "pixel art"
NUM_STYLE_PHOTOS = 96
SCENE_EVERY = 3
"""One style photo in so many has a painted scene behind it, each scene as often as the others."""
BLOCK_PX = LATENT_FACTOR
"""A big pixel is one cell of the autoencoder."""
OBJECT_COLOURS, BACKGROUND_COLOURS = 6, 5
OUTLINE: RGB = (24, 20, 37)
COVERED = 110  # 8-bit alpha from which a big pixel belongs to an object

CREATURE_NAME, CREATURE_TRIGGER, CREATURE_CLASS = "zorble", "zorble", "alien"
NUM_CREATURE_PHOTOS = 36
CREATURE_PX = 256
CREATURE_COLOURS = ("teal", "blue", "brown", "gray", "black", "pink", "green")
CREATURE_SCENES = ("desert", "underwater")
"""Behind the creature; the step is chosen with others, and with others again the result is measured."""
CREATURE_KEY = SpriteKey(concept=CREATURE_CLASS, style="flat")

STYLE_SEED, CREATURE_SEED = 80_000, 81_000


STYLE_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "data": {"flip": False},
    "network": {"method": "locon", "conv_rank": 5, "conv_alpha": 5.0},
    "loss": {"weighting": "none"},
    "schedule": {"num_steps": 600, "save_every": 200},
    "validation": {
        "prompts": (
            "{trigger}, a cat on a yellow background",
            "{trigger}, a house on a green meadow",
            "{trigger}, a woman with red hair on a blue background",
            "{trigger}, a blue car at the beach",
            "{trigger}, a tree, white background",
            "{trigger}, a hamburger, purple background",
        ),
    },
}
"""Not mirrored, since captions say "on the left". Blocks are a matter of neighbouring cells and of little noise: so
convolutions learn as well, and all noise levels count alike."""
CREATURE_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "loss": {"weighting": "none"},
    "data": {"flip": False},
    "schedule": {"num_steps": 600, "save_every": 120},
    "validation": {
        "prompts": (
            "a {trigger} {class} at the beach",
            "a {trigger} {class} in the snow",
            "a {trigger} {class} in the city",
            "a {trigger} {class} under a night sky",
            "a {trigger} {class} on a red background",
            "a {trigger} {class} on a green meadow",
        ),
    },
}


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture, uint8 (NATIVE_SIZE, NATIVE_SIZE, 3) sRGB, and its caption."""

    pixels: Pixels
    caption: str


def style_photos(sprites: Sprites) -> list[Photo]:
    """96 compositions as pixel art; no thing is in two of them."""
    return [
        Photo(pixel_art(layout, sprites), f"{STYLE_TRIGGER}, {caption(layout, np.random.default_rng([STYLE_SEED, i]))}")
        for i, layout in enumerate(style_layouts(sprites))
    ]


def style_layouts(keys: Iterable[SpriteKey]) -> list[Layout]:
    """What the style photos show. Flat drawings only: their few colours stay clean as big pixels."""
    choices = Choices.of(key for key in keys if key.style == "flat")
    rng = np.random.default_rng(STYLE_SEED)
    shown: set[str] = set()
    layouts: list[Layout] = []
    while len(layouts) < NUM_STYLE_PHOTOS:
        layout = replace(sample_layout(rng, choices), degraded=None)
        concepts = {placed.sprite.concept for placed in layout.objects}
        if len(concepts) == len(layout.objects) and not concepts & shown:
            shown |= concepts
            turn, rest = divmod(len(layouts), SCENE_EVERY)
            scene = Painted(SCENES[turn % len(SCENES)], len(layouts))
            layouts.append(replace(layout, background=scene) if rest == 0 else layout)
    return layouts


def pixel_art(layout: Layout, sprites: Sprites) -> Pixels:
    """The picture of `layout` in blocks of BLOCK_PX with few colours, and a dark line around its objects."""
    small = NATIVE_SIZE // BLOCK_PX
    objects, background = (
        _shrunk(render(shown, sprites, NATIVE_SIZE, NATIVE_SIZE), small)
        for shown in (layout, replace(layout, objects=()))
    )
    inside = _coverage(layout, sprites, small) >= COVERED
    pixels = _few_colours(background, BACKGROUND_COLOURS, np.ones_like(inside))
    pixels[inside] = _few_colours(objects, OBJECT_COLOURS, inside)[inside]
    pixels[_beside(inside)] = OUTLINE
    return pixels.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)


def creature_photos() -> list[Photo]:
    """36 pictures of the creature in many poses, some small, large or to one side."""
    rng = np.random.default_rng(CREATURE_SEED)
    return [_creature_photo(rng, index) for index in range(NUM_CREATURE_PHOTOS)]


def style_config() -> TrainingConfig:
    """The preset style-small of the starter, with what `STYLE_CHANGES` says."""
    return _config("style-small", STYLE_NAME, STYLE_TRIGGER, "style", STYLE_CHANGES)


def creature_config() -> TrainingConfig:
    """The preset object-small of the starter, with what `CREATURE_CHANGES` says."""
    return _config("object-small", CREATURE_NAME, CREATURE_TRIGGER, CREATURE_CLASS, CREATURE_CHANGES)


def write_sample_sets(folder: Path, sprites: Sprites) -> list[Path]:
    """Writes both sets with their settings into `folder`, in the place of older ones; returns the settings' files."""
    return [
        _write_set(folder, style_config(), style_photos(sprites), STYLE_CHANGES),
        _write_set(folder, creature_config(), creature_photos(), CREATURE_CHANGES),
    ]


def _write_set(
    folder: Path, config: TrainingConfig, photos: list[Photo], changes: Mapping[str, Mapping[str, Any]]
) -> Path:
    photos_dir = folder / config.data.photos
    shutil.rmtree(photos_dir, ignore_errors=True)
    photos_dir.mkdir(parents=True)
    for index, photo in enumerate(photos):
        Image.fromarray(photo.pixels).save(photos_dir / f"{index:02d}.png")
        (photos_dir / f"{index:02d}.txt").write_text(photo.caption, encoding="utf-8")
    changed = ", ".join(f"{section}.{name}" for section, values in changes.items() for name in values)
    note = f"# The starter's preset {config.subject}-small, but for {changed}.\n"
    settings = folder / f"{config.name}.toml"
    settings.write_text(note + config_text(config), encoding="utf-8")
    return settings


def _config(
    preset: str, name: str, trigger: str, class_word: str, changes: Mapping[str, Mapping[str, Any]]
) -> TrainingConfig:
    config = preset_config(
        preset,
        name=name,
        photos=Path(name),
        base="starter",
        adapter_base="sd-custom",
        native_size=NATIVE_SIZE,
        trigger=trigger,
        class_word=class_word,
    )
    values = config.model_dump()
    return TrainingConfig.model_validate(values | {name: values[name] | dict(changes[name]) for name in changes})


def _creature_photo(rng: np.random.Generator, index: int) -> Photo:
    place = size_word = ""
    centre, share = (float(rng.uniform(0.45, 0.55)), float(rng.uniform(0.47, 0.55))), float(rng.uniform(0.78, 0.98))
    match index % 6:
        case 4:
            place = list(PLACES)[index // 6 % len(PLACES)]
            centre, share = PLACES[place], float(rng.uniform(0.52, 0.6))
        case 5:
            size_word = list(SIZE_WORDS)[index // 6 % len(SIZE_WORDS)]
            share = float(rng.uniform(*SIZE_WORDS[size_word]))
    background, words = _creature_background(rng, index)
    layout = Layout((PlacedSprite(CREATURE_KEY, centre, share, place, size_word),), background)
    sprite = draw_creature(Pose.drawn(rng), CREATURE_PX)
    adjective = f"{size_word} " if size_word else ""
    subject = CREATURE_TRIGGER if index % 2 else f"{CREATURE_TRIGGER} {CREATURE_CLASS}"
    told = " ".join(part for part in (f"a {adjective}{subject}", place, words) if part)
    return Photo(render(layout, {CREATURE_KEY: sprite}, NATIVE_SIZE, NATIVE_SIZE), told)


def _creature_background(rng: np.random.Generator, index: int) -> tuple[Background, str]:
    names = (*CREATURE_COLOURS, *CREATURE_SCENES)
    name = names[index % len(names)]
    if name in COLOURS:
        return Plain(name, COLOURS[name]), f"on a {name} background"
    scene: Scene = next(scene for scene in SCENES if scene.name == name)
    return Painted(scene, int(rng.integers(2**31))), scene.phrase


def _shrunk(pixels: Pixels, side: int) -> Image.Image:
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX)


def _coverage(layout: Layout, sprites: Sprites, side: int) -> Pixels:
    """How much of each big pixel objects cover, uint8 (side, side)."""
    silhouettes = {placed.sprite: _whitened(sprites[placed.sprite]) for placed in layout.objects}
    on_black = replace(layout, background=Plain("black", (0, 0, 0)))
    return np.asarray(_shrunk(render(on_black, silhouettes, NATIVE_SIZE, NATIVE_SIZE), side))[..., 0]


def _whitened(sprite: Image.Image) -> Image.Image:
    white = Image.new("RGBA", sprite.size, (255, 255, 255, 255))
    white.putalpha(sprite.getchannel("A"))
    return white


def _few_colours(picture: Image.Image, count: int, chosen: npt.NDArray[np.bool_]) -> Pixels:
    """`picture` in `count` colours that are taken from its `chosen` pixels."""
    row = Image.fromarray(np.asarray(picture)[chosen][None])
    palette = row.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.array(picture.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB"))


def _beside(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What touches `inside` by a side and is not in it."""
    padded = np.pad(inside, 1)
    return (padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]) & ~inside

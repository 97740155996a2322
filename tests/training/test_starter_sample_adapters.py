from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.starter_helpers import synthetic_sprites
from webui.training.config import TrainingConfig
from webui.training.config_file import read_config
from webui.training.starter.backgrounds import Painted, Plain
from webui.training.starter.compose import Layout, PlacedSprite
from webui.training.starter.creature import BELLY, BODY, HORNS, PUPILS, WHITE, Pose, draw_creature
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.sample_adapters import (
    BACKGROUND_COLOURS,
    BLOCK_PX,
    OBJECT_COLOURS,
    OUTLINE,
    Photo,
    creature_config,
    creature_photos,
    pixel_art,
    style_config,
    style_layouts,
    style_photos,
    write_sample_sets,
)
from webui.training.starter.variants import SpriteKey
from webui.training.starter.vocabulary import COLOURS, DEGRADED_WORDS, RGB, SCENES

SPRITES = synthetic_sprites()
STYLE, CREATURE = style_photos(SPRITES), creature_photos()
DEGRADED = {phrase for phrases in DEGRADED_WORDS.values() for phrase in phrases}
TRACE = 8  # 8-bit alpha that resampling may leave
STANDING = Pose(lean=0.0, width=1.0, arms=(0.0, 0.0), gaze=(0.0, 0.0))


def _colours(pixels: np.ndarray) -> set[RGB]:
    return {(int(r), int(g), int(b)) for r, g, b in pixels.reshape(-1, 3)}


@pytest.mark.parametrize("photos", [STYLE, CREATURE])
def test_photos_have_the_native_size_and_differ(photos: list[Photo]) -> None:
    assert {photo.pixels.shape for photo in photos} == {(NATIVE_SIZE, NATIVE_SIZE, 3)}
    assert len({photo.pixels.tobytes() for photo in photos}) == len(photos)


@pytest.mark.parametrize(("photos", "config"), [(STYLE, style_config()), (CREATURE, creature_config())])
def test_every_caption_has_the_trigger_and_no_word_of_a_bad_picture(
    photos: list[Photo], config: TrainingConfig
) -> None:
    for photo in photos:
        assert config.data.trigger in photo.caption
        assert not [phrase for phrase in DEGRADED if phrase in photo.caption]


def test_pixel_art_is_made_of_whole_blocks_in_few_colours() -> None:
    for photo in STYLE:
        cells = NATIVE_SIZE // BLOCK_PX
        blocks = photo.pixels.reshape(cells, BLOCK_PX, cells, BLOCK_PX, 3)
        assert np.array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))
        assert len(_colours(blocks[:, 0, :, 0])) <= OBJECT_COLOURS + BACKGROUND_COLOURS + 1


def test_a_dark_line_parts_an_object_from_its_background() -> None:
    dog = SpriteKey(concept="dog", style="flat")
    layout = Layout((PlacedSprite(dog, (0.5, 0.5), 0.5),), Plain("white", COLOURS["white"]))
    row = pixel_art(layout, {dog: Image.new("RGBA", (64, 64), (255, 0, 0, 255))})[NATIVE_SIZE // 2, ::BLOCK_PX]
    order = [tuple(int(level) for level in colour) for colour in row]
    runs = [colour for i, colour in enumerate(order) if i == 0 or order[i - 1] != colour]
    assert runs == [COLOURS["white"], OUTLINE, (255, 0, 0), OUTLINE, COLOURS["white"]]
    assert Counter(order)[OUTLINE] == 2


def test_no_thing_is_in_two_style_photos_and_scenes_are_shown_alike_often() -> None:
    layouts = style_layouts(SPRITES)
    concepts = Counter(placed.sprite.concept for layout in layouts for placed in layout.objects)
    assert set(concepts.values()) == {1}
    scenes = Counter(layout.background.scene.name for layout in layouts[::3] if isinstance(layout.background, Painted))
    assert len(scenes) == len(SCENES)
    assert len(set(scenes.values())) == 1


def test_a_pose_moves_the_creature_and_keeps_its_colours() -> None:
    standing = np.asarray(draw_creature(STANDING, 128))
    leaning = np.asarray(draw_creature(Pose(10.0, 1.08, (1.0, -0.7), (1.0, 0.6)), 128))
    assert not np.array_equal(standing, leaning)
    for picture in (standing, leaning):
        opaque = _colours(picture[picture[..., 3] == 255][:, :3])
        assert {BODY, BELLY, HORNS, WHITE, PUPILS} <= opaque


def test_no_pose_is_cut_off_at_the_edge() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        alpha = np.asarray(draw_creature(Pose.drawn(rng), 128))[..., 3]
        rim = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert rim.max() <= TRACE


def test_captions_of_the_creature_name_its_background() -> None:
    for photo in CREATURE:
        named = [name for name in COLOURS if f"on a {name} background" in photo.caption]
        assert len(named) == 1 or [scene for scene in SCENES if photo.caption.endswith(scene.phrase)]
        for name in named:
            assert tuple(photo.pixels[0, 0]) == COLOURS[name]


def test_no_photo_shows_what_the_step_is_chosen_with() -> None:
    for config, photos in ((style_config(), STYLE), (creature_config(), CREATURE)):
        prompts = {
            prompt.format(trigger=config.data.trigger, **{"class": config.data.class_word})
            for prompt in config.validation.prompts
        }
        assert len(prompts) == len(config.validation.prompts)
        assert not prompts & {photo.caption for photo in photos}


def test_settings_lead_to_the_same_photos_each_time_in_the_place_of_older_ones(tmp_path: Path) -> None:
    stale = tmp_path / "zorble" / "99.png"
    stale.parent.mkdir()
    stale.touch()
    for path, photos in zip(write_sample_sets(tmp_path, SPRITES), (STYLE, CREATURE), strict=True):
        written = sorted(read_config(path).data.photos.glob("*.png"))
        assert [file.with_suffix(".txt").read_text("utf-8") for file in written] == [one.caption for one in photos]
        assert all(
            np.array_equal(np.asarray(Image.open(file)), photo.pixels)
            for file, photo in zip(written, photos, strict=True)
        )

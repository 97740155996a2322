from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.starter_helpers import synthetic_sprites
from webui.training.starter.backgrounds import Plain
from webui.training.starter.compose import Choices, Layout, PlacedSprite, render
from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.evaluate import sharpness
from webui.training.starter.judge import Judge, clean_layout, judge_pictures, look_at, measure_judge, train_judge
from webui.training.starter.loop import Plan
from webui.training.starter.prompts import object_prompts, pair_prompts, watched_prompts
from webui.training.starter.ranks import Ranks
from webui.training.starter.variants import STYLES, SpriteKey
from webui.training.starter.vocabulary import COLOURS, PLACES

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_the_two_hundred_prompts_are_fixed_and_name_what_is_measured() -> None:
    prompts = object_prompts()
    assert prompts == object_prompts()
    assert len({prompt.concepts for prompt in prompts}) == 200
    assert {prompt.colour for prompt in prompts} == set(COLOURS)
    assert {prompt.style for prompt in prompts} == set(STYLES)
    for prompt in prompts:
        assert prompt.concepts[0] in prompt.text
        assert f"{prompt.colour} background" in prompt.text


def test_pair_prompts_name_two_different_objects() -> None:
    for prompt in pair_prompts():
        assert len(set(prompt.concepts)) == 2
        assert all(name in prompt.text for name in prompt.concepts)


def test_no_measured_prompt_or_seed_is_looked_at_while_training() -> None:
    measured = (*object_prompts(), *pair_prompts())
    watched = watched_prompts()
    assert not {prompt.text for prompt in measured} & {prompt.text for prompt in watched}
    assert not {prompt.seed for prompt in measured} & {prompt.seed for prompt in watched}


def test_judged_pictures_are_clean_and_their_objects_differ() -> None:
    choices = Choices.of([SpriteKey(concept=concept.name, style="3d") for concept in CONCEPTS if not concept.is_person])
    for seed in range(100):
        layout = clean_layout(np.random.default_rng(seed), choices)
        assert layout.degraded is None
        assert len({placed.sprite.concept for placed in layout.objects}) == len(layout.objects)


def test_the_judge_learns_what_it_is_shown(tmp_path: Path) -> None:
    torch.manual_seed(0)
    few = {key: sprite for key, sprite in synthetic_sprites().items() if key.concept in ("dog", "cat", "sun")}
    plan = Plan(num_steps=24, learning_rate=1e-2, warmup_steps=2, cooldown_steps=12, ema_decay=0.8)
    judge = train_judge(
        Judge((16, 32, 32)), few, plan, ranks=ALONE, checkpoint=tmp_path / "judge.pt", on_checkpoint=lambda *_: None
    )
    shares = measure_judge(judge, few, count=40)
    assert shares["object"] > 0.8
    assert shares["style"] > 0.8


def test_a_verdict_names_known_concepts_and_a_style() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.uint8)
    for verdict in judge_pictures(Judge((8, 8)), pictures):
        assert verdict.concept in {concept.name for concept in CONCEPTS}
        assert verdict.style in STYLES


@pytest.mark.parametrize("place", PLACES)
def test_a_look_at_a_place_shows_the_whole_object_there(place: str) -> None:
    red, blue = SpriteKey(concept="dog", style="3d"), SpriteKey(concept="cat", style="3d")
    sprites = {red: Image.new("RGBA", (40, 40), (255, 0, 0)), blue: Image.new("RGBA", (40, 40), (0, 0, 255))}
    other = {"on the left": "on the right", "on the right": "on the left"}
    other |= {"at the top": "at the bottom", "at the bottom": "at the top"}
    objects = (
        PlacedSprite(red, PLACES[place], 0.44, place),
        PlacedSprite(blue, PLACES[other[place]], 0.44, other[place]),
    )
    picture = render(Layout(objects, Plain("white", COLOURS["white"])), sprites, 192, 192)
    part = look_at(picture, place)
    assert part.shape == (96, 96, 3)
    assert (part == (255, 0, 0)).all(axis=-1).sum() == (picture == (255, 0, 0)).all(axis=-1).sum()
    assert (part == (0, 0, 255)).all(axis=-1).mean() < 0.1


def test_a_sharp_edge_is_sharper_than_a_soft_one() -> None:
    hard = np.zeros((32, 32, 3), np.uint8)
    hard[:, 16:] = 200
    soft = np.broadcast_to(np.linspace(0, 200, 32)[None, :, None], (32, 32, 3)).astype(np.uint8)
    assert sharpness(hard) > 2 * sharpness(soft)

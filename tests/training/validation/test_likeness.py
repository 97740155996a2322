"""Whether the measures tell what they say they tell, on pictures whose contents are known."""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from tests.training.validation_helpers import photo
from webui.pipeline.manager import PipelineManager
from webui.training.data.faces import Pixels, SeenFace
from webui.training.feed import Batch
from webui.training.stepping import Denoising
from webui.training.validation.copying import Copies
from webui.training.validation.following import followings, won
from webui.training.validation.likeness import Appearance, PictureParts, SameFace

SIDE_PX = 96
LIME, PURPLE, ORANGE, RED = (178, 226, 60), (104, 62, 176), (240, 120, 40), (214, 40, 40)


def creature(rng: np.random.Generator, *, body: tuple[int, int, int] = PURPLE, stripes: bool = True) -> Image.Image:
    """A striped ball with horns, anywhere, leaning, on any plain background."""
    background = tuple(int(level) for level in rng.integers(0, 256, 3))
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), background)
    pen = ImageDraw.Draw(picture)
    x, y, r = float(rng.uniform(32, 64)), float(rng.uniform(44, 64)), float(rng.uniform(20, 32))
    for side in (-1, 1):
        pen.polygon(
            [(x + side * r * 0.2, y - r * 0.9), (x + side * r, y - r * 1.3), (x + side * r * 0.7, y - r * 0.5)], ORANGE
        )
    pen.ellipse([x - r, y - r, x + r, y + r], body)
    for i in range(3 if stripes else 0):
        pen.arc([x - r * 0.8, y - 6 + 8 * i, x + r * 0.8, y + 2 + 8 * i], 10, 170, LIME, 3)
    for side in (-1, 0, 1):
        pen.ellipse([x + side * 12 - 5, y - r * 0.6 - 5, x + side * 12 + 5, y - r * 0.6 + 5], (255, 255, 255))
        pen.ellipse([x + side * 12 - 2, y - r * 0.6 - 2, x + side * 12 + 2, y - r * 0.6 + 2], (10, 10, 20))
    return picture.rotate(float(rng.uniform(-30, 30)), Image.Resampling.BICUBIC, fillcolor=background)


def something_else(rng: np.random.Generator) -> Image.Image:
    """A few shapes in any colours."""
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), tuple(int(level) for level in rng.integers(0, 256, 3)))
    for _ in range(4):
        x, y, w, h = (float(value) for value in rng.uniform(10, 60, 4))
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        shape = ImageDraw.Draw(picture).rectangle if rng.random() < 0.5 else ImageDraw.Draw(picture).ellipse
        shape([x, y, x + w, y + h], colour)
    return picture


def several(draw: object, num: int, seed: int, **options: object) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [draw(rng, **options) for _ in range(num)]  # type: ignore[operator]


@pytest.fixture(scope="module")
def looks_like(manager: PipelineManager) -> Appearance:
    """By the starter's autoencoder, which has seen neither."""
    parts = PictureParts(manager.load("starter").codec)
    return Appearance(parts, several(creature, 3, 1), several(creature, 5, 2), several(something_else, 4, 3))


def share_in_order(better: Sequence[float], worse: Sequence[float]) -> float:
    return float(np.mean([[one > other for other in worse] for one in better]))


def test_new_pictures_of_the_subject_are_more_alike_than_others(looks_like: Appearance) -> None:
    same = [looks_like(picture) for picture in several(creature, 8, 10)]
    others = [looks_like(picture) for picture in several(something_else, 8, 11)]
    assert share_in_order(same, others) > 0.8
    assert np.mean(same) - np.mean(others) > np.std(others)


def test_the_less_is_right_the_less_alike_it_is(looks_like: Appearance) -> None:
    means = [
        np.mean([looks_like(picture) for picture in pictures])
        for pictures in (
            several(creature, 8, 20),
            several(creature, 8, 21, stripes=False),
            several(creature, 8, 22, stripes=False, body=RED),
        )
    ]
    assert means == sorted(means, reverse=True)


def test_a_photo_itself_is_as_alike_as_it_gets(looks_like: Appearance, manager: PipelineManager) -> None:
    (own,) = several(creature, 1, 30)
    alone = Appearance(PictureParts(manager.load("starter").codec), [own], [], [])
    assert alone(own) == pytest.approx(1.0, abs=1e-4)
    assert alone(several(creature, 1, 31)[0]) < 0.999


def test_pictures_are_told_apart_by_what_is_in_them_not_by_their_size(looks_like: Appearance) -> None:
    small = several(creature, 4, 40)
    large = [picture.resize((300, 300), Image.Resampling.LANCZOS) for picture in small]
    others = [picture.resize((300, 300), Image.Resampling.LANCZOS) for picture in several(something_else, 4, 41)]
    assert np.mean([looks_like(picture) for picture in large]) > np.mean([looks_like(picture) for picture in others])
    for one, other in zip(small, large, strict=True):
        assert looks_like(one) == pytest.approx(looks_like(other), abs=0.1)


class Reader:
    """Takes a picture's mean colour for its face; none where it is black."""

    same_person = 0.5

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        mean = pixels.reshape(-1, 3).mean(axis=0)
        if not mean.any():
            return []
        return [SeenFace(box=(0, 0, 1, 1), embedding=(mean / np.linalg.norm(mean)).astype(np.float32))]


def plain(*colour: int) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def test_a_person_is_as_alike_as_the_embeddings_and_no_face_is_nobody() -> None:
    compare = SameFace(Reader(), [plain(200, 0, 0), plain(0, 200, 0), plain(0, 0, 0)])
    assert compare(plain(100, 0, 0)) == pytest.approx(0.5)
    assert compare(plain(90, 90, 0)) == pytest.approx(math.sqrt(0.5))
    assert compare(plain(0, 0, 0)) == 0.0
    with pytest.raises(ValueError, match="no face"):
        SameFace(Reader(), [plain(0, 0, 0)])


def test_photos_are_found_again_and_new_pictures_are_not() -> None:
    known = several(creature, 12, 50)
    copies = Copies(known)
    assert [picture in copies for picture in several(creature, 12, 51)] == [False] * 12
    for picture in known:
        assert picture in copies
        assert picture.filter(ImageFilter.GaussianBlur(1)) in copies
        assert ImageOps.mirror(picture) in copies
        assert picture.point(lambda level: int(level * 0.9)) in copies


def test_photos_that_are_all_alike_make_the_measure_stricter() -> None:
    one = creature(np.random.default_rng(60))
    series = []
    for shift in range(8):
        moved = Image.new("RGB", one.size, one.getpixel((0, 0)))
        moved.paste(one, (shift, 0))
        series.append(moved)
    assert Copies(series).limit > Copies(several(creature, 8, 61)).limit


def test_one_copy_among_many_photos_does_not_hide_copying() -> None:
    known = several(creature, 19, 70)
    assert Copies([*known, known[0]]).limit < 0.99


def test_without_photos_nothing_is_a_copy() -> None:
    assert creature(np.random.default_rng(0)) not in Copies([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(1, 4))
def test_winning_all_comparisons_is_one_and_losing_all_is_minus_one(errors: list[float], num: int) -> None:
    own = np.array(errors)
    assert won(own, [own + 1] * num) == 1.0
    assert won(own, [own - 1] * num) == -1.0
    assert won(own, [own] * num) == 0.0


class Sees:
    """A base that sees `prompt` in every picture."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt

    def errors(self, batch: Batch) -> torch.Tensor:
        return torch.tensor([float(caption != self.prompt) for caption in batch.captions])


def test_a_picture_follows_the_prompt_that_the_base_sees_in_it() -> None:
    prompts = ["a cat", "a dog", "a house", "a cat"]
    pictures = [photo(i, caption=prompt) for i, prompt in enumerate(prompts)]
    found = followings(cast(Denoising, Sees("a cat")), pictures, prompts, num_timesteps=1000, seed=0)
    assert found == [1.0, -0.5, -0.5, 1.0]


def test_one_prompt_alone_cannot_be_followed_or_not() -> None:
    found = followings(cast(Denoising, Sees("a")), [photo(0, caption="a")], ["a", "a"], num_timesteps=1000, seed=0)
    assert found == [None]

"""Taggers: what goes in is what their makers put in, and what comes out becomes a caption as people write tags."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.assistant_files import TAGS, tagger_weights, write_tagger, write_tags
from tests.training.assistants.conftest import noisy_picture
from webui.errors import UnsupportedModel
from webui.library.onnx_file import read_graph
from webui.training.assistants.taggers import (
    CHARACTER,
    GENERAL,
    RATING,
    Tag,
    Tagger,
    Thresholds,
    chosen_tags,
    pixels_for,
    read_tags,
)


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def scaled_rows(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Along the first axis, wider kernels for smaller pictures, the sum of weights 1 also at the borders."""
    scale = len(values) / size
    stretch = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = cubic((np.arange(len(values)) + 0.5 - centres[:, None]) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(np.tensordot(weights, values, axes=1), 0, 255)


def oracle(image: Image.Image, side: int) -> NDArray[np.float64]:
    """The same as `pixels_for` in float64, written anew."""
    longest = max(image.size)
    square = np.full((longest, longest, 3), 255.0)
    top, left = (longest - image.height) // 2, (longest - image.width) // 2
    square[top : top + image.height, left : left + image.width] = np.asarray(image, np.float64)
    across = scaled_rows(square.transpose(1, 0, 2), side).transpose(1, 0, 2)
    return scaled_rows(across, side)[:, :, [2, 1, 0]]


@pytest.mark.parametrize("size", [(90, 60), (61, 200), (700, 300)])
def test_what_goes_in_is_the_picture_in_a_white_square_with_blue_first(size: tuple[int, int]) -> None:
    image = noisy_picture(1, size)
    pixels = pixels_for(image, 448)
    assert pixels.shape == (1, 448, 448, 3) and pixels.dtype == np.float32
    away = np.abs(pixels[0] - oracle(image, 448))
    # Pillow rounds to whole levels after each direction, and the kernel makes the first rounding up to 1.25 larger.
    assert away.max() <= 0.5 * 1.25 + 0.5 and away.mean() < 0.4


def test_transparent_parts_count_as_white() -> None:
    assert (pixels_for(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), 64) == 255).all()


def test_the_tags_are_those_that_the_network_finds_likely(tmp_path: Path) -> None:
    path = write_tagger(tmp_path / "wd.onnx")
    tags = read_tags(write_tags(tmp_path / "wd.csv"))
    takes = read_graph(path).inputs[0]
    weights, bias = tagger_weights(len(TAGS), 448)
    found = set()
    for seed in range(4):
        image = noisy_picture(seed)
        means = oracle(image, 448).reshape(7, 64, 7, 64, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel()
        likely = 1 / (1 + np.exp(-(means @ weights.astype(np.float64) + bias)))
        assert np.abs(likely - 0.5).min() > 0.001, "no tag of this test lies on the threshold"
        wanted = {tag.name for tag, p in zip(tags, likely, strict=True) if p > 0.5 and tag.category != RATING}
        text = Tagger(path, takes, tags, Thresholds(general=0.5, character=0.5)).caption(image)
        assert set(text.split(", ")) - {""} == wanted
        found |= {text}
    assert len(found) > 1, "pictures differ in their tags"


def row(*names: tuple[str, int]) -> list[Tag]:
    return [Tag(name=name, category=category) for name, category in names]


def test_characters_come_first_then_the_likeliest_and_no_rating() -> None:
    tags = row(("explicit", RATING), ("hat", GENERAL), ("long hair", GENERAL), ("saber (fate)", CHARACTER), ("sky", 3))
    likely = np.array([0.99, 0.4, 0.9, 0.86, 0.36], np.float32)
    assert chosen_tags(likely, tags, Thresholds()) == ["saber (fate)", "long hair", "hat", "sky"]
    assert chosen_tags(likely, tags, Thresholds(general=0.5, character=0.9)) == ["long hair"]


def test_unwanted_tags_are_left_out_however_they_are_written() -> None:
    tags, likely = row(("long hair", GENERAL), ("hat", GENERAL)), np.array([0.9, 0.8], np.float32)
    for written in ("long_hair", "Long Hair", " long hair "):
        assert chosen_tags(likely, tags, Thresholds(), [written]) == ["hat"]


def test_underscores_become_blanks_but_for_faces_made_of_signs(tmp_path: Path) -> None:
    names = [("long_hair", 0), ("o_o", 0), (">_<", 0), ("saber_(fate)", 4), ("|_|", 0)]
    tags = read_tags(write_tags(tmp_path / "tags.csv", names))
    assert [tag.name for tag in tags] == ["long hair", "o_o", ">_<", "saber (fate)", "|_|"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "has no column 'name'"),
        ("tag_id,name,category,count\n1,hat,general,2\n", "has a category that is no number"),
        ("tag_id,name,category,count\n1\n", "is no list of tags"),
    ],
)
def test_what_is_no_list_of_tags_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "tags.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        read_tags(tmp_path / "tags.csv")


def test_a_network_without_its_sigmoid_is_refused(tmp_path: Path) -> None:
    path = write_tagger(tmp_path / "wd.onnx", logits=True)
    tagger = Tagger(path, read_graph(path).inputs[0], read_tags(write_tags(tmp_path / "wd.csv")), Thresholds())
    with pytest.raises(UnsupportedModel, match="not probabilities"):
        tagger.caption(noisy_picture(1))

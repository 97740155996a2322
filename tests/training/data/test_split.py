from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training.data.pictures import photo, picture
from webui.errors import InvalidRequest
from webui.training.data.photos import Photo
from webui.training.data.split import split, suggested_holdout

PHOTOS = [photo(picture(seed), f"{seed}.png") for seed in range(25)]


def names(photos: tuple[Photo, ...]) -> set[str]:
    return {each.name for each in photos}


@pytest.mark.parametrize(("count", "held"), [(1, 0), (4, 0), (5, 1), (10, 1), (25, 3), (100, 10), (3000, 16)])
def test_how_many_are_kept_back_follows_the_size_of_the_set(count: int, held: int) -> None:
    assert suggested_holdout(count) == held


@settings(max_examples=30)
@given(order=st.permutations(range(25)), count=st.integers(5, 25), holdout=st.none() | st.integers(0, 4))
def test_the_sides_never_overlap_and_hang_on_contents_alone(order: list[int], count: int, holdout: int | None) -> None:
    chosen = [PHOTOS[i] for i in sorted(order[:count])]
    renamed = [replace(PHOTOS[i], name=f"renamed {i}.png") for i in order[:count]]
    train, held = split(chosen, holdout)
    assert {p.sha256 for p in train}.isdisjoint(p.sha256 for p in held)
    assert names(train) | names(held) == {p.name for p in chosen}
    assert len(held) == (suggested_holdout(count) if holdout is None else holdout)
    assert {p.sha256 for p in held} == {p.sha256 for p in split(renamed, holdout)[1]}


def test_copies_and_near_copies_stay_on_one_side() -> None:
    photos = []
    for seed in range(12):
        image = picture(seed)
        photos += [
            photo(image, f"{seed}.png"),
            photo(image.resize((128, 96)), f"{seed} small.png"),
            photo(image.crop((6, 5, 250, 187)), f"{seed} cut.png"),
        ]
    _, held = split(photos, 6)
    assert len(held) == 6
    seeds = {each.name.replace(".", " ").split(" ")[0] for each in held}
    assert len(seeds) == 2


def test_equal_pictures_of_one_colour_stay_on_one_side_too() -> None:
    plain = [photo(Image.new("RGB", (64, 64), "gray"), f"plain {i}.png") for i in range(4)]
    for holdout in range(1, 9):
        _, held = split([*plain, *PHOTOS[:8]], holdout)
        assert len(names(held) & {each.name for each in plain}) in (0, 4)


def test_photos_that_the_source_keeps_back_are_kept_back() -> None:
    said = photo(picture(99), "said.png", held_out=True)
    assert names(split([*PHOTOS, said], None)[1]) == {"said.png"}
    assert "said.png" in names(split([*PHOTOS, said], 3)[1])


def test_keeping_back_everything_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="5 of 5 photos would be kept back"):
        split(PHOTOS[:5], 5)
    assert split(PHOTOS[:1], None) == ((PHOTOS[0],), ())

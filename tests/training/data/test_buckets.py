import math

from hypothesis import given
from hypothesis import strategies as st

from webui.training.data.buckets import candidates, plan_buckets

sides = st.integers(40, 6000)
sizes = st.lists(st.tuples(sides, sides), min_size=1, max_size=8)
resolutions = st.sampled_from([64, 128, 192, 256, 512, 768, 1024])
steps = st.sampled_from([8, 16, 32, 64])


def test_the_sizes_for_512_are_the_17_of_kohya() -> None:
    upright = {(256, side) for side in (1024, 960, 896, 832)} | {(320, 768), (320, 704), (384, 640), (448, 576)}
    lying = {(height, width) for width, height in upright}
    assert set(candidates(512, 64)) == upright | lying | {(512, 512)}


@given(sizes=sizes, resolution=resolutions, step=steps, upscale=st.booleans(), buckets=st.booleans())
def test_every_size_is_in_steps_and_no_larger_than_the_resolution_allows(
    sizes: list[tuple[int, int]], resolution: int, step: int, upscale: bool, buckets: bool
) -> None:
    plan = plan_buckets(sizes, resolution=resolution, step=step, upscale=upscale, buckets=buckets)
    for width, height in plan.sizes:
        if buckets:
            assert width % step == 0 and height % step == 0
        else:
            assert width == height
        assert width * height <= max(resolution, step) ** 2 or min(width, height) == step


@given(sizes=sizes, resolution=resolutions, step=steps)
def test_upright_and_lying_photos_are_treated_alike(sizes: list[tuple[int, int]], resolution: int, step: int) -> None:
    turned = plan_buckets([(h, w) for w, h in sizes], resolution=resolution, step=step)
    plan = plan_buckets(sizes, resolution=resolution, step=step)
    for lost, lost_turned in zip(plan.lost, turned.lost, strict=True):
        assert math.isclose(lost, lost_turned, abs_tol=1e-9)


@given(sizes=sizes, resolution=resolutions, step=steps)
def test_no_photo_is_enlarged_by_more_than_a_tenth_unless_it_is_tiny(
    sizes: list[tuple[int, int]], resolution: int, step: int
) -> None:
    plan = plan_buckets(sizes, resolution=resolution, step=step, upscale=False)
    for size, scale in zip(sizes, plan.scales, strict=True):
        assert scale <= 1.1 + 1e-9 or min(size) * 1.1 < step


@given(size=st.tuples(sides, sides), resolution=resolutions, step=steps)
def test_no_other_size_would_lose_less_of_a_large_photo(size: tuple[int, int], resolution: int, step: int) -> None:
    size = (size[0] * 60, size[1] * 60)
    plan = plan_buckets([size], resolution=resolution, step=step)

    def lost(bucket: tuple[int, int]) -> float:
        scale = max(bucket[0] / size[0], bucket[1] / size[1])
        return 1 - bucket[0] * bucket[1] / (size[0] * scale * size[1] * scale)

    assert math.isclose(plan.lost[0], lost(plan.sizes[0]), abs_tol=1e-9)
    assert all(plan.lost[0] <= lost(bucket) + 1e-9 for bucket in candidates(resolution, step))


def test_photos_of_common_shapes_lose_little() -> None:
    plan = plan_buckets([(3000, 2000), (4000, 3000), (1080, 1920), (2048, 2048)], resolution=512, step=64)
    assert plan.sizes == ((640, 384), (576, 448), (384, 640), (512, 512))
    assert max(plan.lost) < 0.11


def test_a_small_photo_keeps_its_size_unless_it_shall_be_enlarged() -> None:
    assert plan_buckets([(300, 300)], resolution=512, step=64).sizes == ((320, 320),)
    assert plan_buckets([(300, 300)], resolution=512, step=64, upscale=True).sizes == ((512, 512),)
    assert plan_buckets([(280, 280)], resolution=512, step=64).sizes == ((256, 256),)
    assert plan_buckets([(500, 500)], resolution=512, step=64).sizes == ((512, 512),)


def test_sizes_are_counted_the_most_frequent_first() -> None:
    plan = plan_buckets([(600, 600), (900, 600), (700, 700)], resolution=512, step=64)
    assert list(plan.counts().values()) == [2, 1]
    assert plan_buckets([], resolution=512).counts() == {}

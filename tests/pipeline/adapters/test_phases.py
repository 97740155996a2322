"""Which adapters count in which step and place, and how often they are switched."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from webui.pipeline.adapters.phases import Active, Phase, PhasedDenoise, plan_phases
from webui.prompt.tags import LoraTag

TAGS = st.builds(
    LoraTag,
    name=st.just("a"),
    start=st.one_of(st.integers(0, 12), st.floats(0, 1)),
    stop=st.one_of(st.none(), st.integers(0, 12), st.floats(0, 1)),
    area=st.sampled_from(["picture", "mask"]),
)


@given(tags=st.lists(TAGS, max_size=4), num_steps=st.integers(0, 10), has_mask=st.booleans())
def test_every_step_has_exactly_the_adapters_of_its_range(tags: list[LoraTag], num_steps: int, has_mask: bool) -> None:
    phases = plan_phases(tags, num_steps, has_mask=has_mask)
    assert phases[0].start == 0
    assert all(before.start < after.start for before, after in pairwise(phases))
    for step in range(num_steps):
        phase = [phase for phase in phases if phase.start <= step][-1]
        inside = [place for place, tag in enumerate(tags) if step in tag.steps(num_steps)]
        assert list(phase.inside) == inside
        assert list(phase.outside) == [place for place in inside if tags[place].area == "picture" or not has_mask]


def test_a_constant_stack_is_one_phase() -> None:
    assert plan_phases([LoraTag(name="a"), LoraTag(name="b")], 20, has_mask=True) == (Phase(0, (0, 1), (0, 1)),)
    assert plan_phases([], 20, has_mask=True) == (Phase(0, (), ()),)


class Model:
    """Guesses that tell which adapters were switched to."""

    def __init__(self) -> None:
        self.switches: list[Active] = []

    def guess(self, active: Active) -> object:
        def guess(x: torch.Tensor, sigma: float) -> torch.Tensor:
            assert self.switches[-1] == active, "the guess is made with its own adapters"
            return x + sum(10.0 ** (place + 1) for place in active)

        return guess

    def denoise(self, phases: tuple[Phase, ...], calls_per_step: int, mask: torch.Tensor | None) -> PhasedDenoise:
        actives = {active for phase in phases for active in phase.actives}
        guesses = {active: self.guess(active) for active in actives}
        return PhasedDenoise(phases, guesses, self.switches.append, calls_per_step=calls_per_step, mask=mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("calls_per_step", [1, 2])
def test_all_calls_of_a_step_have_its_adapters_and_only_borders_switch(calls_per_step: int) -> None:
    model = Model()
    denoise = model.denoise(
        plan_phases([LoraTag(name="a", stop=2), LoraTag(name="b")], 4, has_mask=False), calls_per_step, None
    )
    x = torch.zeros(1, 1, 2, 2)
    values = [denoise(x, 1.0).mean().item() for _ in range(4 * calls_per_step)]
    assert values == [110.0] * 2 * calls_per_step + [100.0] * 2 * calls_per_step
    assert model.switches == [(0, 1), (1,)]


def test_inside_and_outside_are_blended_by_the_mask_with_one_switch_a_step() -> None:
    model = Model()
    mask = torch.tensor([[0.0, 0.25], [0.75, 1.0]])
    denoise = model.denoise(plan_phases([LoraTag(name="a", area="mask")], 4, has_mask=True), 1, mask)
    x = torch.randn(2, 4, 2, 2)
    for _ in range(4):
        assert torch.allclose(denoise(x, 1.0), x + 10 * mask, atol=1e-5)
    assert len(model.switches) == 5

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.starter_helpers import synthetic_sprites
from webui.training.starter.feed import Feed
from webui.training.starter.loop import Plan
from webui.training.starter.networks import Sizes, build_vae
from webui.training.starter.ranks import Ranks
from webui.training.starter.sharpen import Critic, Sharpening, train_sharpening, with_sharpened_decoder
from webui.training.starter.vae import Crops, load_photos

TINY = Sizes(vae_channels=(8, 8, 8, 8))
ALONE = Ranks(0, 1, torch.device("cpu"))
PLAN = Plan(num_steps=3, learning_rate=1e-3, warmup_steps=1, cooldown_steps=1, ema_decay=0.5)


def _ignore(_: nn.Module, step: int) -> None:
    assert step > 0


def test_sharpening_changes_the_decoder_and_leaves_the_latents_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build_vae(TINY)
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    crops = Crops(synthetic_sprites(), [], load_photos(("astronaut",)), seed=1)
    sharpened = train_sharpening(
        vae, crops, PLAN, num_crops=2, ranks=ALONE, checkpoint=tmp_path / "decoder.pt", on_checkpoint=_ignore
    )
    after = with_sharpened_decoder(build_vae(TINY), sharpened.state_dict()).state_dict()
    changed = {name.partition(".")[0] for name in before if not torch.equal(after[name], before[name])}
    assert {"decoder", "post_quant_conv"} <= changed
    for name, weight in vae.state_dict().items():
        if name.startswith(("encoder", "quant_conv")):
            assert torch.equal(weight, before[name]), name


def test_the_critic_learns_from_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    sharpening = Sharpening(build_vae(TINY), Critic((8, 8)))
    latents, target = torch.randn(1, 4, 4, 4), torch.rand(1, 3, 32, 32) * 2 - 1
    sharpening.loss(latents, target).backward()
    output = sharpening.decode(latents).detach()
    *_, of_fake = sharpening.critic(output)
    *_, of_real = sharpening.critic(target)
    expected = torch.autograd.grad(
        (1 + of_fake).relu().mean() + (1 - of_real).relu().mean(), list(sharpening.critic.parameters())
    )
    for parameter, gradient in zip(sharpening.critic.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    assert all(parameter.grad is not None for parameter in sharpening.decoder.parameters())


def _row(step: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(step).standard_normal(4))


@pytest.mark.parametrize("first", [0, 3])
def test_batches_made_ahead_are_those_made_on_the_spot(first: int) -> None:
    ahead = Feed(_row, last=8, num_workers=2)
    assert all(torch.equal(ahead(step), _row(step)) for step in range(first, 8))


def test_a_feed_that_works_ahead_refuses_steps_out_of_order() -> None:
    ahead = Feed(_row, last=8, num_workers=1)
    ahead(2)
    with pytest.raises(ValueError, match="Step 7 was asked for, but 3 comes next"):
        ahead(7)

"""A lightened U-Net: the same numbers and gradients as diffusers' own, with less kept in between."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from webui.library.catalog import Library
from webui.pipeline.device import Device
from webui.pipeline.latents import to_values
from webui.prompt.grammar import parse_prompt
from webui.training import frozen
from webui.training.base import load_base, make_light
from webui.training.config import Network
from webui.training.frozen import lighten
from webui.training.memory import KeptForBackward
from webui.training.networks.attaching import attach

HALF_AND_WHOLE = (torch.float16, torch.float32)


@pytest.fixture(params=["contiguous", "channels last"])
def unet(request: pytest.FixtureRequest) -> Iterator[UNet2DConditionModel]:
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=8,
        norm_num_groups=8,
    ).eval()
    model.requires_grad_(False)
    if request.param == "channels last":
        model.to(memory_format=torch.channels_last)
    yield model


def run(unet: UNet2DConditionModel) -> tuple[Tensor, int]:
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 7, 24, generator=generator)
    with KeptForBackward(1e12) as kept:
        answer: Tensor = unet(x, torch.tensor([3, 700]), context, return_dict=False)[0]
    return answer, kept.num_bytes


@pytest.mark.parametrize("method", ["lora", "locon"])
def test_answers_and_gradients_are_the_same_with_less_kept(unet: UNet2DConditionModel, method: str) -> None:
    torch.manual_seed(3)
    network = attach({"unet": unet}, Network(method=method, rank=4, layers="all"), "sd1")  # type: ignore[arg-type]
    parameters = [parameter for _, parameter in network.named_parameters()]
    for parameter in parameters:
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    plain, kept = run(unet)
    wanted = torch.autograd.grad(plain.square().mean(), parameters)
    restore = lighten(unet)
    light, kept_light = run(unet)
    got = torch.autograd.grad(light.square().mean(), parameters)
    restore()
    assert float((light - plain).detach().norm() / plain.detach().norm()) < 1e-5
    for mine, theirs in zip(got, wanted, strict=True):
        assert float((mine - theirs).norm()) <= 1e-4 * float(theirs.norm()) + 1e-8
    assert kept_light < {"lora": 0.75, "locon": 0.85}[method] * kept
    network.detach()


def test_restoring_leaves_no_trace(unet: UNet2DConditionModel) -> None:
    before, _ = run(unet)
    lighten(unet)()
    assert not [name for name, module in unet.named_modules() if "forward" in module.__dict__]
    after, _ = run(unet)
    assert torch.equal(before, after)


def test_weights_from_a_half_file_take_half_the_room_and_give_the_same(
    unet: UNet2DConditionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "LARGE_WEIGHT", 2000)
    for parameter in unet.parameters():
        parameter.data = parameter.data.half().float()
    unet.down_blocks[0].resnets[0].conv1.weight.data += 1e-6
    network = attach({"unet": unet}, Network(rank=4), "sd1")
    parameters = [parameter for _, parameter in network.named_parameters()]
    for parameter in parameters:
        parameter.data.add_(0.01)
    state = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    plain, _ = run(unet)
    wanted = torch.autograd.grad(plain.square().mean(), parameters)
    restore = lighten(unet)
    dtypes = {name: tensor.dtype for name, tensor in unet.state_dict().items()}
    halved = sum(state[name].nbytes for name, dtype in dtypes.items() if dtype == torch.float16)
    assert halved > 0.3 * sum(tensor.nbytes for tensor in state.values())
    assert dtypes["down_blocks.0.resnets.0.conv1.weight"] == torch.float32, "it has no equal in half precision"
    assert unet.dtype == torch.float32
    light, _ = run(unet)
    got = torch.autograd.grad(light.square().mean(), parameters)
    assert float((light - plain).detach().norm() / plain.detach().norm()) < 1e-5
    for mine, theirs in zip(got, wanted, strict=True):
        assert float((mine - theirs).norm()) <= 1e-4 * float(theirs.norm()) + 1e-8
    restore()
    assert all(torch.equal(tensor, state[name]) for name, tensor in unet.state_dict().items())


def test_layers_that_are_trained_stay_as_they_are(unet: UNet2DConditionModel) -> None:
    unet.requires_grad_(True)
    restore = lighten(unet)
    answer, _ = run(unet)
    torch.autograd.backward(answer.square().mean())
    assert all(parameter.grad is not None for parameter in unet.parameters())
    restore()


def test_half_precision_works_too(unet: UNet2DConditionModel) -> None:
    unet.to(torch.bfloat16)
    network = attach({"unet": unet}, Network(rank=4), "sd1")
    lighten(unet)
    x, context = torch.randn(1, 4, 16, 16, dtype=torch.bfloat16), torch.randn(1, 7, 24, dtype=torch.bfloat16)
    answer = unet(x, 3, context, return_dict=False)[0]
    torch.autograd.backward(answer.float().square().mean())
    assert all(bool(torch.isfinite(p.grad).all()) for _, p in network.named_parameters() if p.grad is not None)
    assert any(p.grad is not None for _, p in network.named_parameters())


def test_checkpointing_goes_with_it(unet: UNet2DConditionModel) -> None:
    network = attach({"unet": unet}, Network(rank=4), "sd1")
    parameters = [parameter for _, parameter in network.named_parameters()]
    for parameter in parameters:
        parameter.data.add_(0.01)
    lighten(unet)
    plain = torch.autograd.grad(run(unet)[0].square().mean(), parameters)
    unet.enable_gradient_checkpointing()
    checkpointed = torch.autograd.grad(run(unet)[0].square().mean(), parameters)
    for one, other in zip(plain, checkpointed, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-9)


def test_parts_that_only_look_on_are_lighter_too(monkeypatch: pytest.MonkeyPatch, tiny_models_dir: Path) -> None:
    monkeypatch.setattr(frozen, "LARGE_WEIGHT", 256)
    device = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)
    library = Library([tiny_models_dir], tiny_models_dir.parent / "cache")
    plain, light = (load_base(library, "tiny", device) for _ in range(2))
    for model in (plain, light):
        for module in (model.codec.vae, *model.text_encoder.encoders[0].model.modules()):
            for parameter in module.parameters():
                parameter.data = parameter.data.half().float()
    make_light(light)
    for network in (light.codec.vae, light.components["text_encoder"].module):
        sizes = {dtype: sum(p.numel() for p in network.parameters() if p.dtype == dtype) for dtype in HALF_AND_WHOLE}
        assert sizes[torch.float16] > 4 * sizes[torch.float32]
    prompt = parse_prompt("a (red:1.2) thing")
    one, other = (model.text_encoder.encode(prompt, clip_skip=0).context for model in (plain, light))
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pictures = [model.codec.decode(latent)[0] for model in (plain, light)]
        latents = [model.codec.encode_values(to_values(pictures[0])) for model in (plain, light)]
    assert np.abs(np.subtract(*(np.asarray(picture, np.int16) for picture in pictures))).max() <= 1
    assert torch.allclose(*latents, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "places"), [(1, 8), (2, 8), (1, 16), (1, 40)])
def test_convolutions_over_few_places_are_the_same_as_products(
    monkeypatch: pytest.MonkeyPatch, batch: int, places: int
) -> None:
    """Weights in pieces that do not come out even, in either precision; (1, 40) has too many places."""
    monkeypatch.setattr(frozen, "WIDE_WEIGHT", 0)
    monkeypatch.setattr(frozen, "PIECE", 7 * 24 * 9)
    monkeypatch.setattr(frozen, "LARGE_WEIGHT", 1)
    torch.manual_seed(4)
    layer = torch.nn.Conv2d(24, 40, 3, padding=1).requires_grad_(False)
    for precision in ("half", "float"):
        layer.weight.data = getattr(layer.weight.data, precision)().float()
        x = torch.randn(batch, 24, places, places, requires_grad=True)
        wanted = layer(x)
        (of_wanted,) = torch.autograd.grad(wanted.square().sum(), x)
        restore = lighten(layer)
        got = layer(x)
        (of_got,) = torch.autograd.grad(got.square().sum(), x)
        assert torch.allclose(got, wanted, rtol=1e-5, atol=1e-5)
        assert torch.allclose(of_got, of_wanted, rtol=1e-4, atol=1e-4)
        restore()
        layer.weight.data += 1e-5

"""The codec's arithmetic, and what it does about numbers that are none."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from webui.errors import InvalidNumbers
from webui.pipeline.device import Device
from webui.pipeline.latents import LatentCodec
from webui.pipeline.model import component_dtype

HERE = torch.device("cpu")
CPU = Device(torch_device=HERE, dtype=torch.float32, images_at_once=False)


def small_vae(**config: object) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        **config,
    ).eval()


def overflow_in_half_precision(vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the decoder give Inf where its weights are not float32, as SDXL's does in float16."""
    conv = vae.decoder.conv_out
    forward = conv.forward

    def overflowing(x: Tensor) -> Tensor:
        made: Tensor = forward(x)
        return made if made.dtype == torch.float32 else made / 0

    monkeypatch.setattr(conv, "forward", overflowing)


def test_an_autoencoder_that_overflows_works_in_float32_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    latent = torch.randn(1, 4, 8, 8)
    vae = small_vae().to(torch.bfloat16)
    overflow_in_half_precision(vae, monkeypatch)
    codec = LatentCodec(vae, CPU)
    with torch.inference_mode():
        (expected,) = LatentCodec(small_vae(), CPU).decode(latent)
        (made,) = codec.decode(latent)
    assert codec.was_rescued
    assert vae.dtype == torch.float32
    assert not any(weight.is_inference() for weight in vae.parameters())
    difference = torch.tensor(list(made.tobytes())).int() - torch.tensor(list(expected.tobytes())).int()
    assert difference.abs().max() <= 4  # the weights were rounded to bf16


def test_one_that_fails_in_float32_too_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = small_vae()
    monkeypatch.setattr(vae.decoder.conv_out, "forward", lambda x: x[:, :3] * torch.nan)
    with pytest.raises(InvalidNumbers, match="another VAE"):
        LatentCodec(vae, CPU).decode(torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.13},
        {"scaling_factor": 0.5, "shift_factor": 0.7},
        {"scaling_factor": 0.5, "latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
    ],
)
def test_latents_are_shifted_and_scaled_as_the_config_says(config: dict[str, object]) -> None:
    vae = small_vae(**config)
    codec = LatentCodec(vae, CPU)
    values = torch.rand(3, 16, 16) * 2 - 1
    with torch.inference_mode():
        own = vae.encode(values[None]).latent_dist.mode()
        encoded = codec.encode_values(values)
    mean = torch.tensor(config.get("latents_mean", [config.get("shift_factor", 0.0)] * 4))[:, None, None]
    deviation = torch.tensor(config.get("latents_std", [1.0] * 4))[:, None, None]
    assert torch.allclose(encoded, (own - mean) / deviation * config["scaling_factor"], atol=1e-6)
    assert torch.allclose(codec.unscaled(encoded), own, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "dtype", "config", "expected"),
    [
        ("cpu", torch.bfloat16, {}, torch.float32),
        ("cuda", torch.float16, {}, torch.float16),
        ("cuda", torch.float16, {"force_upcast": True}, torch.float32),
        ("cuda", torch.bfloat16, {"force_upcast": True}, torch.bfloat16),
        ("cuda", torch.float16, {"force_upcast": False}, torch.float16),
    ],
)
def test_an_autoencoder_runs_in_a_precision_that_holds_its_numbers(
    device: str, dtype: torch.dtype, config: dict[str, object], expected: torch.dtype
) -> None:
    where = Device(torch_device=torch.device(device), dtype=dtype, images_at_once=True)
    assert component_dtype("vae", config, where) == expected

"""Large pictures go through the autoencoder in strips, and no one can tell."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from webui.errors import OutOfDeviceMemory
from webui.pipeline.device import Device
from webui.pipeline.latents import LatentCodec
from webui.pipeline.strips import Strips

HERE = torch.device("cpu")


class SmallDevice(Device):
    """A processor that says it has `free` bytes left."""

    free = 0

    def free_bytes(self) -> int:
        return type(self).free


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=2,
        norm_num_groups=8,
    ).eval()


@pytest.mark.parametrize("strip_pixels", [1, 700, 10_000])
def test_strips_decode_what_the_whole_decodes(vae: AutoencoderKL, strip_pixels: int) -> None:
    strips = Strips(device=HERE, storage=HERE, strip_pixels=strip_pixels)
    latent = torch.randn(1, 4, 13, 9)
    with torch.inference_mode():
        assert torch.allclose(strips.decode(vae, latent), vae.decode(latent).sample, atol=1e-4)


@pytest.mark.parametrize("strip_pixels", [1, 700, 10_000])
def test_strips_encode_what_the_whole_encodes(vae: AutoencoderKL, strip_pixels: int) -> None:
    strips = Strips(device=HERE, storage=HERE, strip_pixels=strip_pixels)
    pixels = torch.rand(1, 3, 104, 72) * 2 - 1
    with torch.inference_mode():
        moments = vae.encode(pixels).latent_dist.parameters
        assert torch.allclose(strips.encode(vae, pixels), moments, atol=1e-4)


@pytest.mark.parametrize("free", [0, 10**12])
def test_a_picture_is_the_same_whether_it_fits_or_not(
    vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(SmallDevice, "free", free)
    monkeypatch.setattr("webui.pipeline.latents.STRIP_PIXELS_CPU", 500)
    codec = LatentCodec(vae, SmallDevice(torch_device=HERE, dtype=torch.float32, images_at_once=False))
    image = Image.effect_noise((72, 104), 80).convert("RGB")
    with torch.inference_mode():
        latent = codec.encode(image)
        whole = vae.encode(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mode()
        assert torch.allclose(latent, whole * vae.config.scaling_factor, atol=1e-4)
        (picture,) = codec.decode(latent)
        decoded = vae.decode(latent / vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(np.array(picture).astype(float) - expected).max() <= 1


@pytest.fixture
def roomy() -> Device:
    return Device(torch_device=HERE, dtype=torch.float32, images_at_once=False)


def test_what_does_not_fit_after_all_is_done_in_strips(
    vae: AutoencoderKL, roomy: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        (expected,) = LatentCodec(vae, roomy).decode(latent)

        def full(*arguments: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(vae, "decode", full)
        (made,) = LatentCodec(vae, roomy).decode(latent)
    assert np.abs(np.array(made).astype(int) - np.array(expected)).max() <= 1


def test_what_does_not_even_fit_in_strips_says_what_to_do(
    vae: AutoencoderKL, roomy: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vae, "decode", full)
    monkeypatch.setattr(Strips, "decode", full)
    with pytest.raises(OutOfDeviceMemory, match="smaller size"):
        LatentCodec(vae, roomy).decode(torch.zeros(1, 4, 8, 8))

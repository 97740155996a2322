import numpy as np
import pytest
import torch
from torch import Tensor, nn

from webui.training.starter.backgrounds import Pixels
from webui.training.starter.diffusion import PREDICTION_TYPES, PredictionType, alphas_cumprod
from webui.training.starter.latents import Affine
from webui.training.starter.networks import Sizes, build_vae
from webui.training.starter.sampling import sample
from webui.training.starter.vae import to_pixels


class Knowing(nn.Module):
    """A denoiser that knows the clean latents and says exactly what its prediction type asks for."""

    def __init__(self, clean: Tensor, prediction_type: PredictionType) -> None:
        super().__init__()
        self.clean = clean
        self.prediction_type = prediction_type

    def encode_text(self, token_ids: Tensor) -> Tensor:
        return token_ids

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        signal = alphas_cumprod()[timesteps][:, None, None, None]
        noise = (noisy - signal.sqrt() * self.clean) / (1 - signal).sqrt()
        return noise if self.prediction_type == "epsilon" else signal.sqrt() * noise - (1 - signal).sqrt() * self.clean


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_denoiser_is_sampled_to_the_picture_it_knows(prediction_type: PredictionType) -> None:
    torch.manual_seed(0)
    vae = build_vae(Sizes(vae_channels=(8, 8, 8, 8)))
    clean, ids = torch.randn(1, 4, 16, 16), torch.zeros(1, 77, dtype=torch.int64)
    pictures: Pixels = sample(
        Knowing(clean, prediction_type),  # type: ignore[arg-type]
        vae,
        Affine((0.0,) * 4, (1.0,) * 4),
        ids,
        ids,
        [7],
        prediction_type=prediction_type,
        size_px=128,
    )
    with torch.no_grad():
        expected = to_pixels(vae.decode(clean).sample)
    # Stable Diffusion's schedule ends at step 0, where 3 % of the noise's amplitude is left.
    assert np.abs(pictures.astype(int) - expected.astype(int)).mean() < 2

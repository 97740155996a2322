"""The three networks, in Stable Diffusion's exact parts at a tenth of the width."""

from dataclasses import dataclass

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

NATIVE_SIZE = 192  # at 128 the autoencoder loses eyes and fingers; 256 takes more than 2 s on two cores
LATENT_FACTOR = 8
SCALING_FACTOR = 0.18215
MAX_TOKENS = 77
INITIAL_LOG_VARIANCE = -5.0  # the posterior's noise would drown the signal at the default 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Widths of the networks; the defaults are the shipped model's, tests use smaller ones."""

    vae_channels: tuple[int, ...] = (16, 32, 64, 128)
    unet_channels: tuple[int, ...] = (64, 160, 192)
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    norm_groups: int = 8


def build_vae(sizes: Sizes) -> AutoencoderKL:
    """Factor 8, 4 latent channels, no attention."""
    blocks = len(sizes.vae_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=sizes.vae_channels,
        layers_per_block=1,
        norm_num_groups=sizes.norm_groups,
        latent_channels=4,
        sample_size=NATIVE_SIZE,
        scaling_factor=SCALING_FACTOR,
        mid_block_add_attention=False,
    )
    vae.quant_conv.bias.data[4:] = INITIAL_LOG_VARIANCE
    return vae


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    """Three levels with cross-attention at the middle one and at the bottom, where the picture is 12 x 12 and 6 x 6."""
    return UNet2DConditionModel(
        sample_size=NATIVE_SIZE // LATENT_FACTOR,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=sizes.unet_channels,
        layers_per_block=1,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=8,
        norm_num_groups=sizes.norm_groups,
    )


def build_text_encoder(sizes: Sizes, *, vocab_size: int, bos_token_id: int, eos_token_id: int) -> CLIPTextModel:
    """CLIP's text tower; the padding token is the end token, as in Stable Diffusion 1."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=sizes.text_width,
            intermediate_size=4 * sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_heads,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=sizes.text_width,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id,
        )
    )

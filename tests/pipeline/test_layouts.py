"""Names of the two layouts: complete for every family, and the same as diffusers' own conversion finds."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from webui.pipeline.layouts import (
    WeightName,
    clip_weights,
    ema_name,
    modules_by_original,
    open_clip_weights,
    original_weights,
    unet_weights,
    vae_weights,
    with_prefix,
)

BASE: dict[str, Any] = {
    "sample_size": 8,
    "layers_per_block": 2,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
SD = BASE | {
    "block_out_channels": (8, 16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SDXL = BASE | {
    "block_out_channels": (8, 16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 40,
}
REFINER = SDXL | {
    "block_out_channels": (8, 16, 32, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 2,
}
UNETS = {
    "SD 1": SD,
    "SD 1 inpainting": SD | {"in_channels": 9},
    "SD 2": SD | {"use_linear_projection": True, "attention_head_dim": (2, 4, 8, 8)},
    "SDXL": SDXL,
    "SDXL refiner": REFINER,
    "LCM": SD | {"time_cond_proj_dim": 12},
    "one layer, no attention at the ends": SD
    | {
        "layers_per_block": 1,
        "block_out_channels": (8, 24, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}
VAE: dict[str, Any] = {
    "block_out_channels": (4, 8, 8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 4,
}
CLIP: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 12,
}


def shapes(kind: type, config: object) -> dict[str, torch.Size]:
    with torch.device("meta"):
        module = kind(**config) if isinstance(config, dict) else kind(config)
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def originals(weights: tuple[WeightName, ...], shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """A file of the original layout with random values, by the declared transforms."""
    file = {}
    for weight in weights:
        shape = shapes[weight.name]
        if weight.transform == "conv1x1":
            shape = torch.Size([*shape, 1, 1])
        elif weight.transform == "transposed":
            shape = shape[::-1]
        elif weight.transform != "same":
            shape = torch.Size([shape[0] * 3, *shape[1:]])
        file.setdefault(weight.original, torch.randn(shape))
    return file


def ours(weights: tuple[WeightName, ...], file: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    thirds = {"first_third": 0, "second_third": 1, "last_third": 2}
    found = {}
    for weight in weights:
        tensor = file[weight.original]
        if weight.transform in thirds:
            tensor = tensor.chunk(3)[thirds[weight.transform]]
        found[weight.name] = tensor.T if weight.transform == "transposed" else tensor
    return found


def assert_same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.flatten(), theirs[name].flatten()), name


@pytest.mark.parametrize("name", UNETS)
def test_every_weight_of_a_unet_has_one_original_name(name: str) -> None:
    weights = unet_weights(UNETS[name])
    expected = shapes(UNet2DConditionModel, UNETS[name])
    assert sorted(weight.name for weight in weights) == sorted(expected)
    assert len({weight.original for weight in weights}) == len(weights)


@pytest.mark.parametrize("name", UNETS)
def test_unet_names_are_those_of_diffusers_conversion(name: str) -> None:
    config = UNETS[name]
    weights = unet_weights(config)
    file = originals(weights, shapes(UNet2DConditionModel, config))
    given = {f"model.diffusion_model.{key}": value for key, value in file.items()}
    converted = theirs.convert_ldm_unet_checkpoint(given, {"class_embed_type": None} | config)
    missed_by_them = {"time_embedding.cond_proj.weight"}
    known = {key: value for key, value in ours(weights, file).items() if key not in missed_by_them}
    assert_same(known, converted)


def test_moving_averages_have_the_flattened_names_that_diffusers_reads() -> None:
    weights = original_weights("unet", SD, "sd1")
    file = {ema_name(weight.original): torch.randn(2) for weight in weights}
    assert "model_ema.diffusion_modelinput_blocks00weight" in file
    raw = {weight.original: torch.zeros(2) for weight in weights} | file
    raw |= {f"model_ema.filler{i}": torch.zeros(1) for i in range(200)}  # it looks for over 100 such keys
    converted = theirs.convert_ldm_unet_checkpoint(dict(raw), {"class_embed_type": None} | SD, extract_ema=True)
    assert_same({weight.name: file[ema_name(weight.original)] for weight in weights}, converted)


@pytest.mark.parametrize(
    "config", [VAE, VAE | {"layers_per_block": 1, "mid_block_add_attention": False}, VAE | {"use_quant_conv": False}]
)
def test_every_weight_of_an_autoencoder_has_one_original_name(config: dict[str, Any]) -> None:
    weights = vae_weights(config)
    assert sorted(weight.name for weight in weights) == sorted(shapes(AutoencoderKL, config))
    assert len({weight.original for weight in weights}) == len(weights)


def test_autoencoder_names_are_those_of_diffusers_conversion() -> None:
    weights = with_prefix(vae_weights(VAE), "first_stage_model.")
    file = originals(weights, shapes(AutoencoderKL, VAE))
    assert file["first_stage_model.encoder.mid.attn_1.q.weight"].ndim == 4
    assert_same(ours(weights, file), theirs.convert_ldm_vae_checkpoint(dict(file), VAE))


def test_sd1_text_encoder_names_are_those_of_the_flattened_model() -> None:
    weights = original_weights("text_encoder", CLIP, "sd1")
    assert sorted(w.name for w in weights) == sorted(shapes(CLIPTextModel, CLIPTextConfig(**CLIP)))
    assert weights[0].original == "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


def test_the_projected_text_encoder_keeps_its_prefix() -> None:
    config = CLIP | {"architectures": ["CLIPTextModelWithProjection"]}
    expected = shapes(CLIPTextModelWithProjection, CLIPTextConfig(**CLIP))
    assert sorted(w.name for w in open_clip_weights(config)) == sorted(expected)
    names = {w.name for w in clip_weights(config)}
    assert names == {name for name in expected if name != "text_projection.weight"}


@pytest.mark.parametrize("projected", [False, True])
def test_open_clip_names_are_those_of_diffusers_conversion(projected: bool) -> None:
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    config = CLIP | ({"architectures": ["CLIPTextModelWithProjection"]} if projected else {})
    prefix = "conditioner.embedders.1.model." if projected else "cond_stage_model.model."
    model = kind(CLIPTextConfig(**CLIP))
    weights = with_prefix(open_clip_weights(config), prefix)
    file = originals(weights, {name: tensor.shape for name, tensor in model.state_dict().items()})
    last = {key.replace("resblocks.1", "resblocks.23"): value for key, value in file.items() if "resblocks.1." in key}
    last |= {} if projected else {f"{prefix}text_projection": torch.randn(16, 16)}
    converted = theirs.convert_open_clip_checkpoint(model, file | last, prefix=prefix)
    known = ours(weights, file)
    assert known.keys() == model.state_dict().keys()
    theirs_named = {key if projected else key.removeprefix("text_model."): value for key, value in converted.items()}
    assert_same(known, {key: value for key, value in theirs_named.items() if key in known})


def test_each_base_says_where_its_text_encoders_lie() -> None:
    second = CLIP | {"architectures": ["CLIPTextModelWithProjection"]}
    assert original_weights("text_encoder", CLIP, "sd2")[0].original == "cond_stage_model.model.token_embedding.weight"
    assert original_weights("text_encoder", CLIP, "sdxl")[0].original.startswith("conditioner.embedders.0.transformer.")
    assert original_weights("text_encoder_2", second, "sdxl")[0].original.startswith("conditioner.embedders.1.model.")
    assert original_weights("text_encoder_2", second, "sdxl-refiner")[0].original.startswith(
        "conditioner.embedders.0.model."
    )
    with pytest.raises(KeyError):
        original_weights("text_encoder", CLIP, "sdxl-refiner")


def test_modules_are_found_by_their_original_path() -> None:
    modules = modules_by_original(unet_weights(SDXL))
    assert modules["input_blocks.4.1.proj_in"] == "down_blocks.1.attentions.0.proj_in"
    assert modules["middle_block.1.transformer_blocks.2.attn2.to_k"].startswith("mid_block.attentions.0.")
    assert modules["output_blocks.2.2.conv"] == "up_blocks.0.upsamplers.0.conv"
    assert modules["label_emb.0.2"] == "add_embedding.linear_2"

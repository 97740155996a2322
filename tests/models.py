"""Checkpoint folders with random weights in the real layout: tiny ones for tests, SD 1.5's own size for benchmarks."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from webui.prompt.tokenizer import END, START


def write_tokenizer(folder: Path) -> int:
    """A byte-level CLIP vocabulary with a few merges; any text can be spelled in it. Returns its size."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = _byte_letters()
    merges = [("a", "</w>"), ("r", "e"), ("re", "d</w>"), (",", "</w>")]
    tokens = [*letters, *[letter + "</w>" for letter in letters], "re", "red</w>", START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    real = [pair for pair in merges if "".join(pair) in vocabulary and all(part in vocabulary for part in pair)]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in real) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": START, "eos_token": END, "unk_token": END,
              "pad_token": END, "model_max_length": 77}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def write_checkpoint(
    folder: Path,
    *,
    prediction_type: str = "epsilon",
    sd15_size: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """A diffusers folder that our loader and StableDiffusionPipeline.from_pretrained both read."""
    torch.manual_seed(seed)
    vocab_size = write_tokenizer(folder / "tokenizer")
    _text_model(vocab_size, sd15_size).to(dtype).save_pretrained(folder / "text_encoder")
    _unet(sd15_size).to(dtype).save_pretrained(folder / "unet")
    _vae(sd15_size).to(dtype).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _text_model(vocab_size: int, sd15_size: bool) -> CLIPTextModel:
    width, layers, heads = (768, 12, 12) if sd15_size else (32, 3, 2)
    config = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=width * 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )
    return CLIPTextModel(config)


def _unet(sd15_size: bool) -> UNet2DConditionModel:
    if sd15_size:
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _vae(sd15_size: bool) -> AutoencoderKL:
    channels = (128, 256, 512, 512) if sd15_size else (8, 8, 16, 16)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=2 if sd15_size else 1,
        norm_num_groups=32 if sd15_size else 4,
        sample_size=512 if sd15_size else 64,
    )


def _byte_letters() -> list[str]:
    """The printable stand-ins of the 256 bytes in byte-level BPE (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(others))]

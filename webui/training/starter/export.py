"""The trained networks as a diffusers folder in half precision, with the word list the studio suggests prompts from.

The folder is written beside its place and swapped in, so a reader never sees half of it.
"""

import copy
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from webui.training.starter.backgrounds import Plain
from webui.training.starter.compose import Layout, PlacedSprite, Sprites, render
from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.diffusion import Denoiser, PredictionType, scheduler
from webui.training.starter.latents import Affine
from webui.training.starter.networks import MAX_TOKENS, NATIVE_SIZE, SCALING_FACTOR
from webui.training.starter.variants import TONE_CODES, SpriteKey
from webui.training.starter.vocabulary import BUILD_WORDS, COLOURS, SCENES, STYLE_WORDS

TITLE = "Atelier starter (icons)"
SIZE_BUDGET_BYTES = 32 * 1024 * 1024
SAMPLE_SIZE = 256
SAMPLE_LAYOUT = Layout(
    (PlacedSprite(SpriteKey(concept="woman", style="3d", tone="medium"), (0.5, 0.52), 0.78),),
    Plain("teal", COLOURS["teal"]),
)
SAMPLE_CAPTION = "a portrait of a woman with medium skin on a teal background, 3d icon"
SAMPLE_NEGATIVE_PROMPT = "blurry, low quality"
GUIDANCE_SCALE = 3.0
"""Looks best together with the negative prompt; 7, the usual start, draws black outlines."""
EXAMPLE_PROMPTS = (
    "a portrait of a woman with red hair on a blue background, 3d icon",
    "a portrait of a man with dark skin on a yellow background",
    "photo of a person with red hair at the beach, looking into camera, realistic",
    "an old woman with light skin at sunset",
    "a girl with pink hair on a white background, flat icon",
    "an obese person on a green background, flat icon",
    "a slim standing woman at the beach, 3d icon",
    "a wizard with light skin on a purple background",
    "an astronaut under a night sky",
    "a panda on a pink background",
    "fox, teal background, 3d icon",
    "a penguin in the snow",
    "an octopus under water",
    "a camel in the desert",
    "robot, green background, flat icon",
    "a cat on the left and a car on the right, yellow background",
    "a rocket, purple to pink gradient background",
    "a castle on a green meadow",
    "a hamburger on a white background",
)

UNUSED_PARTS = ("safety_checker", "feature_extractor", "image_encoder")


def fold_affine(vae: AutoencoderKL, affine: Affine) -> AutoencoderKL:
    """A copy whose latents times the scaling factor have unit variance; pictures are the same."""
    folded = copy.deepcopy(vae).cpu().float()
    mean = torch.tensor(affine.mean)
    scale = torch.tensor(affine.deviation) * SCALING_FACTOR
    with torch.no_grad():
        quant, post = folded.quant_conv, folded.post_quant_conv
        quant.weight[:4].div_(scale[:, None, None, None])
        quant.bias[:4].sub_(mean).div_(scale)
        quant.bias[4:].sub_(2 * scale.log())
        post.bias.add_(post.weight[:, :, 0, 0] @ mean)
        post.weight.mul_(scale[None, :, None, None])
    return folded


def load_exported_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder of an exported model with latents of unit variance again, to be trained on."""
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return fold_affine(vae, Affine((0.0,) * 4, (SCALING_FACTOR**-2,) * 4))


def export(
    folder: Path,
    *,
    denoiser: Denoiser,
    vae: AutoencoderKL,
    affine: Affine,
    tokenizer: CLIPTokenizer,
    tokenizer_files: Path,
    sprites: Sprites,
    prediction_type: PredictionType,
    provenance: Mapping[str, object],
) -> None:
    """Write the model to `folder`, replacing what an earlier export wrote and nothing else."""
    with replaced(folder) as fresh:
        networks = copy.deepcopy(denoiser).cpu()
        networks.unet.half().save_pretrained(fresh / "unet")
        _write_text_encoder(networks.text_encoder.half(), fresh / "text_encoder")
        fold_affine(vae, affine).half().save_pretrained(fresh / "vae")
        tokenizer_config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": MAX_TOKENS,
            "bos_token": tokenizer.bos_token,
            "eos_token": tokenizer.eos_token,
            "unk_token": tokenizer.unk_token,
            "pad_token": tokenizer.pad_token,
            "add_prefix_space": False,
            "do_lower_case": True,
        }
        (fresh / "tokenizer").mkdir()
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(tokenizer_files / name, fresh / "tokenizer" / name)
        write_json(fresh / "tokenizer" / "tokenizer_config.json", tokenizer_config)
        scheduler(prediction_type).save_pretrained(fresh / "scheduler")
        write_json(fresh / "model_index.json", _model_index())
        write_json(
            fresh / "atelier.json", {**_word_list(), "prediction_type": prediction_type, "provenance": dict(provenance)}
        )
        Image.fromarray(render(SAMPLE_LAYOUT, sprites, SAMPLE_SIZE, SAMPLE_SIZE)).save(
            fresh / "sample.png", optimize=True
        )


def size_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write_text_encoder(text_encoder: CLIPTextModel, folder: Path) -> None:
    """Under the key names that Stable Diffusion files have, which transformers 5 reads but no longer writes."""
    text_encoder.save_pretrained(folder)
    weights = {f"text_model.{name}": weight.contiguous() for name, weight in text_encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _model_index() -> dict[str, object]:
    parts: dict[str, object] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    return parts | {part: [None, None] for part in UNUSED_PARTS}


def _word_list() -> dict[str, object]:
    return {
        "title": TITLE,
        "native_size": NATIVE_SIZE,
        "guidance_scale": GUIDANCE_SCALE,
        "concepts": [concept.name for concept in CONCEPTS],
        "people": [concept.name for concept in CONCEPTS if concept.is_person],
        "skin_tones": list(TONE_CODES),
        "hair": sorted({hair for concept in CONCEPTS for hair in (*concept.hair, *concept.tints)}),
        "builds": [words[0] for words in BUILD_WORDS.values()],
        "colours": list(COLOURS),
        "scenes": [scene.phrase for scene in SCENES],
        "styles": [words[0] for words in STYLE_WORDS.values()],
        "example_prompts": list(EXAMPLE_PROMPTS),
        "sample_negative_prompt": SAMPLE_NEGATIVE_PROMPT,
        "sample_caption": SAMPLE_CAPTION,
    }


def read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder to write an export to; at the end it is put in the place of `folder`, if nothing went wrong."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    _swap_in(fresh, folder)


def _swap_in(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is; files that no export writes (card, notices) move along."""
    if folder.exists():
        for path in folder.iterdir():
            if path.is_file() and not (fresh / path.name).exists():
                shutil.copy2(path, fresh / path.name)
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(folder)

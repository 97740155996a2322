"""How well the exported model obeys and how sharp it is, measured on prompts that nothing was chosen with.

Objects and styles are judged by a classifier trained on compositions (`judge.py`), the background by the named colour
nearest (CIE Lab) to the median of the border, sharpness by the mean gradient of the brightness.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from skimage.color import rgb2lab
from transformers import CLIPTextModel, CLIPTokenizer

from webui.training.starter.backgrounds import Pixels
from webui.training.starter.diffusion import Denoiser, PredictionType
from webui.training.starter.judge import CONCEPT_NAMES, Judge, judge_pairs, judge_pictures, share
from webui.training.starter.latents import Affine
from webui.training.starter.networks import LATENT_FACTOR, SCALING_FACTOR
from webui.training.starter.prompts import PAIR_PLACES, Prompt, object_prompts, pair_prompts
from webui.training.starter.sampling import sample
from webui.training.starter.tokenizer import encode, load_tokenizer
from webui.training.starter.vae import CPU, load_photos, mean_psnr, reconstruct
from webui.training.starter.vocabulary import COLOURS

BORDER_PX = 6
BATCH = 10
COLUMNS = 8
PHOTO_PX = 512
PHOTOS = ("astronaut", "chelsea", "camera", "coffee", "rocket")
NUM_NEGATIVE_PAIRS = 40
NEGATIVE_PROMPT = "blurry, low quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The networks of an exported model, in 32-bit."""

    denoiser: Denoiser
    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    prediction_type: PredictionType

    @classmethod
    def load(cls, folder: Path, device: torch.device = CPU) -> Self:
        """Read the diffusers folder that `export` wrote."""
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        return cls(
            denoiser=Denoiser(unet, text_encoder).eval().to(device),
            vae=vae.to(device),
            tokenizer=load_tokenizer(folder / "tokenizer"),
            prediction_type=schedule["prediction_type"],
        )

    def draw(
        self,
        prompts: list[str],
        seeds: list[int],
        *,
        guidance_scale: float,
        negative_prompt: str = "",
        size_px: int | None = None,
    ) -> Pixels:
        """One picture per prompt, 20 steps: uint8 (B, H, W, 3) of `size_px`, or of the native size."""
        affine = Affine((0.0,) * 4, (1 / SCALING_FACTOR,) * 4)
        negative_ids = self._ids([negative_prompt])
        pictures = []
        for start in range(0, len(prompts), BATCH):
            few = slice(start, start + BATCH)
            token_ids = self._ids(prompts[few])
            pictures.append(
                sample(
                    self.denoiser,
                    self.vae,
                    affine,
                    token_ids,
                    negative_ids,
                    seeds[few],
                    prediction_type=self.prediction_type,
                    size_px=size_px or self.denoiser.unet.config.sample_size * LATENT_FACTOR,
                    guidance_scale=guidance_scale,
                )
            )
        return np.concatenate(pictures)

    def _ids(self, prompts: list[str]) -> torch.Tensor:
        return torch.from_numpy(encode(self.tokenizer, prompts).astype(np.int64))


def evaluate(exported: Exported, judge: Judge, *, sheets: Path, guidance_scale: float) -> dict[str, float]:
    """Shares of what came out right, by measure; contact sheets of unpicked pictures go to the folder `sheets`."""
    objects, pairs = object_prompts(), pair_prompts()
    pictures = _draw(exported, objects, guidance_scale)
    paired = _draw(exported, pairs, guidance_scale)
    plain = pictures[:NUM_NEGATIVE_PAIRS]
    negative = _draw(exported, objects[:NUM_NEGATIVE_PAIRS], guidance_scale, NEGATIVE_PROMPT)
    write_sheet(pictures[:64], sheets / "objects.png")
    write_sheet(paired[:32], sheets / "pairs.png")
    write_sheet(np.stack([plain[:16], negative[:16]], axis=1).reshape(-1, *plain.shape[1:]), sheets / "negative.png")
    sharper = [sharpness(after) > sharpness(before) for before, after in zip(plain, negative, strict=True)]
    seen_pairs = judge_pairs(judge, paired, PAIR_PLACES)
    return {
        **obeyed(judge, objects, pictures),
        "two objects": share([set(prompt.concepts) == seen for prompt, seen in zip(pairs, seen_pairs, strict=True)]),
        "sharper with a negative prompt": share(sharper),
    }


def obeyed(
    judge: Judge, prompts: Sequence[Prompt], pictures: Pixels, among: Sequence[str] = CONCEPT_NAMES
) -> dict[str, float]:
    """Shares of `pictures` of one object each that are as `prompts` say; the judge names one `among` some concepts."""
    verdicts = judge_pictures(judge, pictures, among)
    return {
        "object": share([prompt.concepts[0] == seen.concept for prompt, seen in zip(prompts, verdicts, strict=True)]),
        "background": share(
            [prompt.colour == border_colour(picture) for prompt, picture in zip(prompts, pictures, strict=True)]
        ),
        "style": share([prompt.style == seen.style for prompt, seen in zip(prompts, verdicts, strict=True)]),
    }


def photo_psnr(vae: AutoencoderKL, names: tuple[str, ...] = PHOTOS) -> dict[str, float]:
    """PSNR in dB of the middle square of each photograph at 512 x 512 px; "coffee" was never trained on."""
    figures = {}
    for name, photo in zip(names, load_photos(names), strict=True):
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BICUBIC))[None]
        figures[name] = mean_psnr(pixels, reconstruct(vae, pixels))
    return figures


def border_colour(picture: Pixels) -> str:
    """The colour name nearest to the median of the border of `picture` (H, W, 3)."""
    edges = (picture[:BORDER_PX], picture[-BORDER_PX:], picture[:, :BORDER_PX], picture[:, -BORDER_PX:])
    median = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
    named = np.array(list(COLOURS.values()), np.float64) / 255
    distance = np.linalg.norm(rgb2lab(named) - rgb2lab(median / 255.0), axis=-1)
    return list(COLOURS)[int(distance.argmin())]


def sharpness(picture: Pixels) -> float:
    """Root mean square of the brightness' steps from pixel to pixel: a sharp edge counts more than a soft one."""
    brightness = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return float(np.sqrt(np.mean([np.square(np.diff(brightness, axis=axis)).mean() for axis in (0, 1)])))


def write_sheet(pictures: Pixels, path: Path, columns: int = COLUMNS) -> None:
    """Save `pictures` (N, H, W, 3) as a grid; N is a multiple of `columns`."""
    rows = pictures.reshape(-1, columns, *pictures.shape[1:])
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(path)


def _draw(exported: Exported, prompts: tuple[Prompt, ...], guidance_scale: float, negative_prompt: str = "") -> Pixels:
    return exported.draw(
        [prompt.text for prompt in prompts],
        [prompt.seed for prompt in prompts],
        guidance_scale=guidance_scale,
        negative_prompt=negative_prompt,
    )

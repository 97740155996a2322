"""How well the exported model obeys: 100 fixed prompts, each an object on a named background.

The background is the named colour nearest (CIE Lab) to the median of the border. The object is the nearest sprite by
squared error at 32 x 32 px over a few sizes and places: lenient, since a blurred object still counts, and strict,
since a boy drawn for a man does not.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from skimage.color import rgb2lab
from transformers import CLIPTextModel

from webui.training.starter.compose import Pixels, Sprites, concept_of
from webui.training.starter.diffusion import Denoiser
from webui.training.starter.latents import Affine
from webui.training.starter.networks import SCALING_FACTOR
from webui.training.starter.sampling import sample
from webui.training.starter.tokenizer import encode, load_tokenizer
from webui.training.starter.vocabulary import COLOURS, CONCEPTS

NUM_PROMPTS = 100
FIRST_SEED = 50_000
BORDER_PX = 6
TEMPLATE_SIZE = 32
TEMPLATE_SCALES = (0.66, 0.74, 0.82)
TEMPLATE_CENTRES = (0.46, 0.5, 0.54)
BATCH = 10
COLUMNS = 10


def evaluation_prompts() -> list[tuple[str, str, str]]:
    """(prompt, concept, colour) for each of the 100 pictures; every concept at least twice, half of them as tags."""
    names, colours = [concept.name for concept in CONCEPTS], list(COLOURS)
    rows = []
    for index in range(NUM_PROMPTS):
        name, colour = names[index % len(names)], colours[(index * 5 + index // len(names)) % len(colours)]
        article = "an" if name[0] in "aeiou" else "a"
        background = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} background"
        text = f"{name}, {colour} background" if index % 2 else f"{article} {name} on {background}"
        rows.append((text, name, colour))
    return rows


def prompts_to_watch() -> list[str]:
    """Two thirds of the concepts, people first, to look at while the model trains."""
    return [prompt for prompt, _, _ in evaluation_prompts()[:24]]


def evaluate(folder: Path, sprites: Sprites, *, sheet: Path, guidance_scale: float = 5.0) -> dict[str, object]:
    """Shares of right objects and backgrounds of the model in `folder`; writes a contact sheet."""
    rows = evaluation_prompts()
    seeds = [FIRST_SEED + index for index in range(len(rows))]
    pictures = draw(folder, [prompt for prompt, _, _ in rows], seeds, guidance_scale=guidance_scale)
    objects = Recogniser(sprites).recognise(pictures)
    colours = [border_colour(picture) for picture in pictures]
    grid = pictures.reshape(-1, COLUMNS, *pictures.shape[1:])
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in grid])).save(sheet)
    wrong = [
        {"prompt": prompt, "object": seen, "background": colour}
        for (prompt, name, named), seen, colour in zip(rows, objects, colours, strict=True)
        if (seen, colour) != (name, named)
    ]
    return {
        "num_prompts": len(rows),
        "guidance_scale": guidance_scale,
        "object": float(np.mean([seen == name for (_, name, _), seen in zip(rows, objects, strict=True)])),
        "background": float(np.mean([seen == named for (_, _, named), seen in zip(rows, colours, strict=True)])),
        "wrong": wrong,
    }


def border_colour(picture: Pixels) -> str:
    """Name of the vocabulary colour nearest to the median of the outer pixels; `picture` uint8 (H, W, 3)."""
    inner = picture[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    is_border = np.ones(picture.shape[:2], bool)
    is_border[BORDER_PX : BORDER_PX + inner.shape[0], BORDER_PX : BORDER_PX + inner.shape[1]] = False
    median = np.median(picture[is_border], axis=0)
    named = rgb2lab(np.array(list(COLOURS.values())) / 255.0)
    distance = np.linalg.norm(named - rgb2lab(median / 255.0), axis=-1)
    return list(COLOURS)[int(distance.argmin())]


class Recogniser:
    """Nearest sprite, each tried at a few sizes and places on the picture's own border colour."""

    def __init__(self, sprites: Sprites) -> None:
        self._names: list[str] = []
        colour, alpha = [], []
        for key, sprite in sprites.items():
            for scale in TEMPLATE_SCALES:
                for x in TEMPLATE_CENTRES:
                    for y in TEMPLATE_CENTRES:
                        template = _template(sprite, scale, (x, y))
                        colour.append(template[..., :3] * template[..., 3:])
                        alpha.append(template[..., 3:])
                        self._names.append(concept_of(key))
        self._premultiplied, self._alpha = np.stack(colour), np.stack(alpha)

    def recognise(self, pictures: Pixels) -> list[str]:
        """Concept name for each picture, uint8 (B, H, W, 3)."""
        return [self._nearest(picture) for picture in pictures]

    def _nearest(self, picture: Pixels) -> str:
        small = np.asarray(Image.fromarray(picture).resize((TEMPLATE_SIZE, TEMPLATE_SIZE), Image.Resampling.BOX)) / 255
        border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
        background = np.median(border, axis=0)
        candidates = self._premultiplied + (1 - self._alpha) * background.astype(np.float32)
        error = np.square(candidates - small.astype(np.float32)).mean(axis=(1, 2, 3))
        return self._names[int(error.argmin())]


def _template(sprite: Image.Image, scale: float, centre: tuple[float, float]) -> npt.NDArray[np.float32]:
    """(32, 32, 4) float32 in [0, 1], straight alpha."""
    canvas = Image.new("RGBA", (4 * TEMPLATE_SIZE, 4 * TEMPLATE_SIZE))
    factor = scale * canvas.width / max(sprite.size)
    small = sprite.resize((round(sprite.width * factor), round(sprite.height * factor)), Image.Resampling.BICUBIC)
    left, top = (round(share * canvas.width - side / 2) for share, side in zip(centre, small.size, strict=True))
    canvas.paste(small, (left, top))
    reduced = canvas.resize((TEMPLATE_SIZE, TEMPLATE_SIZE), Image.Resampling.BOX)
    return np.asarray(reduced, np.float32) / np.float32(255)


def draw(folder: Path, prompts: list[str], seeds: list[int], *, guidance_scale: float = 5.0) -> Pixels:
    """One picture per prompt by the model in `folder`, 20 steps: uint8 (B, 128, 128, 3)."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    tokenizer = load_tokenizer(folder / "tokenizer")
    denoiser = Denoiser(unet, text_encoder).eval()
    affine = Affine((0.0,) * 4, (1 / SCALING_FACTOR,) * 4)
    empty_ids = torch.from_numpy(encode(tokenizer, [""]).astype(np.int64))
    pictures = []
    for start in range(0, len(prompts), BATCH):
        token_ids = torch.from_numpy(encode(tokenizer, prompts[start : start + BATCH]).astype(np.int64))
        few = seeds[start : start + BATCH]
        pictures.append(sample(denoiser, vae, affine, token_ids, empty_ids, few, guidance_scale=guidance_scale))
    return np.concatenate(pictures)

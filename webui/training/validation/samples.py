"""Sample pictures: the same prompts and seeds at every step and weight, by the samplers that pictures are made with."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from webui.pipeline.conditioning import build_guidance, picture_channels
from webui.pipeline.denoiser import Denoiser
from webui.pipeline.model import TEXT_ENCODERS, Model
from webui.pipeline.noise import NoiseSource
from webui.pipeline.samplers import SAMPLERS
from webui.pipeline.schedules import SCHEDULES
from webui.pipeline.text_encoding import CLIP_RULES, TextEncoder
from webui.prompt.grammar import parse_prompt
from webui.training.config import TrainingConfig
from webui.training.networks.trainable import Trainable
from webui.training.sample_prompts import SAMPLE_PROMPTS

SAMPLER = "DPM++ 2M"
MIN_PICTURES = 4
"""Fewer prompts are drawn with several seeds each."""
SIDE_STEP_PX = 64


@dataclass(frozen=True, slots=True)
class Shot:
    """One sample: what it is asked for, and the same `plainly`, in words that the base knows."""

    prompt: str
    plainly: str
    seed: int


def plan_shots(config: TrainingConfig) -> tuple[Shot, ...]:
    """The prompts of the run, or the usual ones of its kind of subject, with seeds of their own."""
    prompts = config.validation.prompts or SAMPLE_PROMPTS[config.subject]
    rounds = -(-MIN_PICTURES // len(prompts))
    return tuple(
        Shot(_filled(prompt, config), _without_trigger(prompt, config), config.schedule.seed + number)
        for number, prompt in enumerate(tuple(prompts) * rounds)
    )


def _filled(prompt: str, config: TrainingConfig) -> str:
    trigger, word = config.data.trigger, config.data.class_word
    return _tidy(prompt.replace("{trigger}", trigger).replace("{class}", word))


def _without_trigger(prompt: str, config: TrainingConfig) -> str:
    """`prompt` in which the class stands for the subject, also where the trigger was written out."""
    trigger, word = config.data.trigger, config.data.class_word
    named = "{class}" in prompt or (word and _word(word).search(prompt))
    instead = "" if named else word
    plain = prompt.replace("{trigger}", instead).replace("{class}", word)
    return _tidy(_word(trigger).sub(lambda _: instead, plain) if trigger else plain)


def _word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,")


def sample_size(config: TrainingConfig) -> tuple[int, int]:
    """Width and height: the square that was trained in, in a size that every U-Net takes."""
    side = max(SIDE_STEP_PX, round(config.data.resolution / SIDE_STEP_PX) * SIDE_STEP_PX)
    return side, side


class Sampler:
    """Draws shots with what is trained at a weight. Keeps nothing between pictures, so that it sees live weights."""

    def __init__(self, model: Model, network: Trainable, config: TrainingConfig) -> None:
        self._model = model
        self._network = network
        self._config = config
        self.size = sample_size(config)

    def latent(self, shot: Shot, weight: float, *, check: Callable[[], None] = lambda: None) -> Tensor:
        """(C, h, w) float32, clean; may hold NaN where training went wrong. `check` may raise, at every step."""
        model, validation = self._model, self._config.validation
        with torch.no_grad(), self._network.scaled(weight), _live(model, self._network) as encoder:
            clip_skip = self._config.schedule.clip_skip
            guidance = build_guidance(
                model.inputs,
                encoder.encode(parse_prompt(shot.prompt), clip_skip=clip_skip),
                encoder.encode_negative(parse_prompt(validation.negative_prompt), clip_skip=clip_skip),
                size=self.size,
                scale=validation.guidance_scale,
                image_scale=None,
                channels=self.channels(),
            )
            denoise = Denoiser(
                model.predict, model.device, model.levels, model.prediction_type, guidance, before_call=check
            )
            shape = (model.codec.num_channels, self.size[1] // 8, self.size[0] // 8)
            noise = NoiseSource([shot.seed], shape, model.device.torch_device)
            row = SAMPLERS[SAMPLER]
            to_sigmas = SCHEDULES[row.automatic_schedule].sigmas
            assert to_sigmas is not None
            sigmas = to_sigmas(validation.num_inference_steps, model.levels)
            clean = row.sample(denoise, noise() * sigmas[0], sigmas, noise=noise, eta=row.default_eta)
        return clean[0].float()

    def picture(self, latent: Tensor) -> Image.Image:
        """Raises InvalidNumbers for what is none."""
        with torch.no_grad():
            return self._model.codec.decode(latent[None].to(self._model.device.torch_device))[0]

    def channels(self) -> Tensor | None:
        """For inpainting networks: everything is to be made anew."""
        with torch.no_grad():
            return picture_channels(self._model.inputs.picture_channels, self._model.codec, None, None, size=self.size)


@contextmanager
def _live(model: Model, network: Trainable) -> Iterator[TextEncoder]:
    """Encodes with the text encoders and the new words as they are now, and remembers nothing."""
    encoder = TextEncoder(model.text_encoder.encoders, CLIP_RULES[model.family.adapter_base])
    table = network.embeddings
    if table is None:
        yield encoder
        return
    encoder.embeddings = table.names
    names = [name for name in TEXT_ENCODERS if name in model.components]
    before = [one.embed for one in encoder.encoders]
    for name, one in zip(names, encoder.encoders, strict=True):
        one.embed = partial(table.insert, name)
    try:
        yield encoder
    finally:
        for one, embed in zip(encoder.encoders, before, strict=True):
            one.embed = embed

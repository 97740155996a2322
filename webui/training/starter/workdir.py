"""The files of a training run: packages, states, latents, and the networks built from them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from webui.training.starter.diffusion import Denoiser
from webui.training.starter.judge import Judge
from webui.training.starter.latents import Affine, measure_affine, pool_shards
from webui.training.starter.networks import Sizes, build_text_encoder, build_unet, build_vae
from webui.training.starter.sharpen import with_sharpened_decoder
from webui.training.starter.tokenizer import load_tokenizer


@dataclass(frozen=True, slots=True)
class WorkDir:
    """Where each stage leaves its results, and the networks as they are there."""

    root: Path

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def vae_state(self) -> Path:
        return self.root / "vae.pt"

    @property
    def unet_state(self) -> Path:
        return self.root / "unet.pt"

    @property
    def decoder_state(self) -> Path:
        return self.root / "decoder.pt"

    @property
    def judge_state(self) -> Path:
        return self.root / "judge.pt"

    @property
    def inpaint_state(self) -> Path:
        return self.root / "inpaint.pt"

    @property
    def holed(self) -> Path:
        """Latents of pictures with holes."""
        return self.root / "holed"

    @property
    def words_state(self) -> Path:
        return self.root / "words.pt"

    @property
    def words_tokenizer(self) -> Path:
        return self.root / "words-tokenizer"

    @property
    def worded(self) -> Path:
        """Latents of pictures worded with more words."""
        return self.root / "worded"

    @property
    def distill_state(self) -> Path:
        return self.root / "distill.pt"

    @property
    def compared(self) -> Path:
        """Recipes beside each other."""
        return self.root / "compared"

    @property
    def lessons(self) -> Path:
        """The starter's own ways from noise to pictures."""
        return self.root / "lessons"

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def photos(self) -> Path:
        """Of the sample adapters, with their settings."""
        return self.root / "photos"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def pid_file(self) -> Path:
        return self.root / "pids"

    def plain_vae(self) -> AutoencoderKL:
        """The autoencoder of the first stage."""
        vae = build_vae(Sizes())
        vae.load_state_dict(torch.load(self.vae_state, map_location="cpu", weights_only=True)["averaged"])
        return vae

    def vae(self) -> AutoencoderKL:
        """The same with the sharpened decoder, if there is one."""
        if not self.decoder_state.exists():
            return self.plain_vae()
        state = torch.load(self.decoder_state, map_location="cpu", weights_only=True)["averaged"]
        return with_sharpened_decoder(self.plain_vae(), state)

    def judge(self) -> Judge:
        """The trained classifier."""
        judge = Judge()
        judge.load_state_dict(torch.load(self.judge_state, map_location="cpu", weights_only=True)["averaged"])
        return judge

    def affine(self) -> Affine:
        """What gives the raw latents of the first shard unit variance."""
        return measure_affine(pool_shards(1)[0].path(self.latents))


def load_denoiser(folder: Path, tokenizer: CLIPTokenizer) -> Denoiser:
    """The U-Net and text encoder of an exported model, for another vocabulary.

    Words that both know keep their embedding; the others start from random ones.
    """
    denoiser = build_denoiser(tokenizer)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    known, wanted = load_tokenizer(folder / "tokenizer").get_vocab(), tokenizer.get_vocab()
    shared = sorted(known.keys() & wanted.keys())
    embedding = denoiser.text_encoder.get_input_embeddings().weight.detach().clone()
    source = text_encoder.get_input_embeddings().weight.detach()
    embedding[[wanted[word] for word in shared]] = source[[known[word] for word in shared]]
    state = text_encoder.state_dict()
    (name,) = (name for name in state if name.endswith("token_embedding.weight"))
    denoiser.unet.load_state_dict(unet.state_dict())
    denoiser.text_encoder.load_state_dict(state | {name: embedding})
    return denoiser


def build_denoiser(tokenizer: CLIPTokenizer) -> Denoiser:
    """The shipped model's U-Net and text encoder with random weights."""
    sizes = Sizes()
    text_encoder = build_text_encoder(
        sizes,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Denoiser(build_unet(sizes), text_encoder)

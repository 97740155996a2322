"""Prompts as CLIP encodings: chunks of 75 tokens side by side, with emphasis."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from webui.prompt.chunks import CHUNK_TOKENS, Chunk, chunk_prompt, neutral
from webui.prompt.grammar import ParsedPrompt
from webui.prompt.tokenizer import ClipTokenizer

CACHED_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class _CacheKey:
    chunks: tuple[Chunk, ...]
    clip_skip: int


class TextEncoder:
    """One CLIP text model with its tokenizer; encodings are cached per prompt."""

    def __init__(self, model: nn.Module, tokenizer: ClipTokenizer, *, pad_id: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._pad_id = pad_id
        self._cache: OrderedDict[_CacheKey, Tensor] = OrderedDict()

    def encode(self, prompt: ParsedPrompt, *, clip_skip: int) -> Tensor:
        """(1, 77 * chunks, width) in the model's dtype. `clip_skip` layers are left out at the end."""
        key = _CacheKey(chunk_prompt(prompt, self.tokenizer), clip_skip)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        encoded = torch.cat([self._encode_chunk(chunk, clip_skip) for chunk in key.chunks], dim=1)
        self._cache[key] = encoded
        if len(self._cache) > CACHED_PROMPTS:
            self._cache.popitem(last=False)
        return encoded

    def forget(self) -> None:
        """Drops cached encodings; needed when the text model's weights change."""
        self._cache.clear()

    def _encode_chunk(self, chunk: Chunk, clip_skip: int) -> Tensor:
        device = next(self.model.parameters()).device
        padding = CHUNK_TOKENS - len(chunk.token_ids)
        ids = [self.tokenizer.start_id, *chunk.token_ids, self.tokenizer.end_id, *[self._pad_id] * padding]
        output = self.model(input_ids=torch.tensor([ids], device=device), output_hidden_states=True)
        hidden: Tensor = output.hidden_states[-1 - clip_skip]
        encoded: Tensor = self.model.get_submodule("final_layer_norm")(hidden)
        if neutral(chunk):
            return encoded
        weights = torch.tensor([1.0, *chunk.weights, 1.0, *[1.0] * padding], device=device, dtype=torch.float32)
        return emphasise(encoded, weights)


def emphasise(encoded: Tensor, weights: Tensor) -> Tensor:
    """Scales each token of `encoded` (1, 77, width) by `weights` (77,), then restores the mean of the whole chunk.

    The de-facto standard's "Original" emphasis: without the second step, weights would also shift the overall level.
    """
    scaled = encoded.float() * weights[None, :, None]
    return (scaled * (encoded.float().mean() / scaled.mean())).to(encoded.dtype)

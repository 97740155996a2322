"""Prompts as CLIP encodings: chunks of 75 tokens side by side, with emphasis, by a family's one or two encoders."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from webui.errors import InvalidRequest
from webui.library.families import AdapterBase
from webui.prompt.chunks import CHUNK_TOKENS, NO_EMBEDDINGS, Chunk, chunk_prompt, neutral
from webui.prompt.grammar import ParsedPrompt
from webui.prompt.tokenizer import ClipTokenizer

CACHED_PROMPTS = 64
OPEN_CLIP_PAD_ID = 0
"""OpenCLIP was trained on chunks filled up with zeros ("!"); OpenAI's CLIP on chunks filled up with end marks."""

Embed = Callable[[Chunk, Tensor], Tensor]
"""(chunk, its token embeddings (1, 77, width)) -> what enters the encoder instead, of the same shape.

Row 0 is the start mark, row 1 + i belongs to the chunk's i-th token. The seam for textual inversion.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRules:
    """How a family reads its text encoders.

    Clip skip n takes the n-th hidden layer from the end, as users know it. Families that were trained on the
    penultimate layer never take a later one: n = 1 and n = 2 are the same (`min_skip` 1). `cut_layers` of the end are
    missing in the weights already. `final_norm`: whether the encoder's last norm follows. `pads_with_end`: one entry
    per encoder. `zero_empty_negative`: whether an empty negative prompt is all zeros instead of encoded.
    """

    pads_with_end: tuple[bool, ...]
    min_skip: int = 0
    cut_layers: int = 0
    final_norm: bool = True
    zero_empty_negative: bool = False

    def layer(self, clip_skip: int) -> int:
        """Index into the hidden states, counted from the end; `clip_skip` is the user's n less one."""
        return -1 - max(clip_skip, self.min_skip) + self.cut_layers


CLIP_RULES: Mapping[AdapterBase, ClipRules] = MappingProxyType(
    {
        "sd1": ClipRules(pads_with_end=(True,)),
        "sd-custom": ClipRules(pads_with_end=(True,)),
        "sd2": ClipRules(pads_with_end=(False,), min_skip=1, cut_layers=1),
        "sdxl": ClipRules(pads_with_end=(True, False), min_skip=1, final_norm=False, zero_empty_negative=True),
        "sdxl-refiner": ClipRules(pads_with_end=(False,), min_skip=1, final_norm=False),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedPrompt:
    """`context` (1, 77 * chunks, width), the encoders' widths side by side.

    `pooled` (1, projection) sums up the first chunk, from an encoder with a projection; None without one.
    """

    context: Tensor
    pooled: Tensor | None = None


class ClipEncoder:
    """One CLIP text model. `embed` may be set to change what enters it; then the owner forgets what it cached."""

    def __init__(self, model: nn.Module, tokenizer: ClipTokenizer, *, pads_with_end: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.embed: Embed | None = None
        self._pad_id = tokenizer.end_id if pads_with_end else OPEN_CLIP_PAD_ID

    def encode(self, chunk: Chunk, layer: int, *, final_norm: bool) -> EncodedPrompt:
        """(1, 77, width) of hidden layer `layer`, emphasised; pooled where the model has a projection.

        Raises InvalidRequest if the model has fewer layers.
        """
        encoded = self.encode_all([chunk], layer, final_norm=final_norm)
        if neutral(chunk):
            return encoded
        padding = CHUNK_TOKENS - len(chunk.token_ids)
        weights = torch.tensor([1.0, *chunk.weights, 1.0, *[1.0] * padding], dtype=torch.float32)
        return EncodedPrompt(context=emphasise(encoded.context, weights.to(self.device)), pooled=encoded.pooled)

    def encode_all(self, chunks: Sequence[Chunk], layer: int, *, final_norm: bool) -> EncodedPrompt:
        """(len(chunks), 77, width) and as many rows of the projection, without emphasis; gradients go through.

        Raises InvalidRequest if the model has fewer layers.
        """
        ids = [self._token_ids(chunk) for chunk in chunks]
        with self._embedding(chunks):
            output = self.model(input_ids=torch.tensor(ids, device=self.device), output_hidden_states=True)
        num_layers = len(output.hidden_states) - 1
        if -layer > num_layers:
            raise InvalidRequest(
                "clip_skip",
                f"Clip skip leaves nothing of a text encoder with {num_layers} layers.",
                hint="Use 1, or 2 for checkpoints made with it.",
            )
        encoded: Tensor = output.hidden_states[layer]
        if final_norm:
            encoded = self._text_model.get_submodule("final_layer_norm")(encoded)
        return EncodedPrompt(context=encoded, pooled=getattr(output, "text_embeds", None))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _token_ids(self, chunk: Chunk) -> list[int]:
        padding = [self._pad_id] * (CHUNK_TOKENS - len(chunk.token_ids))
        return [self.tokenizer.start_id, *chunk.token_ids, self.tokenizer.end_id, *padding]

    @property
    def _text_model(self) -> nn.Module:
        """Models with a projection keep the rest one level down."""
        return self.model.get_submodule("text_model") if hasattr(self.model, "text_model") else self.model

    @contextmanager
    def _embedding(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        embed = self.embed
        if embed is None:
            yield
            return

        def replaced(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
            rows = [embed(chunk, row) for chunk, row in zip(chunks, torch.split(embedded, 1), strict=True)]
            return rows[0] if len(rows) == 1 else torch.cat(rows)

        handle = self._text_model.get_submodule("embeddings.token_embedding").register_forward_hook(replaced)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True, slots=True)
class _CacheKey:
    chunks: tuple[Chunk, ...]
    layer: int
    weights: Hashable


class TextEncoder:
    """A family's CLIP text models, whose encodings lie side by side; cached per prompt. All split prompts alike.

    `embeddings` are the textual inversions that a prompt may name.
    """

    def __init__(
        self, encoders: Sequence[ClipEncoder], rules: ClipRules, *, weights: Callable[[], Hashable] = lambda: None
    ) -> None:
        """`weights` tells the models' current weights from all others they may get: part of what is cached under."""
        self.encoders = tuple(encoders)
        self.embeddings = NO_EMBEDDINGS
        self._rules = rules
        self._weights = weights
        self._cache: OrderedDict[_CacheKey, EncodedPrompt] = OrderedDict()

    def encode(self, prompt: ParsedPrompt, *, clip_skip: int) -> EncodedPrompt:
        """In the models' dtype. `clip_skip` layers are left out at the end, as the family counts them."""
        chunks = chunk_prompt(prompt, self.encoders[0].tokenizer, self.embeddings)
        key = _CacheKey(chunks, self._rules.layer(clip_skip), self._weights())
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        encoded = self._encode(key)
        self._cache[key] = encoded
        if len(self._cache) > CACHED_PROMPTS:
            self._cache.popitem(last=False)
        return encoded

    def encode_negative(self, prompt: ParsedPrompt, *, clip_skip: int) -> EncodedPrompt:
        """As `encode`, but all zeros for an empty prompt where the family was trained so."""
        encoded = self.encode(prompt, clip_skip=clip_skip)
        empty = not any(chunk.token_ids for chunk in chunk_prompt(prompt, self.encoders[0].tokenizer))
        if not (empty and self._rules.zero_empty_negative):
            return encoded
        pooled = None if encoded.pooled is None else torch.zeros_like(encoded.pooled)
        return EncodedPrompt(context=torch.zeros_like(encoded.context), pooled=pooled)

    def encode_batch(self, prompts: Sequence[ParsedPrompt], *, clip_skip: int) -> EncodedPrompt:
        """One row per prompt, without emphasis and uncached; gradients go through, to train with.

        Shorter prompts are filled up with empty chunks.
        """
        chunks = [chunk_prompt(prompt, self.encoders[0].tokenizer, self.embeddings) for prompt in prompts]
        longest = max(map(len, chunks))
        rows = [chunk for own in chunks for chunk in (*own, *[Chunk((), ())] * (longest - len(own)))]
        layer, final_norm = self._rules.layer(clip_skip), self._rules.final_norm
        parts = [encoder.encode_all(rows, layer, final_norm=final_norm) for encoder in self.encoders]
        context = torch.cat([part.context for part in parts], dim=-1)
        pooled = [part.pooled[::longest] for part in parts if part.pooled is not None]
        return EncodedPrompt(
            context=context.reshape(len(prompts), -1, context.shape[-1]), pooled=pooled[-1] if pooled else None
        )

    def forget(self) -> None:
        """Drops what is cached, after weights were changed by other means than adapters."""
        self._cache.clear()

    def _encode(self, key: _CacheKey) -> EncodedPrompt:
        final_norm = self._rules.final_norm
        rows = [
            [encoder.encode(chunk, key.layer, final_norm=final_norm) for encoder in self.encoders]
            for chunk in key.chunks
        ]
        context = torch.cat([torch.cat([part.context for part in row], dim=-1) for row in rows], dim=1)
        pooled = [part.pooled for part in rows[0] if part.pooled is not None]
        return EncodedPrompt(context=context, pooled=pooled[-1] if pooled else None)


def emphasise(encoded: Tensor, weights: Tensor) -> Tensor:
    """Scales each token of `encoded` (1, 77, width) by `weights` (77,), then restores the mean of the whole chunk.

    The de-facto standard's "Original" emphasis: without the second step, weights would also shift the overall level.
    """
    scaled = encoded.float() * weights[None, :, None]
    return (scaled * (encoded.float().mean() / scaled.mean())).to(encoded.dtype)

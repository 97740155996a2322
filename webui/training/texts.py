"""Captions as the U-Net is told them: encoded once where nothing of that is trained, else anew at each step."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from webui.pipeline.text_encoding import EncodedPrompt, TextEncoder
from webui.prompt.chunks import chunk_prompt
from webui.prompt.grammar import ParsedPrompt, WeightedText
from webui.training.caching import TensorCache, Tensors, text_key, weights_digest

CACHED_CAPTIONS = 4096
"""That many stay in memory: captions that are shuffled or thinned out never come to an end."""

Report = Callable[[int, int], None]
Check = Callable[[], None]


def plain(caption: str) -> ParsedPrompt:
    """A caption word for word: brackets mean nothing in it."""
    return ParsedPrompt(sections=((WeightedText(caption, 1.0),),))


class Captions:
    """Encodings of captions. `live`: whether the encoders, or a word's vectors, are trained; then nothing is kept.

    `lasting` are the captions that come up as they are, of which there are a few per photo: `cache` may keep those on
    disk. There is no end of shuffled and thinned-out ones, so that these never become files: those used last stay in
    memory, unless nothing is kept.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        cache: TensorCache,
        *,
        clip_skip: int,
        live: bool,
        lasting: Collection[str] = (),
        autocast: torch.dtype | None = None,
    ) -> None:
        """`autocast`: the type that is computed in where it is not the weights' own."""
        self._encoder = encoder
        self._cache = cache
        self._clip_skip = clip_skip
        self._live = live
        self._lasting = frozenset(lasting)
        self._autocast = autocast
        self._device = encoder.encoders[0].device
        self._weights = ""
        if cache.outlives_run and not live:  # reads gigabytes
            self._weights = weights_digest(*(each.model for each in encoder.encoders))

    def __call__(self, captions: Sequence[str]) -> EncodedPrompt:
        """One row per caption, with gradients where something is trained."""
        if self._live:
            return self._encoder.encode_batch([plain(caption) for caption in captions], clip_skip=self._clip_skip)
        return self._joined([self._of(caption) for caption in captions])

    def encode_lasting(self, *, report: Report, check: Check) -> None:
        """All that come up as they are now, so that a disk that is full is told before the first step.

        Raises StorageError.
        """
        for done, caption in enumerate(sorted(self._lasting), start=1):
            check()
            self._of(caption)
            report(done, len(self._lasting))

    def _of(self, caption: str) -> EncodedPrompt:
        passing = caption not in self._lasting
        key = self._key(caption) if self._cache.outlives_run and not passing else caption
        kept = self._cache.get(key, lambda: self._encoded(caption), passing=passing)
        pooled = kept.get("pooled")
        return EncodedPrompt(
            context=kept["context"].to(self._device), pooled=None if pooled is None else pooled.to(self._device)
        )

    def _key(self, caption: str) -> str:
        chunks = chunk_prompt(plain(caption), self._encoder.encoders[0].tokenizer, self._encoder.embeddings)
        computed_in = "the weights' type" if self._autocast is None else str(self._autocast)
        return text_key(chunks, clip_skip=self._clip_skip, encoders=self._weights, computed_in=computed_in)

    def _encoded(self, caption: str) -> Tensors:
        autocast = torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None)
        with torch.no_grad(), autocast:
            encoded = self._encoder.encode_batch([plain(caption)], clip_skip=self._clip_skip)
        return {"context": encoded.context} | ({} if encoded.pooled is None else {"pooled": encoded.pooled})

    def _joined(self, encoded: Sequence[EncodedPrompt]) -> EncodedPrompt:
        if len(encoded) == 1:
            return encoded[0]
        longest = max(part.context.shape[1] for part in encoded)
        pooled: list[Tensor] = [part.pooled for part in encoded if part.pooled is not None]
        return EncodedPrompt(
            context=torch.cat([self._filled_up(part.context, longest) for part in encoded]),
            pooled=torch.cat(pooled) if pooled else None,
        )

    def _filled_up(self, context: Tensor, length: int) -> Tensor:
        """(1, `length`, width): with as many empty chunks as it takes, which is what `encode_batch` does."""
        if context.shape[1] == length:
            return context
        empty = self._of("").context
        return torch.cat([context, *[empty] * ((length - context.shape[1]) // empty.shape[1])], dim=1)

"""Captions as the U-Net is told them: encoded once where nothing of that is trained, else anew at each step."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from webui.pipeline.text_encoding import EncodedPrompt, TextEncoder
from webui.prompt.grammar import ParsedPrompt, WeightedText

CACHED_CAPTIONS = 4096
"""Captions that are shuffled or thinned out never come to an end."""


def plain(caption: str) -> ParsedPrompt:
    """A caption word for word: brackets mean nothing in it."""
    return ParsedPrompt(sections=((WeightedText(caption, 1.0),),))


class Captions:
    """Encodings of captions. `live`: whether the encoders, or a word's vectors, are trained."""

    def __init__(self, encoder: TextEncoder, *, clip_skip: int, live: bool) -> None:
        self._encoder = encoder
        self._clip_skip = clip_skip
        self._live = live
        self._kept: OrderedDict[str, EncodedPrompt] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> EncodedPrompt:
        """One row per caption, with gradients where something is trained."""
        if self._live:
            return self._encoder.encode_batch([plain(caption) for caption in captions], clip_skip=self._clip_skip)
        return self._joined([self._of(caption) for caption in captions], captions)

    def _of(self, caption: str) -> EncodedPrompt:
        kept = self._kept.get(caption)
        if kept is None:
            with torch.no_grad():
                kept = self._encoder.encode_batch([plain(caption)], clip_skip=self._clip_skip)
            self._kept[caption] = kept
            if len(self._kept) > CACHED_CAPTIONS:
                self._kept.popitem(last=False)
        return kept

    def _joined(self, encoded: Sequence[EncodedPrompt], captions: Sequence[str]) -> EncodedPrompt:
        if len(encoded) == 1:
            return encoded[0]
        if len({part.context.shape[1] for part in encoded}) > 1:  # of unequal numbers of chunks
            with torch.no_grad():
                return self._encoder.encode_batch([plain(caption) for caption in captions], clip_skip=self._clip_skip)
        pooled: list[Tensor] = [part.pooled for part in encoded if part.pooled is not None]
        return EncodedPrompt(
            context=torch.cat([part.context for part in encoded]), pooled=torch.cat(pooled) if pooled else None
        )

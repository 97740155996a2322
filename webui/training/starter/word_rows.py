"""Teaches an exported model words that it lacks by rows of the token embedding alone.

All other weights stay as they are to the bit, and so does every picture of a prompt without such words.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers.models import BPE
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers import CLIPTokenizer

from webui.training.starter.diffusion import (
    Denoiser,
    PredictionType,
    alphas_cumprod,
    draw_batch,
    noise_and_target,
)
from webui.training.starter.export import read_json, replaced, write_json
from webui.training.starter.latents import LatentSet, Shard
from webui.training.starter.loop import Plan, train
from webui.training.starter.muon import muon_for
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.ranks import Ranks
from webui.training.starter.tokenizer import WORD_END, TokenIds, load_tokenizer, split_words

TOKEN_EMBEDDING = "text_model.embeddings.token_embedding.weight"
"""Its name in the exported file."""
FIRST_INDEX = 200_000
"""Shards from here on: other pictures than those of the starter's own pool and of its sibling."""


def word_shards(count: int) -> tuple[Shard, ...]:
    return tuple(Shard(FIRST_INDEX + index, NATIVE_SIZE, NATIVE_SIZE) for index in range(count))


def extend_tokenizer(source: Path, phrases: Sequence[str], folder: Path) -> CLIPTokenizer:
    """Writes the tokenizer of `source` to `folder`, with a token more for each word of `phrases` that it spells out.

    The new merges come last and the new tokens behind all others, so words that were one token are split as before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab: dict[str, int] = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
    rows = (source / "merges.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    for word in dict.fromkeys(word for phrase in phrases for word in split_words(phrase)):
        merges = [(left, right) for left, right in (row.split(" ") for row in rows[1:])]
        first, *others = (token.value for token in BPE(vocab, merges, end_of_word_suffix=WORD_END).tokenize(word))
        for part in others:
            rows.append(f"{first} {part}")
            first += part
            vocab.setdefault(first, len(vocab))
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return load_tokenizer(folder)


def taught_ids(tokenizer: CLIPTokenizer, phrases: Sequence[str], known_lines: Sequence[str]) -> list[int]:
    """Ids of the words of `phrases` that are not among those of `known_lines`, in their order."""
    known = {token for line in known_lines for token in tokenizer(line, add_special_tokens=False).input_ids}
    taught = [token for phrase in phrases for token in tokenizer(phrase, add_special_tokens=False).input_ids]
    return [token for token in dict.fromkeys(taught) if token not in known]


class WordRows(nn.Module):
    """The rows `ids` of a text encoder's token embedding, as its only weights that are trained.

    `fixed` (V, width) is the whole embedding to begin with.
    """

    fixed: Tensor
    ids: Tensor

    def __init__(self, fixed: Tensor, ids: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed)
        self.register_buffer("ids", torch.tensor(ids))
        self.rows = nn.Parameter(fixed[list(ids)].clone())

    def embedding(self) -> Tensor:
        """(V, width)"""
        return torch.index_copy(self.fixed, 0, self.ids, self.rows)


def widened_embedding(known: Tensor, tokenizer: CLIPTokenizer, likenesses: Mapping[str, Sequence[str]]) -> Tensor:
    """`known` (V, width) with a row for each further token: zeros, or the mean of the words that it is like."""
    wide = torch.cat([known, known.new_zeros(len(tokenizer) - len(known), known.shape[1])])
    for word, others in likenesses.items():
        (row,) = tokenizer(word, add_special_tokens=False).input_ids
        wide[row] = known[tokenizer(" ".join(others), add_special_tokens=False).input_ids].mean(dim=0)
    return wide


def train_words(
    denoiser: Denoiser,
    words: WordRows,
    pool: LatentSet,
    empty_ids: TokenIds,
    plan: Plan,
    *,
    batch_size: int,
    prediction_type: PredictionType,
    seed: int,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
) -> nn.Module:
    """Trains `words` to the end of `plan`, all of `denoiser` standing still; returns the averaged rows.

    `batch_size` is over all ranks. The text encoder has a token for each row of `words`.
    """
    signal = alphas_cumprod().to(ranks.device)
    count = batch_size // ranks.count
    denoiser.requires_grad_(False).to(ranks.device)
    words.to(ranks.device)
    (name,) = (name for name, _ in denoiser.named_parameters() if name.endswith("token_embedding.weight"))

    def loss_of(step: int) -> Tensor:
        batch = draw_batch(pool.latents, pool.token_ids, empty_ids, count=count, seed=seed, step=step, ranks=ranks)
        noisy, target = noise_and_target(batch.clean, batch.noise, signal[batch.timesteps], prediction_type)
        with ranks.autocast():
            texts = {name.removeprefix("text_encoder."): words.embedding()}
            context = functional_call(denoiser.text_encoder, texts, (batch.token_ids,)).last_hidden_state
            return functional.mse_loss(denoiser(noisy, batch.timesteps, context).float(), target)

    optimizer = muon_for(words, learning_rate=plan.learning_rate, plain=("rows",), ranks=ranks)
    return train(words, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=on_checkpoint)


def export_words(
    folder: Path, *, source: Path, tokenizer: Path, words: WordRows, provenance: Mapping[str, object]
) -> None:
    """Writes the exported model `source` with other words; all its other weights are copied to the bit."""
    with replaced(folder) as fresh:
        shutil.copytree(source, fresh, dirs_exist_ok=True)
        for name in ("vocab.json", "merges.txt"):
            shutil.copy2(tokenizer / name, fresh / "tokenizer" / name)
        file = fresh / "text_encoder" / "model.safetensors"
        weights = load_file(file)
        known = weights[TOKEN_EMBEDDING]
        embedding = words.embedding().detach().cpu().to(known.dtype)
        weights[TOKEN_EMBEDDING] = embedding
        save_file(weights, file, metadata={"format": "pt"})
        config = fresh / "text_encoder" / "config.json"
        write_json(config, {**read_json(config), "vocab_size": len(embedding)})
        about = read_json(fresh / "atelier.json")
        write_json(fresh / "atelier.json", {**about, "provenance": {**about["provenance"], **provenance}})

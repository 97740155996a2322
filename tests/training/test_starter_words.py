"""Words taught to an exported model by rows of the token embedding: what is worded, what is added, what stays."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from tests.training.test_starter_training import ALONE, PLAN, TINY
from webui.training.starter.compose import Choices
from webui.training.starter.diffusion import Denoiser
from webui.training.starter.evaluate import Exported
from webui.training.starter.latents import LatentSet
from webui.training.starter.networks import build_text_encoder, build_unet
from webui.training.starter.tokenizer import (
    PROMPT_WORDS,
    caption_lines,
    load_tokenizer,
    training_lines,
    write_tokenizer,
)
from webui.training.starter.variants import sprite_keys
from webui.training.starter.word_rows import (
    TOKEN_EMBEDDING,
    WordRows,
    export_words,
    extend_tokenizer,
    taught_ids,
    train_words,
    widened_embedding,
)
from webui.training.starter.words import BAD, PEOPLE, PHRASES, likenesses, worded

CHOICES = Choices.of(sprite_keys())


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """The tokenizer of the recipe, and the same with more words."""
    root = tmp_path_factory.mktemp("tokenizers")
    old = write_tokenizer(root / "old", training_lines())
    return old, extend_tokenizer(root / "old", PHRASES, root / "new")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_general_words_are_said_of_people_and_bad_ones_of_degraded_pictures(seed: int) -> None:
    layout, captions = worded(np.random.default_rng(seed), CHOICES)
    assert (layout, captions) == worded(np.random.default_rng(seed), CHOICES)
    assert len(captions) == 4
    general = {noun.split()[-1] for noun in PEOPLE}
    for caption in captions:
        words = caption.replace(",", "").split()
        if general & set(words):
            assert all(placed.sprite.tone for placed in layout.objects)
        if set(BAD) & set(caption.split(", ")):
            assert layout.degraded
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]", caption)


def test_each_word_of_the_phrases_is_one_token_and_is_taught_once(
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
) -> None:
    _, tokenizer = tokenizers
    assert len(tokenizer("an obese person looking into camera", add_special_tokens=False).input_ids) == 6
    ids = taught_ids(tokenizer, PHRASES, caption_lines())
    assert len(ids) == len(set(ids))
    taught = {token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids)}
    assert {"person", "obesity", "photorealistic", "mutated", "looking"} <= taught
    assert not taught & {"woman", "camera", "blurry", "fat", "photo", "of"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*caption_lines(), *PROMPT_WORDS.split()]), min_size=1, max_size=12))
def test_words_that_were_known_are_split_as_before(
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer], phrases: list[str]
) -> None:
    text = ", ".join(phrases)
    old, new = (tokenizer(text).input_ids for tokenizer in tokenizers)
    assert old == new


def test_nothing_else_of_the_model_changes(tmp_path: Path, starter_dir: Path) -> None:
    tokenizer = extend_tokenizer(starter_dir / "tokenizer", ["a glorp person", "glorps"], tmp_path / "tokenizer")
    known = Exported.load(starter_dir).denoiser.text_encoder.get_input_embeddings().weight.detach()
    (glorp,) = tokenizer("glorp", add_special_tokens=False).input_ids
    words = WordRows(widened_embedding(known, tokenizer, {"glorp": ("man", "woman")}), [glorp])
    man, woman = tokenizer("man woman", add_special_tokens=False).input_ids
    assert torch.equal(words.rows[0], (known[man] + known[woman]) / 2)
    with torch.no_grad():
        words.rows.fill_(0.25)
    shutil.copytree(starter_dir, tmp_path / "starter")
    export_words(tmp_path / "starter", source=starter_dir, tokenizer=tmp_path / "tokenizer", words=words, provenance={})
    old, new = (
        load_file(folder / "text_encoder" / "model.safetensors") for folder in (starter_dir, tmp_path / "starter")
    )
    assert torch.equal(new[TOKEN_EMBEDDING][: len(old[TOKEN_EMBEDDING])], old[TOKEN_EMBEDDING])
    assert (new[TOKEN_EMBEDDING][glorp] == 0.25).all()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old if name != TOKEN_EMBEDDING)
    exported = Exported.load(tmp_path / "starter")
    assert exported.denoiser.text_encoder.config.vocab_size == len(tokenizer)
    for part in ("unet", "vae"):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "starter" / file).read_bytes() == (starter_dir / file).read_bytes()
    assert json.loads((tmp_path / "starter" / "atelier.json").read_text())["title"]


class Interrupted(Exception):
    """Stands for the end of the process right after a save."""


def _train(checkpoint: Path, *, interrupt: bool = False) -> tuple[WordRows, Denoiser]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    denoiser = Denoiser(build_unet(TINY), build_text_encoder(TINY, vocab_size=52, bos_token_id=50, eos_token_id=51))
    words = WordRows(denoiser.text_encoder.get_input_embeddings().weight.detach().clone(), [3, 7])

    def saved(_: nn.Module, step: int) -> None:
        if interrupt and step == 1:
            raise Interrupted

    train_words(
        denoiser,
        words,
        LatentSet(
            rng.standard_normal((8, 4, 8, 8)).astype(np.float16), rng.integers(0, 9, (8, 4, 77)).astype(np.int16)
        ),
        np.full(77, 51, np.int16),
        PLAN,
        batch_size=4,
        prediction_type="v_prediction",
        seed=3,
        ranks=ALONE,
        checkpoint=checkpoint,
        on_checkpoint=saved,
    )
    return words, denoiser


def test_only_the_rows_learn_and_a_resumed_run_gives_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = Denoiser(build_unet(TINY), build_text_encoder(TINY, vocab_size=52, bos_token_id=50, eos_token_id=51))
    words, denoiser = _train(tmp_path / "straight.pt")
    assert not torch.equal(words.rows, words.fixed[[3, 7]])
    others = [row for row in range(52) if row not in (3, 7)]
    assert torch.equal(words.embedding()[others], words.fixed[others])
    state = denoiser.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in before.state_dict().items())
    with pytest.raises(Interrupted):
        _train(tmp_path / "resumed.pt", interrupt=True)
    resumed, _ = _train(tmp_path / "resumed.pt")
    assert torch.equal(resumed.rows, words.rows)


def test_the_starter_that_ships_knows_the_words(starter_dir: Path) -> None:
    tokenizer = load_tokenizer(starter_dir / "tokenizer")
    ids = taught_ids(tokenizer, PHRASES, caption_lines())
    assert len(tokenizer("obesity, photo of a person, realistic", add_special_tokens=False).input_ids) == 8
    rows = load_file(starter_dir / "text_encoder" / "model.safetensors")[TOKEN_EMBEDDING]
    assert len(rows) == len(tokenizer)
    assert (rows[ids].abs().amax(dim=1) > 0).all()


def test_what_words_are_like_is_known_before(tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]) -> None:
    old, _ = tokenizers
    known = {old(word, add_special_tokens=False).input_ids[0] for line in caption_lines() for word in line.split()}
    for others in likenesses().values():
        assert set(old(" ".join(others), add_special_tokens=False).input_ids) <= known

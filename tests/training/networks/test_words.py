"""Textual inversion and pivotal tuning: a new word in training means what its file means afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training.networks.parts import SmallModel, all_parameters, equal, randomise, snapshot
from webui.errors import AdapterMismatch
from webui.library.entries import CLIP_VOCABULARY
from webui.pipeline.adapters.embeddings import Embedding, EmbeddingTable, bundled_embedding, read_embedding
from webui.pipeline.adapters.reading import read_adapter
from webui.pipeline.text_encoding import CLIP_RULES, ClipEncoder, TextEncoder
from webui.prompt.grammar import parse_prompt
from webui.prompt.tokenizer import ClipTokenizer
from webui.training.config import Method, Network
from webui.training.networks.attaching import attach
from webui.training.networks.embedding import new_embedding
from webui.training.networks.trainable import Trainable

FAMILIES = ("sd15", "sdxl")


@dataclass
class Words:
    """A small model, and its text encoders as prompts meet them."""

    model: SmallModel
    encoders: Mapping[str, ClipEncoder]

    @classmethod
    def of(cls, model: SmallModel) -> "Words":
        tokenizer = ClipTokenizer(CLIP_VOCABULARY)
        names = [name for name in model.modules if name != "unet"]
        ends = CLIP_RULES[model.base].pads_with_end
        encoders = {
            name: ClipEncoder(model.modules[name], tokenizer, pads_with_end=end)
            for name, end in zip(names, ends, strict=True)
        }
        return cls(model, encoders)

    def train(self, word: str, num_vectors: int, method: Method = "embedding") -> Trainable:
        network = Network(method=method, rank=2, alpha=1.0)
        embedding = new_embedding(self.encoders, "Zwibbel", word, num_vectors)
        return attach(self.model.modules, network, self.model.base, embedding=embedding)

    def encode(self, prompt: str, table: EmbeddingTable | None) -> Tensor:
        """Anew every time."""
        encoder = TextEncoder(list(self.encoders.values()), CLIP_RULES[self.model.base])
        if table is not None:
            encoder.embeddings = table.names
        for name, clip in self.encoders.items():
            clip.embed = partial(table.insert, name) if table is not None else None
        return encoder.encode(parse_prompt(prompt), clip_skip=0).context

    def encode_with(self, embedding: Embedding, prompt: str) -> Tensor:
        assert embedding.problem_with({n: e.model.config.hidden_size for n, e in self.encoders.items()}) == ""  # type: ignore[union-attr]
        return self.encode(prompt, EmbeddingTable([embedding], tuple(self.encoders)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Words]:
    folder = tmp_path_factory.mktemp("models")
    return {family: Words.of(SmallModel.write(folder / f"{family}.safetensors", family)) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def words(request: pytest.FixtureRequest, models: dict[str, Words]) -> Words:
    return models[request.param]


def test_a_new_word_starts_as_the_word_it_comes_from(words: Words) -> None:
    network = words.train("red cat", 2)
    assert torch.equal(words.encode("a zwibbel here", network.embeddings), words.encode("a red cat here", None))
    network.detach()
    network = words.train("cat", 3)
    assert torch.equal(words.encode("a zwibbel here", network.embeddings), words.encode("a cat cat cat here", None))
    network.detach()


def test_without_a_word_it_starts_near_nothing_and_follows_the_seed(words: Words) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = words.train("", 2)
        found.append(network.state())
        network.detach()
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])
    for name, vectors in found[0].items():
        component = name.split(".")[1]
        vocabulary = words.encoders[component].model.get_input_embeddings().weight  # type: ignore[operator]
        assert 0.2 < float(vectors.std() / vocabulary.std()) < 0.8


def test_only_the_vectors_move(words: Words) -> None:
    before = snapshot(words.model.modules)
    network = words.train("cat", 2)
    assert set(network.parameter_groups()) == {"embedding"}
    assert {tuple(p.shape) for p in all_parameters(network)} == {
        (2, e.model.config.hidden_size) for e in words.encoders.values()
    }  # type: ignore[union-attr]
    target = words.encode("a dog here", None).detach()
    optimizer = torch.optim.Adam(all_parameters(network), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = (words.encode("a zwibbel here", network.embeddings) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert equal(snapshot(words.model.modules), before)
    assert all(p.grad is None for module in words.model.modules.values() for p in module.parameters())
    network.detach()


def test_the_file_means_in_prompts_what_the_word_meant_in_training(words: Words, tmp_path: Path) -> None:
    network = words.train("cat", 3)
    randomise(network)
    with torch.no_grad():
        live = words.encode("a zwibbel here", network.embeddings)
    (path,) = network.write(tmp_path, "my run", dtype=torch.float32, metadata={"ss_steps": "3"})
    assert path.name == "Zwibbel.safetensors"
    keys = {"emb_params"} if len(words.encoders) == 1 else {"clip_l", "clip_g"}
    assert load_file(path).keys() == keys
    network.detach()
    with torch.no_grad():
        assert torch.equal(words.encode_with(read_embedding(path), "a zwibbel here"), live)


def test_weight_0_is_what_the_word_started_from(words: Words) -> None:
    network = words.train("cat", 1)
    first = words.encode("a zwibbel here", network.embeddings).detach()
    randomise(network)
    trained = words.encode("a zwibbel here", network.embeddings).detach()
    assert not torch.equal(trained, first)
    with network.scaled(0.0):
        assert torch.equal(words.encode("a zwibbel here", network.embeddings), first)
    with network.scaled(0.7):
        assert torch.equal(words.encode("a zwibbel here", network.embeddings), trained)
    assert torch.equal(words.encode("a zwibbel here", network.embeddings).detach(), trained)
    network.detach()


def test_pivotal_tuning_trains_and_writes_a_word_and_an_adapter(words: Words, tmp_path: Path) -> None:
    base = words.model.answers()
    network = words.train("cat", 2, "pivotal")
    assert set(network.parameter_groups()) == {"unet", "text_encoder", "embedding"}
    first = words.encode("a zwibbel here", network.embeddings).detach()
    randomise(network)
    kept = {name: value.clone() for name, value in network.state().items()}
    with torch.no_grad():
        live, answers = words.encode("a zwibbel here", network.embeddings), words.model.answers()
        with network.scaled(0.0):
            assert torch.equal(words.encode("a zwibbel here", network.embeddings), first)
            assert equal(words.model.answers(), base)
    paths = network.write(tmp_path, "my run", dtype=torch.float32, metadata={})
    assert [path.name for path in paths] == ["my run.safetensors", "Zwibbel.safetensors"]
    randomise(network, seed=1)
    network.load_state(kept)
    with torch.no_grad():
        assert equal(words.model.answers(), answers)
        assert torch.equal(words.encode("a zwibbel here", network.embeddings), live)
    network.detach()
    adapter = read_adapter(paths[0])
    bundled = bundled_embedding(paths[0], "Zwibbel", "key", adapter.embeddings["Zwibbel"])
    beside = read_embedding(paths[1])
    assert adapter.problems == ()
    assert equal(bundled.parts, beside.parts)
    with torch.no_grad():
        found = words.model.with_file(paths[0])
    assert all(float((found[name] - answers[name]).norm() / answers[name].norm()) < 1e-4 for name in answers)


def test_a_word_takes_no_adapter(words: Words) -> None:
    network = words.train("cat", 2, "pivotal")
    tensors = network.tensors()
    network.load_tensors(tensors)
    network.detach()
    alone = words.train("cat", 2)
    assert alone.tensors() == {}
    alone.load_tensors({})
    with pytest.raises(AdapterMismatch, match="no adapter"):
        alone.load_tensors(tensors)
    alone.detach()


def test_a_word_needs_its_first_vectors(models: dict[str, Words]) -> None:
    modules = models["sd15"].model.modules
    for method in ("embedding", "pivotal"):
        with pytest.raises(ValueError, match="first vectors"):
            attach(modules, Network(method=method), "sd1")

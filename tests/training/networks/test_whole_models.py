"""Training all weights: the file that comes out is the model that was trained, and the base stays at hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.model_files import info_of, write_folder, write_original_layout
from tests.training.networks.parts import SmallModel, equal, few_blocks, largest_difference, randomise, snapshot
from webui.errors import AdapterMismatch, InvalidRequest
from webui.pipeline.sources import open_checkpoint
from webui.training.config import Network
from webui.training.networks.attaching import attach
from webui.training.networks.trainable import Trainable


@pytest.fixture(params=["sd15", "sdxl-inpaint"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallModel]:
    path = tmp_path / "base.safetensors"
    write_original_layout(path, request.param, sizes=few_blocks(request.param))
    yield SmallModel.of(open_checkpoint(info_of(path, request.param)))


def train(model: SmallModel, *, text_encoder: bool = True) -> Trainable:
    network = Network(method="full", text_encoder=text_encoder)
    return attach(model.modules, network, model.base, checkpoint=model.source)


def test_all_weights_learn_and_the_file_is_the_trained_model(model: SmallModel, tmp_path: Path) -> None:
    before, base = snapshot(model.modules), model.answers()
    network = train(model)
    groups = network.parameter_groups()
    assert sum(p.numel() for group in groups.values() for p in group) == sum(v.numel() for v in before.values())
    sum(answer.square().mean() for answer in model.answers().values()).backward()  # type: ignore[union-attr]
    moving = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert {"unet.conv_in.weight", "unet.conv_out.bias"} <= set(moving)
    randomise(network, spread=0.02)
    with torch.no_grad():
        live = model.answers()
    (path,) = network.write(tmp_path / "result", "made", dtype=torch.float32, metadata={"modelspec.title": "made"})
    assert path == tmp_path / "result" / "made.safetensors"
    written = open_checkpoint(info_of(path, model.family))
    made = SmallModel.of(written)
    assert equal(made.answers(), live)
    vae, old = written.component("vae"), model.source.component("vae")
    assert vae is not None and old is not None
    assert all(torch.equal(vae.tensor(name), old.tensor(name).float()) for name in old.names())
    network.detach()
    assert equal(snapshot(model.modules), before)
    assert equal(model.answers(), base)
    assert not any(p.requires_grad for module in model.modules.values() for p in module.parameters())


def test_weights_between_base_and_trained_lie_on_the_line(model: SmallModel) -> None:
    before, base = snapshot(model.modules), model.answers()
    network = train(model)
    randomise(network, spread=0.02)
    trained = snapshot(model.modules)
    with network.scaled(0.0):
        assert equal(snapshot(model.modules), before)
        assert equal(model.answers(), base)
    with network.scaled(0.25):
        middle = {name: value + 0.25 * (trained[name] - value) for name, value in before.items()}
        assert all(torch.allclose(value, middle[name], atol=1e-6) for name, value in snapshot(model.modules).items())
    with network.scaled(1.0):
        assert equal(snapshot(model.modules), trained)
    assert equal(snapshot(model.modules), trained)


def test_text_encoders_stay_when_they_are_not_to_be_trained(model: SmallModel) -> None:
    network = train(model, text_encoder=False)
    assert set(network.parameter_groups()) == {"unet"}
    assert not any(p.requires_grad for p in model.modules["text_encoder"].parameters())
    network.detach()


def test_the_state_brings_a_model_back(model: SmallModel) -> None:
    network = train(model)
    randomise(network, spread=0.02)
    kept = {name: value.clone() for name, value in network.state().items()}
    with torch.no_grad():
        expected = model.answers()
        randomise(network, seed=2, spread=0.02)
        network.load_state(kept)
        assert equal(model.answers(), expected)
    with pytest.raises(AdapterMismatch, match=r"unet\.conv_in\.weight"):
        network.load_state({name: value for name, value in kept.items() if name != "unet.conv_in.weight"})
    assert network.tensors() == {}
    network.detach()


def test_half_precision_is_refused_with_a_reason(model: SmallModel) -> None:
    model.modules["unet"].to(torch.bfloat16)
    with pytest.raises(InvalidRequest, match=r"trained in float32, and the unet is torch\.bfloat16"):
        train(model)


def test_half_precision_is_for_the_file(model: SmallModel, tmp_path: Path) -> None:
    base = model.answers()
    network = train(model)
    randomise(network, spread=0.02)
    with torch.no_grad():
        live = model.answers()
    (path,) = network.write(tmp_path / "result", "made", dtype=torch.float16, metadata={})
    network.detach()
    made = SmallModel.of(open_checkpoint(info_of(path, model.family)))
    assert path.stat().st_size < 1.05 * model.source.info.path.stat().st_size
    assert largest_difference(made.answers(), live, base) < 0.02


def test_a_model_with_a_vocabulary_of_its_own_becomes_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "base", "sd15", sizes=few_blocks("sd15"))
    model = SmallModel.of(open_checkpoint(info_of(folder)))
    network = train(model)
    randomise(network, spread=0.02)
    with torch.no_grad():
        live = model.answers()
    (path,) = network.write(tmp_path / "result", "made", dtype=torch.float32, metadata={})
    assert path == tmp_path / "result" / "made"
    made = SmallModel.of(open_checkpoint(info_of(path)))
    assert equal(made.answers(), live)
    assert (path / "tokenizer" / "vocab.json").read_bytes() == (folder / "tokenizer" / "vocab.json").read_bytes()
    network.detach()


def test_the_whole_model_needs_its_checkpoint(model: SmallModel) -> None:
    with pytest.raises(ValueError, match="the checkpoint that it came from"):
        attach(model.modules, Network(method="full"), model.base)

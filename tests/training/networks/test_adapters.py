"""Adapters on small models of all families: what trains is what the file gives, here and in other programs."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests.model_files import component_configs, sizes_of, write_folder
from tests.training.networks.parts import (
    SmallModel,
    all_parameters,
    answers_of,
    equal,
    few_blocks,
    largest_difference,
    randomise,
    snapshot,
)
from webui.errors import AdapterMismatch
from webui.library.families import FAMILIES
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.reading import read_adapter
from webui.training.config import Layers, Method, Network
from webui.training.networks.attaching import attach
from webui.training.networks.methods import make_layers
from webui.training.optimizers import Lion

METHODS: tuple[Method, ...] = ("lora", "locon", "dora", "loha", "lokr", "ia3", "oft")
FAMILY_IDS = ("sd15", "sd20", "sdxl", "sd15-inpaint")
FAMILY_METHODS = [("sd15", method) for method in METHODS] + [
    ("sdxl", "locon"), ("sdxl", "dora"), ("sdxl", "lokr"), ("sd20", "loha"), ("sd20", "locon"),
    ("sd15-inpaint", "locon"), ("sd15-inpaint", "oft"),
]  # fmt: skip


def network_of(method: Method, layers: Layers = "all", **more: object) -> Network:
    """alpha is not rank, and convolutions have values of their own."""
    values = {"rank": 4, "alpha": 3.0, "conv_rank": 2, "conv_alpha": 1.5, "oft_block": 4, **more}
    return Network.model_validate({"method": method, "layers": layers, **values})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SmallModel]:
    folder = tmp_path_factory.mktemp("models")
    return {family: SmallModel.write(folder / f"{family}.safetensors", family) for family in FAMILY_IDS}


@pytest.fixture
def sd15(models: dict[str, SmallModel]) -> Iterator[SmallModel]:
    model = models["sd15"]
    before = snapshot(model.modules)
    yield model
    assert equal(snapshot(model.modules), before)
    assert not any("forward" in part.__dict__ for module in model.modules.values() for part in module.modules())


@pytest.mark.parametrize(("family", "method"), FAMILY_METHODS)
def test_the_file_gives_in_the_engine_what_the_live_network_gives(
    models: dict[str, SmallModel], family: str, method: Method, tmp_path: Path
) -> None:
    model = models[family]
    pristine = snapshot(model.modules)
    base = model.answers()
    network = attach(model.modules, network_of(method), model.base)
    randomise(network)
    with torch.no_grad():
        live = model.answers()
        with network.scaled(0.6):
            weaker = model.answers()
        with network.scaled(1.0):
            whole = model.answers()
        with network.scaled(0.0):
            none = model.answers()
        assert equal(model.answers(), live)
    assert equal(none, base)
    (path,) = network.write(tmp_path, "made", dtype=torch.float32, metadata={"ss_network_dim": "4"})
    network.detach()
    assert equal(snapshot(model.modules), pristine)
    assert read_adapter(path).metadata["ss_network_dim"] == "4"
    assert read_adapter(path).problems == ()
    assert largest_difference(model.with_file(path), live, base) < 1e-4
    assert largest_difference(whole, live, base) < 1e-4
    assert largest_difference(model.with_file(path, 0.6), weaker, base) < 1e-4
    assert equal(model.answers(), base)


@pytest.mark.parametrize(("family", "method"), [("sd15", "locon"), ("sdxl", "lora")])
def test_diffusers_gives_with_the_file_what_the_live_network_gives(family: str, method: Method, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", family, dtype="F32", sizes=few_blocks(family))
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder)
    names = ("unet", "text_encoder", "text_encoder_2")
    modules = {name: part for name in names if (part := getattr(pipeline, name, None)) is not None}
    with torch.no_grad():
        base = answers_of(modules)
        network = attach(modules, network_of(method), FAMILIES[family].adapter_base)
        randomise(network)
        live = answers_of(modules)
        (path,) = network.write(tmp_path, "made", dtype=torch.float32, metadata={})
        network.detach()
        pipeline.load_lora_weights(tmp_path, weight_name=path.name)
        found = answers_of(modules)
    assert largest_difference(found, live, base) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_all_factors_learn_and_nothing_else_does(sd15: SmallModel, method: Method) -> None:
    network = attach(sd15.modules, network_of(method), "sd1")
    first = {name: value.clone() for name, value in network.state().items()}
    network.train()
    groups = network.parameter_groups()
    assert set(groups) == {"unet", "text_encoder"}
    assert [id(p) for group in groups.values() for p in group] == [id(p) for p in all_parameters(network)]
    # A step of Lion has one size: some of this small model's layers, whose norms take the time's shift out again, have
    # gradients of 1e-14, which Adam's eps makes steps of that are lost in rounding.
    optimizer = Lion([{"params": all_parameters(network)}], lr=1e-3, weight_decay=0.0)
    losses = []
    for _ in range(3):
        answers = sd15.answers()
        loss = sum(((answer - 1) ** 2).mean() for answer in answers.values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    still = [name for name, value in network.state().items() if torch.equal(value, first[name])]
    assert not still
    assert all(parameter.grad is None for module in sd15.modules.values() for parameter in module.parameters())
    network.detach()


def test_what_needed_gradients_before_needs_them_afterwards() -> None:
    unet = nn.ModuleDict({"attentions": nn.ModuleDict({"proj_in": nn.Linear(4, 4)}), "conv_in": nn.Linear(4, 4)})
    unet.config = {}
    unet["conv_in"].requires_grad_(False)
    network = attach({"unet": unet}, network_of("lora"), "sd1")
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    network.detach()
    assert [parameter.requires_grad for parameter in unet.parameters()] == [True, True, False, False]


@pytest.mark.parametrize("method", ["lora", "dora", "loha"])
def test_gradients_are_the_same_with_gradient_checkpointing(sd15: SmallModel, method: Method) -> None:
    unet = sd15.modules["unet"]
    assert isinstance(unet, UNet2DConditionModel)
    network = attach(sd15.modules, network_of(method, text_encoder=False), "sd1")
    randomise(network, spread=0.05)
    gradients = []
    for use in (False, True):
        if use:
            unet.enable_gradient_checkpointing()
            unet.train()
        sd15.answers()["unet"].square().mean().backward()
        gradients.append([parameter.grad for parameter in all_parameters(network)])
        for parameter in all_parameters(network):
            parameter.grad = None
    unet.disable_gradient_checkpointing()
    unet.eval()
    network.detach()
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(*gradients, strict=True))


def test_the_state_brings_a_network_back(sd15: SmallModel) -> None:
    network = attach(sd15.modules, network_of("dora", "attention"), "sd1")
    randomise(network, seed=1)
    kept = {name: value.clone() for name, value in network.state().items()}
    with torch.no_grad():
        expected = sd15.answers()
        randomise(network, seed=2)
        assert not equal(sd15.answers(), expected)
        network.load_state(kept)
        assert equal(sd15.answers(), expected)
        name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.dora_scale"
        with pytest.raises(AdapterMismatch, match=name.replace(".", r"\.")):
            network.load_state({key: value for key, value in kept.items() if key != name})
        with pytest.raises(AdapterMismatch, match=name.replace(".", r"\.")):
            network.load_state({**kept, name: torch.ones(3)})
        assert equal(sd15.answers(), expected)
    network.detach()


def test_training_goes_on_from_a_file(sd15: SmallModel, tmp_path: Path) -> None:
    network = attach(sd15.modules, network_of("lokr", "attention"), "sd1")
    randomise(network)
    with torch.no_grad():
        expected = sd15.answers()
    (path,) = network.write(tmp_path, "made", dtype=torch.float32, metadata={})
    network.detach()
    fresh = attach(sd15.modules, network_of("lokr", "attention"), "sd1")
    paths = {name: module_paths(module.state_dict()) for name, module in sd15.modules.items()}
    names = TargetNames(paths, sd15.modules["unet"].config)  # type: ignore[arg-type]
    groups = {names.find(prefix): group.tensors for prefix, group in read_adapter(path).groups.items()}
    tensors = {target: group for target, group in groups.items() if target is not None}
    fresh.load_tensors(tensors)
    with torch.no_grad():
        assert equal(sd15.answers(), expected)
    missing = dict(list(tensors.items())[1:])
    with pytest.raises(AdapterMismatch, match=r"is for \d+ layers and this training for \d+: .* is missing"):
        fresh.load_tensors(missing)
    fresh.detach()


def test_a_limit_on_norms_holds_for_every_layer(sd15: SmallModel) -> None:
    network = attach(sd15.modules, network_of("locon", max_norm=0.5), "sd1")
    randomise(network, spread=0.01)
    assert network.after_step() == 0
    randomise(network, spread=1.0)
    assert network.after_step() == network.num_layers
    for group in network.tensors().values():
        rank = group["lora_down"].shape[0]
        change = float(group["alpha"]) / rank * group["lora_up"].flatten(1) @ group["lora_down"].flatten(1)
        assert float(change.norm()) <= 0.5001
    network.detach()


def test_dropouts_of_all_layers_apply_while_training_only(sd15: SmallModel) -> None:
    network = attach(sd15.modules, network_of("lora", module_dropout=1.0), "sd1")
    with torch.no_grad():
        base_and_more = sd15.answers()
        randomise(network)
        trained = sd15.answers()
        network.train()
        assert equal(sd15.answers(), base_and_more)
        with network.scaled(1.0):
            assert equal(sd15.answers(), trained)
        network.eval()
        assert equal(sd15.answers(), trained)
    network.detach()


def test_first_values_follow_the_seed(sd15: SmallModel) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = attach(sd15.modules, network_of("loha", "attention"), "sd1")
        states.append(network.state())
        network.detach()
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


# Layers ---------------------------------------------------------------------------------------------------------------


@cache
def networks_without_memory(family: str) -> dict[str, nn.Module]:
    """At full size, on the meta device."""
    made: dict[str, nn.Module] = {}
    with torch.device("meta"):
        for name, config in component_configs(sizes_of(family, small=False)).items():
            if name == "unet":
                made[name] = UNet2DConditionModel.from_config(config)
            elif name.startswith("text"):
                kind = CLIPTextModelWithProjection if "WithProjection" in config["architectures"][0] else CLIPTextModel
                made[name] = kind(kind.config_class(**config))
    return made


@pytest.mark.parametrize(
    ("family", "method", "layers", "unet", "text"),
    [
        ("sd15", "lora", "attention", 128, 48),
        ("sd15", "lora", "attention and mlp", 192, 72),
        ("sd15", "locon", "attention and mlp", 192 + 86, 72),
        ("sd15", "ia3", "attention and mlp", 5 * 16, 3 * 12),
        ("sdxl", "lora", "attention and mlp", 722, 72 + 192),
        ("sdxl", "locon", "attention and mlp", 722 + 66, 72 + 192),
    ],
)
def test_as_many_layers_are_trained_as_in_kohyas_trainer(
    family: str, method: Method, layers: Layers, unet: int, text: int
) -> None:
    modules = networks_without_memory(family)
    made = make_layers(modules, network_of(method, layers, rank=1, conv_rank=1))
    assert sum(target.component == "unet" for target in made) == unet
    assert sum(target.component != "unet" for target in made) == text
    without_text = make_layers(modules, network_of(method, layers, rank=1, conv_rank=1, text_encoder=False))
    assert len(without_text) == unet


def test_a_plain_lora_has_no_convolution_that_looks_at_neighbours(sd15: SmallModel) -> None:
    network = attach(sd15.modules, network_of("lora", "all"), "sd1")
    shapes = [tuple(group["lora_down"].shape[2:]) for group in network.tensors().values()]
    assert set(shapes) == {(), (1, 1)}
    network.detach()

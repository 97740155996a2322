"""Files that training writes, in peft: its own layers with the tensors of the file give what the live network gave."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training.networks.parts import SmallModel, answers_of, largest_difference, randomise
from webui.training.config import Network
from webui.training.networks.attaching import attach

ALPHA, RANK = 3.0, 2
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return SmallModel.write(tmp_path_factory.mktemp("peft") / "base.safetensors", "sd15")


def lora(layer: Any, tensors: Tensors) -> None:
    layer.lora_A["default"].weight.copy_(tensors["lora_down.weight"])
    layer.lora_B["default"].weight.copy_(tensors["lora_up.weight"])
    layer.scaling["default"] = float(tensors["alpha"]) / len(tensors["lora_down.weight"])


def loha(layer: Any, tensors: Tensors) -> None:
    for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"):
        getattr(layer, name)["default"].copy_(tensors[name])
    layer.scaling["default"] = float(tensors["alpha"]) / tensors["hada_w1_b"].shape[0]


def lokr(layer: Any, tensors: Tensors) -> None:
    for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"):
        own = getattr(layer, name)
        if "default" in own:
            del own["default"]
        if name in tensors:
            own["default"] = nn.Parameter(tensors[name])
    rank = tensors["lokr_w2_b"].shape[0] if "lokr_w2_b" in tensors else None
    layer.scaling["default"] = float(tensors["alpha"]) / rank if rank else 1.0


def ia3(layer: Any, tensors: Tensors) -> None:
    own = layer.ia3_l["default"]
    own.copy_(1.0 + tensors["weight"].reshape(own.shape))


KINDS: Mapping[str, Any] = {
    "lora": (lora, lambda paths: LoraConfig(r=RANK, lora_alpha=1, target_modules=paths)),
    "loha": (loha, lambda paths: LoHaConfig(r=RANK, alpha=1, target_modules=paths)),
    "lokr": (lokr, lambda paths: LoKrConfig(r=RANK, alpha=1, target_modules=paths)),
    "ia3": (ia3, lambda paths: IA3Config(target_modules=paths, feedforward_modules=[p for p in paths if ".ff." in p])),
}


def by_layer(path: Path) -> Iterator[tuple[str, Tensors]]:
    """kohya's name of each layer, and its tensors."""
    layers: dict[str, Tensors] = {}
    for key, tensor in load_file(path).items():
        layer, _, name = key.partition(".")
        layers.setdefault(layer, {})[name] = tensor
    yield from layers.items()


@pytest.mark.parametrize("method", KINDS)
def test_peft_gives_the_same_output_with_the_tensors_of_the_file(
    model: SmallModel, tmp_path: Path, method: str
) -> None:
    settings = Network(method=method, rank=RANK, alpha=ALPHA, layers="attention and mlp", text_encoder=False)  # type: ignore[arg-type]
    unet = model.modules["unet"]
    with torch.no_grad():
        base = answers_of({"unet": unet})
        network = attach({"unet": unet}, settings, model.base)
        randomise(network)
        live = answers_of({"unet": unet})
        (path,) = network.write(tmp_path, "made", dtype=torch.float32, metadata={})
        network.detach()
        other = copy.deepcopy(unet)
        names = {f"lora_unet_{name.replace('.', '_')}": name for name, _ in other.named_modules()}
        layers = {names[name]: tensors for name, tensors in by_layer(path)}
        fill, config_of = KINDS[method]
        other = inject_adapter_in_model(config_of(list(layers)), other)
        for name, tensors in layers.items():
            fill(other.get_submodule(name), tensors)
        other.eval()
        assert largest_difference(answers_of({"unet": other}), live, base) < 1e-4

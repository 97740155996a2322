"""How large the file will be that a run makes: from the shapes of its base's layers. Imports no torch.

Counts the numbers that each method stores, as `networks` makes them, and reads the headers of the base's files alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

from webui.errors import WebUIError
from webui.library.entries import CheckpointInfo
from webui.library.folder_facts import weight_files
from webui.library.header import TensorInfo, read_header
from webui.training.config import Layers, Method, Network, TrainingConfig
from webui.training.networks.halves import split_size

BYTES_PER_NUMBER = 2
"""Files are written in half precision; words in single."""
BYTES_PER_NUMBER_OF_A_WORD = 4
BYTES_PER_NAME = 110
"""What a tensor takes in the header of a file."""
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
UNET = re.compile(r"(^|\.)(model\.diffusion_model|unet)\.")
TEXT = re.compile(r"(^|\.)(cond_stage_model|conditioner|text_encoder(_2)?)\.")
TOKENS = re.compile(r"token_embedding\.weight$")
PLACES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\.attn[12]\.|\.self_attn\.|\.attn\.(in_proj_weight|out_proj)"), "attention"),
    (re.compile(r"attentions\.|transformer_blocks\.|\.proj_(in|out)\.|\.mlp\."), "mlp"),
    (re.compile(r"resnets\.|downsamplers\.|upsamplers\.|(in|out|emb)_layers\.|skip_connection|\.op\.|\.\d\.conv\."),
     "convolutions"),
)  # fmt: skip
"""The first pattern that a weight's name has tells where the layer lies, in the names of both layouts."""
WITHIN: Mapping[Layers, tuple[str, ...]] = MappingProxyType(
    {
        "attention": ("attention",),
        "attention and mlp": ("attention", "mlp"),
        "all": ("attention", "mlp", "convolutions"),
    }
)
FUSED = "in_proj_weight"
"""Query, key and value in one weight, as OpenCLIP has them."""
IA3 = re.compile(r"(to_k|to_v|k_proj|v_proj|ff\.net\.2|fc2|c_proj)\.weight$|in_proj_weight$")
IA3_INPUTS = re.compile(r"(ff\.net\.2|fc2|c_proj)\.weight$")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that may be trained: its weight's name and shape, and where it lies."""

    name: str
    shape: tuple[int, ...]
    place: str
    is_text: bool

    @property
    def kernel(self) -> int:
        return prod(self.shape[2:])


def result_bytes(config: TrainingConfig, base: CheckpointInfo) -> int | None:
    """About the size of what comes out; None where the base's files do not say, as old ones."""
    try:
        tensors = dict(_tensors(base.path))
    except (WebUIError, OSError):
        return None
    if not tensors:
        return None
    network = config.network
    if network.method == "full":
        return BYTES_PER_NUMBER * sum(prod(info.shape) for info in _whole(base.path))
    word = _word_bytes(network, tensors) if network.method in ("embedding", "pivotal") else 0
    if network.method == "embedding":
        return word
    return word + sum(_layer_bytes(layer, network) for layer in _layers(tensors) if _is_trained(layer, network))


def _tensors(path: Path) -> Iterator[tuple[str, TensorInfo]]:
    """Of the networks that are trained, under names that begin with the component's. Raises UnsupportedModel."""
    if not path.is_dir():
        found = read_header(path).tensors
        yield from ((name, info) for name, info in found.items() if UNET.search(name) or TEXT.search(name))
        return
    for component in COMPONENTS:
        for file in weight_files(path / component):
            yield from ((f"{component}.{name}", info) for name, info in read_header(file).tensors.items())


def _whole(path: Path) -> Iterator[TensorInfo]:
    files = [path] if not path.is_dir() else [f for part in (*COMPONENTS, "vae") for f in weight_files(path / part)]
    for file in files:
        yield from (info for name, info in read_header(file).tensors.items() if not name.startswith("model_ema."))


def _layers(tensors: Mapping[str, TensorInfo]) -> Iterator[Layer]:
    for name, info in tensors.items():
        place = next((place for pattern, place in PLACES if pattern.search(name)), None)
        if place is None or len(info.shape) < 2 or not name.endswith("weight"):
            continue
        is_text = UNET.search(name) is None
        if name.endswith(FUSED):
            yield from (Layer(name, (info.shape[0] // 3, info.shape[1]), place, is_text) for _ in range(3))
        else:
            yield Layer(name, info.shape, place, is_text)


def _is_trained(layer: Layer, network: Network) -> bool:
    if layer.is_text and not network.text_encoder:
        return False
    wanted = layer.place in WITHIN[network.layers] or (network.method == "locon" and layer.place == "convolutions")
    return wanted and not (network.method in ("lora", "pivotal") and layer.kernel > 1)


def _layer_bytes(layer: Layer, network: Network) -> int:
    sizes = SIZES[network.method](layer, network)
    return sum(sizes) * BYTES_PER_NUMBER + (len(sizes) + 1) * BYTES_PER_NAME if sizes else 0


def _rank(layer: Layer, network: Network) -> int:
    return network.conv_rank if layer.kernel > 1 else network.rank


def _lora(layer: Layer, network: Network) -> list[int]:
    rank = _rank(layer, network)
    return [rank * layer.shape[1] * layer.kernel, rank * layer.shape[0]]


def _dora(layer: Layer, network: Network) -> list[int]:
    return [*_lora(layer, network), layer.shape[1]]


def _loha(layer: Layer, network: Network) -> list[int]:
    rank, outputs, values = _rank(layer, network), layer.shape[0], prod(layer.shape[1:])
    return [rank * outputs, rank * values] * 2


def _lokr(layer: Layer, network: Network) -> list[int]:
    rank, factor = _rank(layer, network), network.lokr_factor or -1
    (rows, row_size), (columns, column_size) = (split_size(size, factor) for size in layer.shape[:2])
    if 2 * rank >= max(row_size, column_size):
        return [rows * columns, row_size * column_size * layer.kernel]
    return [rows * columns, row_size * rank, rank * column_size * layer.kernel]


def _ia3(layer: Layer, network: Network) -> list[int]:
    if not IA3.search(layer.name):
        return []
    return [layer.shape[1 if IA3_INPUTS.search(layer.name) else 0]]


def _oft(layer: Layer, network: Network) -> list[int]:
    outputs = layer.shape[0]
    size = next(n for n in range(min(network.oft_block, outputs), 0, -1) if outputs % n == 0)
    return [outputs * size]


SIZES: Mapping[Method, Callable[[Layer, Network], list[int]]] = MappingProxyType(
    {
        "lora": _lora,
        "pivotal": _lora,
        "locon": _lora,
        "dora": _dora,
        "loha": _loha,
        "lokr": _lokr,
        "ia3": _ia3,
        "oft": _oft,
    }
)
"""How many numbers each tensor has that a method stores of a layer."""


def _word_bytes(network: Network, tensors: Mapping[str, TensorInfo]) -> int:
    width = sum(info.shape[-1] for name, info in tensors.items() if TOKENS.search(name))
    return network.num_vectors * width * BYTES_PER_NUMBER_OF_A_WORD

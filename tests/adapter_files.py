"""Adapter files of every type and naming style, made from a seed. Knows the formats by itself, not from the program."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Shape = tuple[int, ...]
Tensors = dict[str, Tensor]
Random = Callable[..., Tensor]
Maker = Callable[[Random, Shape, int], Tensors]

MODERATE = 0.3
"""Standard deviation of factors: changes of about the size of a weight, so that no error hides."""


def tensors_for(variant: str, shape: Shape, *, rank: int = 4, alpha: float | None = 2.0, seed: int = 0) -> Tensors:
    """A module's tensors with the ends of their keys ("lora_up.weight", "alpha", ...) for a weight of `shape`."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int, std: float = MODERATE) -> Tensor:
        return torch.randn(size, generator=generator) * std

    tensors = VARIANTS[variant](random, shape, rank)
    if alpha is not None and "alpha" not in tensors and variant not in WITHOUT_ALPHA:
        tensors["alpha"] = torch.tensor(float(alpha))
    return tensors


def write_adapter(
    path: Path,
    modules: Mapping[tuple[str, str], Shape],
    *,
    variant: str = "lora",
    naming: str = "kohya",
    rank: int = 4,
    alpha: float | None = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """A file that changes `modules`: (component, diffusers module path) -> shape of the weight."""
    tensors: Tensors = dict(extra or {})
    for i, ((component, module), shape) in enumerate(modules.items()):
        prefix, ends = NAMINGS[naming](component, module)
        for end, tensor in tensors_for(variant, shape, rank=rank, alpha=alpha, seed=seed * 10_000 + i).items():
            tensors[f"{prefix}.{ends.get(end, end)}"] = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, dict(metadata or {}))
    else:
        torch.save(tensors, path)
    return path


def modules_of(
    components: Mapping[str, nn.Module], wanted: Callable[[str, str], bool] | None = None
) -> dict[tuple[str, str], Shape]:
    """(component, path) -> weight shape of the linear layers and convolutions of networks that `wanted` accepts."""
    return {
        (component, path): tuple(module.weight.shape)
        for component, network in components.items()
        for path, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and (wanted is None or wanted(component, path))
    }


def attention_of(component: str, path: str) -> bool:
    """What a plain LoRA trains: for `modules_of`."""
    if component == "unet":
        return "attentions" in path
    return "self_attn" in path or "mlp" in path


# Factors -------------------------------------------------------------------------------------------------------------


def _rest(shape: Shape) -> int:
    return math.prod(shape[1:])


def _lora(random: Random, shape: Shape, rank: int) -> Tensors:
    up = random(shape[0], rank, *(1 for _ in shape[2:]))
    return {"lora_up.weight": up, "lora_down.weight": random(rank, *shape[1:])}


def _tucker(random: Random, shape: Shape, rank: int) -> Tensors:
    return {
        "lora_up.weight": random(shape[0], rank, 1, 1),
        "lora_mid.weight": random(rank, rank, *shape[2:]),
        "lora_down.weight": random(rank, shape[1], 1, 1),
    }


def _loha(random: Random, shape: Shape, rank: int) -> Tensors:
    return {
        f"hada_w{i}_{half}": random(shape[0], rank) if half == "a" else random(rank, _rest(shape))
        for i in (1, 2)
        for half in "ab"
    }


def _loha_tucker(random: Random, shape: Shape, rank: int) -> Tensors:
    tensors = {f"hada_t{i}": random(rank, rank, *shape[2:]) for i in (1, 2)}
    for i in (1, 2):
        tensors[f"hada_w{i}_a"] = random(rank, shape[0])
        tensors[f"hada_w{i}_b"] = random(rank, shape[1])
    return tensors


def split(size: int) -> tuple[int, int]:
    """The two factors of `size` that lie closest together, the smaller one first."""
    small = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return small, size // small


def _lokr(first: str, second: str) -> Maker:
    def make(random: Random, shape: Shape, rank: int) -> Tensors:
        (a, c), (b, d) = split(shape[0]), split(shape[1])
        tensors: Tensors = {}
        if first == "whole":
            tensors["lokr_w1"] = random(a, b)
        else:
            tensors |= {"lokr_w1_a": random(a, rank), "lokr_w1_b": random(rank, b)}
        if second == "whole":
            tensors["lokr_w2"] = random(c, d, *shape[2:])
        elif second == "factored":
            tensors |= {"lokr_w2_a": random(c, rank), "lokr_w2_b": random(rank, d * math.prod(shape[2:]))}
        else:
            tensors["lokr_t2"] = random(rank, rank, *shape[2:])
            tensors |= {"lokr_w2_a": random(rank, c), "lokr_w2_b": random(rank, d)}
        return tensors

    return make


def _dora(make: Maker, axis: int) -> Maker:
    def make_dora(random: Random, shape: Shape, rank: int) -> Tensors:
        size = [shape[axis] if i == axis else 1 for i in range(len(shape))]
        return {**make(random, shape, rank), "dora_scale": 1 + random(*size).abs()}

    return make_dora


def _ia3(*, on_input: bool) -> Maker:
    def make(random: Random, shape: Shape, rank: int) -> Tensors:
        count = shape[1] if on_input else shape[0]
        weight = random(count) if len(shape) == 2 else random(1, count, *(1 for _ in shape[2:]))
        return {"weight": weight, "on_input": torch.tensor(int(on_input))}

    return make


def _oft(*, constraint: float, rescale: bool = False) -> Maker:
    def make(random: Random, shape: Shape, rank: int) -> Tensors:
        size, count = split(shape[0])
        tensors = {"oft_blocks": random(count, size, size), "alpha": torch.tensor(constraint)}
        if rescale:
            tensors["rescale"] = 1 + random(shape[0], *(1 for _ in shape[1:]))
        return tensors

    return make


def _oft_input(random: Random, shape: Shape, rank: int) -> Tensors:
    size = 4
    return {"oft_R.weight": random(_rest(shape) // size, size * (size - 1) // 2)}


def _oft_input_shared(random: Random, shape: Shape, rank: int) -> Tensors:
    return {"oft_R.weight": random(1, 6)}


def _boft(*, constraint: float = 0.0, rescale: bool = False) -> Maker:
    def make(random: Random, shape: Shape, rank: int) -> Tensors:
        stages = (shape[0] & -shape[0]).bit_length() - 1
        size = 2
        tensors = {
            "oft_blocks": random(stages, shape[0] // size, size, size),
            "alpha": torch.tensor(constraint),
        }
        if rescale:
            tensors["rescale"] = 1 + random(shape[0], *(1 for _ in shape[1:]))
        return tensors

    return make


def _glora(random: Random, shape: Shape, rank: int) -> Tensors:
    ones = tuple(1 for _ in shape[2:])
    return {
        "a1.weight": random(shape[1], rank, *ones),
        "a2.weight": random(rank, shape[1], *ones),
        "b1.weight": random(shape[0], rank, *ones),
        "b2.weight": random(rank, *shape[1:]),
    }


def _glora_old(random: Random, shape: Shape, rank: int) -> Tensors:
    new = _glora(random, shape, rank)
    return {f"{name[0]}{3 - int(name[1])}.weight": tensor for name, tensor in new.items()}


def _full(random: Random, shape: Shape, rank: int) -> Tensors:
    return {"diff": random(*shape), "diff_b": random(shape[0])}


def _norm(random: Random, shape: Shape, rank: int) -> Tensors:
    return {"w_norm": random(shape[0]), "b_norm": random(shape[0])}


VARIANTS: Mapping[str, Maker] = {
    "lora": _lora,
    "lora-tucker": _tucker,
    "loha": _loha,
    "loha-tucker": _loha_tucker,
    "lokr-whole": _lokr("whole", "whole"),
    "lokr-first-factored": _lokr("factored", "whole"),
    "lokr-second-factored": _lokr("whole", "factored"),
    "lokr-factored": _lokr("factored", "factored"),
    "lokr-tucker": _lokr("whole", "tucker"),
    "lokr-tucker-factored": _lokr("factored", "tucker"),
    "dora-out": _dora(_lora, 0),
    "dora-in": _dora(_lora, 1),
    "dora-out-tucker": _dora(_tucker, 0),
    "dora-in-tucker": _dora(_tucker, 1),
    "dora-out-loha-tucker": _dora(_loha_tucker, 0),
    "dora-out-lokr-tucker": _dora(_lokr("factored", "tucker"), 0),
    "dora-out-loha": _dora(_loha, 0),
    "dora-in-loha": _dora(_loha, 1),
    "dora-out-lokr": _dora(_lokr("whole", "factored"), 0),
    "dora-in-lokr": _dora(_lokr("factored", "factored"), 1),
    "ia3": _ia3(on_input=False),
    "ia3-on-input": _ia3(on_input=True),
    "oft": _oft(constraint=0.0),
    "oft-constrained": _oft(constraint=0.01),
    "oft-rescaled": _oft(constraint=0.0, rescale=True),
    "oft-input": _oft_input,
    "oft-input-shared": _oft_input_shared,
    "boft": _boft(),
    "boft-constrained": _boft(constraint=0.01),
    "boft-rescaled": _boft(rescale=True),
    "glora": _glora,
    "glora-old": _glora_old,
    "full": _full,
    "norm": _norm,
}
"""Every form of every type. Which weights a form is for: `fits`."""

WITHOUT_ALPHA = frozenset({"ia3", "ia3-on-input", "oft-input", "oft-input-shared", "full", "norm"})
ONLY_CONVOLUTIONS = frozenset(name for name in VARIANTS if "tucker" in name)
WITHOUT_KERNEL = frozenset({"oft-input", "oft-input-shared"})


def fits(variant: str, shape: Shape) -> bool:
    """Whether there is such an adapter for a weight of `shape`."""
    if variant == "norm" or len(shape) == 1:
        return variant == "norm" and len(shape) == 1
    return variant not in (ONLY_CONVOLUTIONS if math.prod(shape[2:]) == 1 else WITHOUT_KERNEL)


# Names ---------------------------------------------------------------------------------------------------------------

Spelling = tuple[str, Mapping[str, str]]
"""The part of a key that names the module, and other ends for some keys."""

PEFT_ENDS = {"lora_up.weight": "lora_B.weight", "lora_down.weight": "lora_A.weight"}
OLD_DIFFUSERS_ENDS = {"lora_up.weight": "lora.up.weight", "lora_down.weight": "lora.down.weight"}
TEXT_ENDS = {"lora_up.weight": "lora_linear_layer.up.weight", "lora_down.weight": "lora_linear_layer.down.weight"}
PROCESSOR_ENDS = {"lora_up.weight": "up.weight", "lora_down.weight": "down.weight"}


def _bare(component: str, module: str) -> str:
    return module if component == "unet" else module.removeprefix("text_model.")


def _with_text_model(component: str, module: str) -> str:
    bare = _bare(component, module)
    return bare if component == "unet" or bare == "text_projection" else f"text_model.{bare}"


def _underscored(prefixes: Mapping[str, str]) -> Callable[[str, str], Spelling]:
    return lambda component, module: (
        f"{prefixes[component]}_{_with_text_model(component, module).replace('.', '_')}",
        {},
    )


def _peft(component: str, module: str) -> Spelling:
    return f"{component}.{_with_text_model(component, module)}", PEFT_ENDS


def _peft_flat(component: str, module: str) -> Spelling:
    return f"{component}.{_bare(component, module)}", PEFT_ENDS


def _old_diffusers(component: str, module: str) -> Spelling:
    return (
        f"{component}.{_with_text_model(component, module)}",
        OLD_DIFFUSERS_ENDS if component == "unet" else TEXT_ENDS,
    )


def _processors(component: str, module: str) -> Spelling:
    """As diffusers 0.1x: attention layers only."""
    parent, _, name = module.removesuffix(".0").rpartition(".")
    return f"{component}.{parent}.processor.{name}_lora", PROCESSOR_ENDS


NAMINGS: Mapping[str, Callable[[str, str], Spelling]] = {
    "kohya": _underscored({"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}),
    "kohya-sdxl": _underscored({"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}),
    "kohya-oft": _underscored({"unet": "oft_unet", "text_encoder": "oft_te", "text_encoder_2": "oft_te2"}),
    "lycoris": _underscored(dict.fromkeys(("unet", "text_encoder", "text_encoder_2"), "lycoris")),
    "peft": _peft,
    "peft-flat": _peft_flat,
    "old-diffusers": _old_diffusers,
    "processors": _processors,
}

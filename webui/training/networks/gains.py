"""IA3 and OFT: changes that act on what a layer gives or takes, without a weight of their own size."""

import torch
from torch import Tensor, nn

from webui.pipeline.adapters import formulas
from webui.training.networks.layers import Adaptable, AdaptedLayer, Dropouts, applied, kernel_of

NO_LIMIT = 1000.0
"""OFT's alpha is the limit on its turning, for each row; nothing comes near this one. 0 would be "none" to LyCORIS, and
"no turning at all" to A1111."""


class Ia3Layer(AdaptedLayer):
    """W with each output, or each input, times 1 + its value. Liu et al. 2022, arXiv:2205.05638."""

    def __init__(self, layer: Adaptable, dropouts: Dropouts, *, on_input: bool) -> None:
        count = layer.weight.shape[1 if on_input else 0]
        shape = (1, count, 1, 1) if kernel_of(layer) else (count,)
        super().__init__(layer, dropouts, {"weight": torch.zeros(shape)}, {"on_input": torch.tensor(int(on_input))})
        self._on_input = on_input

    def adapted(self, x: Tensor) -> Tensor:
        gains = self.factors["weight"].to(x.dtype)
        if self._on_input:
            return applied(self.layer, torch.addcmul(x, x, gains), self.layer.weight, self.layer.bias)
        output = applied(self.layer, x, self.layer.weight, None)
        return _with_bias(torch.addcmul(output, output, gains), self.layer)


class OftLayer(AdaptedLayer):
    """W with runs of output rows turned by rotations, which keep their angles. Qiu et al. 2023, arXiv:2306.07280."""

    def __init__(self, layer: Adaptable, dropouts: Dropouts, *, block: int) -> None:
        outputs = len(layer.weight)
        size = next(n for n in range(min(block, outputs), 0, -1) if outputs % n == 0)
        super().__init__(
            layer, dropouts, {"oft_blocks": torch.zeros(outputs // size, size, size)}, {"alpha": torch.tensor(NO_LIMIT)}
        )

    def adapted(self, x: Tensor) -> Tensor:
        blocks = self.factors["oft_blocks"]
        turns = formulas.cayley(blocks, None) - torch.eye(blocks.shape[-1], device=blocks.device)
        turns = turns.to(x.dtype)
        output = applied(self.layer, x, self.layer.weight, None)
        if isinstance(self.layer, nn.Linear):
            runs = output.reshape(*output.shape[:-1], *blocks.shape[:2])
            change = torch.einsum("...kn,knm->...km", runs, turns)
        else:
            runs = output.reshape(len(output), *blocks.shape[:2], -1)
            change = torch.einsum("bknp,knm->bkmp", runs, turns)
        return _with_bias(output + change.reshape(output.shape), self.layer)


def _with_bias(output: Tensor, layer: Adaptable) -> Tensor:
    if layer.bias is None:
        return output
    return output + (layer.bias if isinstance(layer, nn.Linear) else layer.bias[:, None, None])

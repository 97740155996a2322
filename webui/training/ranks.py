"""The processes of a run: one, or as many as `accelerate launch` started, on one machine or several.

What is trained is small, so gradients go over in one piece; there is no wrapper around the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

LONGEST_WAIT = timedelta(days=1)
"""The others wait while the first process measures a candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process is number `index` of `num`."""

    index: int = 0
    num: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.index == 0

    def summed(self, parameters: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:
        """Puts the sum over all processes into the gradients, and returns that of `numbers` (1-D float32)."""
        if self.num == 1:
            return numbers
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), numbers.to(gradients[0])])
        dist.all_reduce(flat)
        start = 0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = flat[start : start + gradient.numel()].view_as(gradient)
            start += gradient.numel()
        return flat[start:]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.num > 1:
            dist.barrier()


def this_rank(*, cpu: bool) -> Ranks:
    """Joins the other processes if `accelerate launch` or torchrun started several; `cpu` where the run is on one."""
    state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)
    return Ranks(index=int(state.process_index), num=int(state.num_processes))

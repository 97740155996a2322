"""Watches for NaN and Inf without holding the device up, and says where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from webui.errors import InvalidNumbers
from webui.training.feed import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """One batch's errors as they came out: `values` (B,) on the device."""

    batch: Batch
    values: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Update:
    """What there is to look at of an update before it is made. `norms` (P,) are of the gradients, by parameter."""

    step: int
    passes: Sequence[Pass]
    norms: Tensor

    def is_finite(self) -> bool:
        """Waits for the device."""
        values = torch.cat([*(each.values.flatten() for each in self.passes), self.norms])
        return bool(torch.isfinite(values).all())

    def errors_are_finite(self) -> bool:
        """Gradients aside: in half precision these overflow now and then, and are left out."""
        return bool(torch.isfinite(torch.cat([each.values.flatten() for each in self.passes])).all())


class NotFinite(InvalidNumbers):
    """`step` is the update that could not be made; `where` names the tensor."""

    def __init__(self, step: int, where: str, *, hint: str) -> None:
        super().__init__(f"Training stopped at step {step + 1}: NaN or Inf in {where}.", hint=hint)
        self.step = step
        self.where = where


def explain(update: Update, parameters: Sequence[tuple[str, nn.Parameter]], *, half: bool) -> NotFinite:
    """The first tensor on the way from a photo to a gradient that is not finite, and what to do about it."""
    for each in update.passes:
        for i, name in enumerate(each.batch.names):
            if not torch.isfinite(each.batch.latents[i]).all():
                return NotFinite(
                    update.step, f"the encoded photo '{name}'",
                    hint="Use a VAE that works in this precision, --dtype fp32, or leave the photo out.",
                )  # fmt: skip
    hint = "Lower the learning rate (optimizer.rate)" + (", or set resources.precision to fp32." if half else ".")
    for name, parameter in parameters:
        if not torch.isfinite(parameter).all():
            return NotFinite(update.step, f"the weight {name}", hint=hint)
    for each in update.passes:
        for i, finite in enumerate(torch.isfinite(each.values).tolist()):
            if not finite:
                where = f"the error on '{each.batch.names[i]}' at noise level {int(each.batch.timesteps[i])}"
                return NotFinite(update.step, where, hint=hint)
    finite_norms = torch.isfinite(update.norms).tolist()
    name = next(name for (name, _), finite in zip(parameters, finite_norms, strict=True) if not finite)
    return NotFinite(update.step, f"the gradient of {name}", hint=hint)

"""The networks that one request's prompts name, on the model for the time of its run."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from webui.pipeline.adapters.hypernetworks import hypernetworks_applied
from webui.pipeline.adapters.phases import Active, Denoise, PhasedDenoise, plan_phases
from webui.pipeline.adapters.prompted import PromptedNetworks
from webui.pipeline.device import Device, translated_memory_errors
from webui.pipeline.model import Model

PREPARED_BYTES = 4 * 2**30
"""Of main memory, for weights that are merged ahead where two sets of adapters take turns in every step."""
PREPARED_SHARE = 0.5
"""Of the memory that a graphics card has free, for the same."""

T = TypeVar("T")


class AdapterSession:
    """What of the networks applies in which step. Nothing is applied before `encoded` or `denoise` are used."""

    def __init__(
        self, model: Model, networks: PromptedNetworks, *, num_steps: int, region: NDArray[np.float32] | None
    ) -> None:
        """`region` (h, w) in latents is an inpainting's mask: 1 inside, between 0 and 1 at a soft edge."""
        self._model = model
        self._networks = networks
        tags = [adapter.tag for adapter in networks.adapters]
        self.notes = networks.notes
        if region is None:
            self.notes += tuple(
                f"LoRA '{tag.name}' is applied to the whole picture: area=mask is for inpainting."
                for tag in tags
                if tag.area == "mask"
            )
        # Outside of the mask the picture stays as it is, whatever is guessed there: both guesses are for a soft edge.
        fades = region is not None and bool(((region > 0) & (region < 1)).any())
        self._region = torch.from_numpy(region).to(model.device.torch_device) if region is not None and fades else None
        self._phases = plan_phases(tags, num_steps, has_mask=fades)
        self.actives = tuple(dict.fromkeys(active for phase in self._phases for active in phase.actives))
        self._recipes = {
            active: model.adapters.recipes([networks.adapters[place] for place in active]) for active in self.actives
        }

    def encoded(self, encode: Callable[[], T]) -> dict[Active, T]:
        """What `encode` makes of the prompts with each set of adapters in the text encoders."""
        stack, encoder, table = self._model.adapters, self._model.text_encoder, self._networks.embeddings
        encoder.embeddings = table.names
        for component, clip in zip(stack.text_components, encoder.encoders, strict=True):
            clip.embed = partial(table.insert, component) if table.embeddings else None
        found = {}
        for active in self.actives:
            self._apply(active, stack.text_components)
            found[active] = encode()
        return found

    @contextmanager
    def running(self) -> Iterator[None]:
        """While pictures are made: hypernetworks are there, and sets of adapters that take turns are merged ahead."""
        stack = self._model.adapters
        try:
            if any(len(phase.actives) > 1 for phase in self._phases):
                spare = _spare_bytes(self._model.device)
                recipes = [self._recipes[active] for active in self.actives]
                with self._memory_errors():
                    stack.prepare(recipes, "unet", max_bytes=spare)
            with hypernetworks_applied(self._model.unet, self._networks.hypernetworks):
                yield
        finally:
            stack.forget_prepared()

    def denoise(self, guesses: Mapping[Active, Denoise], *, calls_per_step: int) -> PhasedDenoise:
        """For one picture, or one batch: the model's `guesses` by set of adapters."""

        def switch(active: Active) -> None:
            self._apply(active, ("unet",))

        return PhasedDenoise(self._phases, guesses, switch, calls_per_step=calls_per_step, mask=self._region)

    def _apply(self, active: Active, components: Iterable[str]) -> None:
        with self._memory_errors():
            self._model.adapters.apply(self._recipes[active], components)

    def _memory_errors(self) -> AbstractContextManager[None]:
        hint = "Use a smaller checkpoint, or fewer adapters."
        return translated_memory_errors(self._model.device, what="applying adapters", hint=hint)


def _spare_bytes(device: Device) -> int:
    if device.torch_device.type != "cuda":
        return PREPARED_BYTES
    free, _ = torch.cuda.mem_get_info(device.torch_device)
    return int(free * PREPARED_SHARE)

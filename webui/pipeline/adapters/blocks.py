"""Which block of a network a module lies in, in the numbering that `lbw=` uses (see `webui.prompt.blocks`)."""

import re

from webui.pipeline.adapters.targets import Target
from webui.prompt.blocks import NetworkShape

_LEVEL = re.compile(r"(down|up)_blocks\.(\d+)\.(?:(?:resnets|attentions)\.(\d+)\.|(?:down|up)samplers\.0\.)")


def block_of(target: Target, layers_per_block: int) -> str | None:
    """ "BASE" for a text encoder; "IN00" to "OUT11" or "MID" in the U-Net; None for what belongs to no block.

    The time embedding, the labels' embedding and the output layers are in none. `layers_per_block` is the U-Net's: 2 in
    all published models.
    """
    if target.component != "unet":
        return "BASE"
    if target.path.startswith("conv_in"):
        return "IN00"
    if target.path.startswith("mid_block."):
        return "MID"
    match = _LEVEL.match(target.path + ".")
    if match is None:
        return None
    side, level, layer = match[1], int(match[2]), match[3]
    if side == "down":
        first = 1 + (layers_per_block + 1) * level
        return f"IN{first + (layers_per_block if layer is None else int(layer)):02}"
    first = (layers_per_block + 1) * level
    return f"OUT{first + (layers_per_block if layer is None else int(layer)):02}"


def network_shape(num_levels: int) -> NetworkShape:
    """By the number of down blocks of the U-Net: SDXL has three."""
    return "sdxl" if num_levels == 3 else "sd"

"""What samples are drawn of where a run names nothing else. Imports no torch.

`{trigger}` and `{class}` are filled in. No photo should show it: what follows the prompt there was kept, not learnt.
"""

from collections.abc import Mapping
from types import MappingProxyType

from webui.training.config import Subject

PLACES = (
    "{trigger} {class} at the beach",
    "{trigger} {class} in the snow",
    "{trigger} {class} in the city",
    "{trigger} {class} under a night sky",
    "{trigger} {class} on a red background",
    "{trigger} {class} on a green meadow",
)
STYLES = (
    "a cat, {trigger} {class}",
    "a house, {trigger} {class}",
    "a woman, {trigger} {class}",
    "a car, {trigger} {class}",
    "a tree, {trigger} {class}",
    "a bowl of fruit, {trigger} {class}",
)
SAMPLE_PROMPTS: Mapping[Subject, tuple[str, ...]] = MappingProxyType(
    {"person": PLACES, "object": PLACES, "style": STYLES}
)

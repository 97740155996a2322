"""A problem of a training set as it is shown, and what one click does about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from webui.training.data.edits import Edit

NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """`edits` by name of the photo, to be written among the photos."""

    label: str
    edits: Mapping[str, Edit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`names` are the photos that it is about; none where it is about the set."""

    kind: str
    names: tuple[str, ...]
    sentence: str
    fixes: tuple[Fix, ...] = ()


def leave_out(names: Sequence[str], *, label: str = "Leave it out") -> Fix:
    return Fix(label=label, edits={name: Edit(excluded=True) for name in names})


def quoted(names: Sequence[str]) -> str:
    """'a', 'b', 'c' and 4 more."""
    listed = [f"'{name}'" for name in names[:NAMED]]
    if len(names) > NAMED:
        return f"{', '.join(listed)} and {len(names) - NAMED} more"
    return " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))

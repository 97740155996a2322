"""A problem of a training set as it is shown, and what one click does about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from webui.training.data.edits import Edit

NAMED = 3
MOST_ALONE = 4
"""With more photos of one kind, one problem tells of them all."""
TOGETHER: Mapping[str, str] = MappingProxyType(
    {
        "too small": "are small for this resolution",
        "blurred": "are blurred",
        "bars": "have bars at their edges, which would be learnt",
        "odd shape": "have a shape that much would be cut off of",
        "no face": "show no face",
        "several faces": "show several faces: it is not clear whom to learn",
        "small face": "have a small face",
        "another person": "show a face that is not that of the others",
        "unreadable": "cannot be read",
        "not a picture": "are no pictures",
        "caption without picture": "are captions without pictures; they are not used",
        "mask without picture": "are masks without pictures; they are not used",
        "missing": "are named in a list, but are not there",
    }
)
"""What is said of several photos with problems of a kind."""
ONE_BY_ONE: Mapping[str, str] = MappingProxyType({"Leave it out": "Leave them out"})
"""Labels of fixes that are others for several photos."""


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


def together(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of one photo each as one, where many are of the same kind; in the order of the first ones.

    One click then does to all what it would have done to each.
    """
    alone = Counter(problem.kind for problem in problems if len(problem.names) == 1)
    many = {kind for kind, count in alone.items() if count > MOST_ALONE and kind in TOGETHER}
    found: list[Problem] = []
    for problem in problems:
        if problem.kind not in many or len(problem.names) != 1:
            found.append(problem)
        elif problem.kind not in {each.kind for each in found}:
            found.append(_one_of([each for each in problems if each.kind == problem.kind and len(each.names) == 1]))
    return found


def _one_of(problems: Sequence[Problem]) -> Problem:
    kind, names = problems[0].kind, tuple(problem.names[0] for problem in problems)
    edits: dict[str, dict[str, Edit]] = {}
    for problem in problems:
        for fix in problem.fixes:
            edits.setdefault(ONE_BY_ONE.get(fix.label, fix.label), {}).update(fix.edits)
    return Problem(
        kind=kind,
        names=names,
        sentence=f"{quoted(names)} {TOGETHER[kind]}.",
        fixes=tuple(Fix(label=label, edits=each) for label, each in edits.items()),
    )

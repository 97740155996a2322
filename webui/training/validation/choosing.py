"""Which step is the best, at which weight, and why: a pure function of what was measured. Imports no torch.

A picture is good where it is like the subject and follows its prompt; neither makes up for the other. Steps whose
pictures repeat training photos, or show nothing, are out. Of those that are equally good within what chance does, the
one with the smallest error on photos kept back is taken, then the one with the fewest steps.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

MAX_SHARE_COPIED = 0.25
MAX_SHARE_BROKEN = 0.34
NUM_RUNNERS_UP = 3
CHANCE = 1.0
"""Standard errors within which errors on photos kept back count as equal: same photos, same noise."""
MOST_LIKENESS = 2.0
"""Above 1: a few photos say only roughly where the top is, which must not make all that is good equally good."""
STUDENT = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83)
"""Standard errors that few pictures differ by in one of twenty cases, by their number from 2 on; above: 1.8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One sample picture. `likeness` to the photos, raw; `following` is the share of evidence, 0..1, that it is a
    picture of its own prompt; None where it was not measured. `copied`: it repeats a training photo. `broken`: it
    shows nothing.
    """

    likeness: float | None = None
    following: float | None = None
    copied: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A candidate: the network after `step` updates, used at `weight`.

    `gain` is the share by which the error on photos kept back is below the base's, `gains` the same per photo;
    `trained_gain` on photos trained on. `samples` are of the same prompts and seeds, in the same order, in all rows.
    """

    step: int
    weight: float
    gains: tuple[float, ...] = ()
    trained_gain: float | None = None
    samples: tuple[Judged, ...] = ()
    is_finite: bool = True

    @property
    def gain(self) -> float | None:
        return fmean(self.gains) if self.gains else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What likeness and prompt-following are counted from and to: the base's own, and that of photos to each other."""

    base_likeness: float
    photo_likeness: float
    base_following: float | None = None

    def likeness(self, raw: float) -> float:
        """0 is the base's, 1 that of the photos to each other; may be outside."""
        return (raw - self.base_likeness) / max(self.photo_likeness - self.base_likeness, 1e-6)

    def following(self, raw: float) -> float:
        """1 is the base's; may be above."""
        return raw / max(self.base_following or 0.0, 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    step: int
    weight: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A row with its means; likeness from 0 (the base) to 1 (the photos), following of the base's 1."""

    step: int
    weight: float
    score: float | None
    likeness: float | None
    following: float | None
    copied: float
    gain: float | None
    trained_gain: float | None
    out: str
    """Why it cannot be chosen; "" if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic:
    """What was chosen here, where the user wants another."""

    step: int
    weight: float
    reason: str
    warning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`rows` from the best to the worst. `warning` says what to doubt; "" for nothing. `overruled` is the choice
    that this one, made by hand, takes the place of."""

    step: int
    weight: float
    reason: str
    warning: str
    runners_up: tuple[RunnerUp, ...]
    rows: tuple[Ranked, ...]
    by_hand: bool = False
    overruled: Automatic | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def choose(rows: Sequence[Row], scale: Scale | None) -> Choice:
    """The best of `rows`. `scale` is None where no samples were drawn. Raises ValueError without rows."""
    if not rows:
        raise ValueError("Nothing was measured, so there is nothing to choose from.")
    judge = _Judge(rows, scale)
    best = judge.best()
    ranked = judge.ranked(best)
    others = [one for one in ranked if (one.step, one.weight) != (best.step, best.weight)]
    return Choice(
        step=best.step,
        weight=best.weight,
        reason=judge.reason(best),
        warning=judge.warning(best),
        runners_up=tuple(
            RunnerUp(step=one.step, weight=one.weight, reason=judge.why_not(one, ranked[0]))
            for one in _runners_up(others, best.step)
        ),
        rows=ranked,
    )


def picked(automatic: Choice | None, step: int, weight: float) -> Choice:
    """`step` at `weight`, which the user prefers to `automatic`; that itself where they are the same."""
    if automatic is None:
        reason = f"Step {step} at weight {weight:g} was chosen by hand; nothing was measured."
        return Choice(step=step, weight=weight, reason=reason, warning="", runners_up=(), rows=(), by_hand=True)
    if (automatic.step, automatic.weight) == (step, weight):
        return automatic
    own = next((row for row in automatic.rows if (row.step, row.weight) == (step, weight)), None)
    facts = _facts(own) if own is not None else []
    return replace(
        automatic,
        step=step,
        weight=weight,
        reason=f"Step {step} at weight {weight:g} was chosen by hand{': ' if facts else ''}{', '.join(facts)}.",
        warning="" if own is None or not own.out else f"By the measurements it should not be used: {own.out}.",
        by_hand=True,
        overruled=Automatic(
            step=automatic.step, weight=automatic.weight, reason=automatic.reason, warning=automatic.warning
        ),
    )


def _runners_up(others: Sequence[Ranked], best_step: int) -> list[Ranked]:
    """The best ones of other steps, one per step, and the last step's in any case: people compare with it."""
    by_step: dict[int, Ranked] = {}
    for one in others:
        if one.step != best_step:
            by_step.setdefault(one.step, one)
    found = list(by_step.values())[:NUM_RUNNERS_UP]
    last = by_step.get(max(by_step, default=0))
    return found if last is None or last in found else [*found, last]


class _Judge:
    def __init__(self, rows: Sequence[Row], scale: Scale | None) -> None:
        self._rows = tuple(sorted(rows, key=lambda row: (row.step, row.weight)))
        self._scale = scale
        self._has_samples = scale is not None and any(row.samples for row in rows)
        self._has_gain = any(row.gains for row in rows)
        self._last = max(row.step for row in rows)
        self._out = {(row.step, row.weight): self._problem(row) for row in rows}

    def best(self) -> Row:
        usable = [row for row in self._rows if not self._out[row.step, row.weight]]
        if not usable:
            return min(self._rows, key=lambda row: (not row.is_finite, _broken(row), _copied(row), row.step))
        if self._has_samples:
            usable = _equals(usable, self.scores, _few_pictures)
        if self._has_gain:
            usable = _equals(usable, lambda row: row.gains, lambda _: CHANCE)
        elif not self._has_samples:
            usable = [row for row in usable if row.step == self._last] or usable[-1:]
        return min(usable, key=lambda row: (row.step, abs(math.log(max(row.weight, 1e-3)))))

    def scores(self, row: Row) -> tuple[float, ...]:
        """Of each sample, 0 and up: the harmonic mean of likeness and prompt-following."""
        return tuple(self._score(sample) for sample in row.samples)

    def _score(self, sample: Judged) -> float:
        pairs = zip(self._parts(sample), (MOST_LIKENESS, 1.0), strict=True)
        parts = [_within(value, most) for value, most in pairs if value is not None]
        if sample.broken or not parts or min(parts) == 0:
            return 0.0
        return len(parts) / sum(1 / part for part in parts)

    def _parts(self, sample: Judged) -> tuple[float | None, float | None]:
        assert self._scale is not None
        likeness = None if sample.likeness is None else self._scale.likeness(sample.likeness)
        measured = sample.following is not None and self._scale.base_following is not None
        return likeness, self._scale.following(sample.following or 0.0) if measured else None

    def _problem(self, row: Row) -> str:
        if not row.is_finite:
            return "its errors are no numbers any more"
        if _broken(row) > MAX_SHARE_BROKEN:
            return f"{_of(row, 'broken')} show nothing"
        if _copied(row) > MAX_SHARE_COPIED:
            return f"{_of(row, 'copied')} repeat a training photo"
        return ""

    def ranked(self, best: Row) -> tuple[Ranked, ...]:
        found = [(row, self._described(row)) for row in self._rows]
        found.sort(key=lambda pair: _order(pair[1], first=pair[0] is best))
        return tuple(one for _, one in found)

    def _described(self, row: Row) -> Ranked:
        likeness, following = self._means(row)
        return Ranked(
            step=row.step,
            weight=row.weight,
            score=fmean(self.scores(row)) if self._has_samples and row.samples else None,
            likeness=likeness,
            following=following,
            copied=_copied(row),
            gain=row.gain,
            trained_gain=row.trained_gain,
            out=self._out[row.step, row.weight],
        )

    def _means(self, row: Row) -> tuple[float | None, float | None]:
        if not self._has_samples:
            return None, None
        pairs = [self._parts(sample) for sample in row.samples]
        columns = ([pair[i] for pair in pairs] for i in (0, 1))
        likeness, following = (_mean([value for value in column if value is not None]) for column in columns)
        return likeness, following

    def reason(self, best: Row) -> str:
        one = self._described(best)
        if one.out:
            return f"No step can be recommended: of step {best.step} at weight {best.weight:g}, {one.out}."
        facts = _facts(one)
        if not facts:
            return (
                f"Nothing was kept back to measure with and no samples were drawn, so it is the last step, {one.step}."
            )
        return f"Step {one.step} at weight {one.weight:g}: {', '.join(facts)}."

    def warning(self, best: Row) -> str:
        one = self._described(best)
        if one.out:
            return f"All steps have gone wrong: {one.out}. A lower learning rate or fewer steps may help."
        if one.likeness is not None and one.likeness <= 0:
            return "The samples are no more like the photos than the base's own: train longer, or with a higher rate."
        if one.likeness is None and one.gain is not None and one.gain <= 0:
            return "No step is better on the photos kept back than the base: train longer, or with a lower rate."
        return ""

    def why_not(self, one: Ranked, best: Ranked) -> str:
        if one.out:
            return f"{one.out[0].upper()}{one.out[1:]}."
        less = [
            f"{name} {mine:.0%} instead of {theirs:.0%}"
            for name, mine, theirs in (
                ("likeness", one.likeness, best.likeness),
                ("prompt-following", one.following, best.following),
            )
            if mine is not None and theirs is not None and mine < theirs - 0.005
        ]
        if one.gain is not None and best.gain is not None and one.gain < best.gain:
            less.append(f"error on photos kept back {_compared(one.gain)}, not {_compared(best.gain)}")
        if less:
            return f"{less[0][0].upper()}{less[0][1:]}{''.join(f', {part}' for part in less[1:])}."
        return "As good within what chance does, with more steps." if one.step > best.step else "As good by chance."


def _facts(one: Ranked) -> list[str]:
    facts = []
    if one.likeness is not None:
        facts.append(f"likeness {one.likeness:.0%} of the way from the base to the photos")
    if one.following is not None:
        facts.append(f"prompt-following {one.following:.0%} of the base's")
    if one.gain is not None:
        facts.append(f"error on photos kept back {_compared(one.gain)}")
    return facts


def _compared(gain: float) -> str:
    return f"{abs(gain):.1%} {'below' if gain >= 0 else 'above'} the base's"


def _order(one: Ranked, *, first: bool) -> tuple[bool, bool, float, float, int]:
    return (not first, bool(one.out), -(one.score or 0.0), -(one.gain or 0.0), one.step)


def _few_pictures(count: int) -> float:
    return STUDENT[count - 2] if 2 <= count < len(STUDENT) + 2 else 1.8


def _equals(
    rows: Sequence[Row], values: Callable[[Row], tuple[float, ...]], chance: Callable[[int], float]
) -> list[Row]:
    """The row with the highest mean of `values`, and those that are as good within chance, value by value: within
    `chance`(number of values) standard errors."""
    measured = [row for row in rows if values(row)]
    if not measured:
        return list(rows)
    best = max(measured, key=lambda row: fmean(values(row)))
    return [row for row in measured if row is best or _as_good(values(row), values(best), chance)]


def _as_good(mine: tuple[float, ...], best: tuple[float, ...], chance: Callable[[int], float]) -> bool:
    """Whether the mean of `mine` is not below that of `best` by more than chance; pairs are of one picture each."""
    if len(mine) != len(best):
        return False
    differences = [b - m for m, b in zip(mine, best, strict=True)]
    spread = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return fmean(differences) <= chance(len(differences)) * spread


def _within(value: float, most: float) -> float:
    return min(max(value, 0.0), most) if math.isfinite(value) else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _copied(row: Row) -> float:
    return fmean(sample.copied for sample in row.samples) if row.samples else 0.0


def _broken(row: Row) -> float:
    return fmean(sample.broken for sample in row.samples) if row.samples else 0.0


def _of(row: Row, what: str) -> str:
    return f"{sum(getattr(sample, what) for sample in row.samples)} of {len(row.samples)} samples"

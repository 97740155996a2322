"""Which photos are in which batch: a pure function of the seed, so that a position needs no more than a number.

Imports no torch. A batch has photos of one group (one size of bucket) only. All photos of a group come equally often,
and the groups as often as their weights say, whatever the batch size.
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from webui.training.seeds import mixed


@dataclass(frozen=True, slots=True)
class Group:
    """`items` that can be in one batch, each as often as it is repeated. `weight`: their share of all that is seen."""

    items: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Draw:
    """`item` in its group's `turn`-th time through."""

    item: int
    turn: int


class Order:
    """Batches by number, `batch_size` photos each, over all processes. Each group is gone through in permutations of
    its own, one after the other, which batches may straddle.

    The k-th batch of a group comes at the time (k + a fixed random share) / weight: evenly spread, never clumped.
    """

    def __init__(self, groups: Sequence[Group], *, batch_size: int, seed: int) -> None:
        self._groups = tuple(groups)
        self._batch_size = batch_size
        self._seed = seed
        self._next = [(self._time(i, 0), i, 0) for i in range(len(groups))]
        heapq.heapify(self._next)
        self._come: list[tuple[int, int]] = []
        """What was worked out so far: group, and number of the batch in it."""
        self._permutation = lru_cache(maxsize=4 * len(groups) + 4)(self._permuted)

    def batch(self, number: int) -> tuple[Draw, ...]:
        """Batch `number` of the run, from 0."""
        while len(self._come) <= number:
            _, group, k = heapq.heappop(self._next)
            self._come.append((group, k))
            heapq.heappush(self._next, (self._time(group, k + 1), group, k + 1))
        group, k = self._come[number]
        return tuple(self._draw(group, place) for place in range(k * self._batch_size, (k + 1) * self._batch_size))

    def _time(self, group: int, k: int) -> float:
        share = mixed(self._seed, group, 0x0D) / 2**64
        return (k + share) / self._groups[group].weight

    def _draw(self, group: int, place: int) -> Draw:
        turn, within = divmod(place, len(self._groups[group].items))
        return Draw(self._permutation(group, turn)[within], turn)

    def _permuted(self, group: int, turn: int) -> tuple[int, ...]:
        items = list(self._groups[group].items)
        random.Random(mixed(self._seed, group, turn)).shuffle(items)
        return tuple(items)

"""Which of several codings each item gets, so that a budget is filled with the least error.

What belongs here: convex hulls of error against bytes, the choice at one common slope, what to do with the rest.
What must NOT come here: codecs, files, what an item is.

The choices on the items' lower convex hulls, taken in the order of their slopes, are optimal at the sizes they reach
(Shoham & Gersho 1988); what is left below the next step is filled exactly by dynamic programming over the items whose
turn is next. More bytes never give more error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Items among which the rest is divided; the others' steps are worth less per byte.
_NUM_LAST_ITEMS = 256


@dataclass(frozen=True)
class Item:
    """The choices for one item.

    Attributes:
        sizes: bytes of each choice, at least 0.
        errors: error of each choice, in whole units.
    """

    sizes: tuple[int, ...]
    errors: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.errors) or min(self.sizes) < 0:
            raise ValueError(f"expected as many sizes of at least 0 as errors, got {self.sizes} and {self.errors}")


def lower_hull(sizes: Sequence[int], errors: Sequence[int]) -> list[int]:
    """Points of the lower convex hull of error against bytes, by rising bytes: indices.

    Errors fall strictly along it, and ever more slowly (Andrew's monotone chain).
    """
    hull: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: (sizes[index], errors[index], index)):
        if hull and errors[index] >= errors[hull[-1]]:
            continue
        while len(hull) > 1:
            first, last = hull[-2:]
            if (errors[first] - errors[last]) * (sizes[index] - sizes[last]) > (errors[last] - errors[index]) * (
                sizes[last] - sizes[first]
            ):
                break
            hull.pop()
        hull.append(index)
    return hull


def allocate(items: Sequence[Item], num_bytes: int) -> list[int] | None:
    """A choice for every item, whose sizes add up to at most `num_bytes`; None where not even the smallest do.

    Of choices of one size the one with the smaller error counts as the smallest.
    """
    hulls = [lower_hull(item.sizes, item.errors) for item in items]
    chosen = [hull[0] for hull in hulls]
    left = num_bytes - sum(item.sizes[choice] for item, choice in zip(items, chosen, strict=True))
    if left < 0:
        return None
    steps = _steps(items, hulls)
    for done, (_, index, size, choice) in enumerate(steps):
        if size > left:
            waiting = list(dict.fromkeys(step[1] for step in steps[done:]))[:_NUM_LAST_ITEMS]
            for position, better in _divide([items[i] for i in waiting], [chosen[i] for i in waiting], left):
                chosen[waiting[position]] = better
            break
        chosen[index], left = choice, left - size
    return chosen


def _steps(items: Sequence[Item], hulls: Sequence[list[int]]) -> list[tuple[float, int, int, int]]:
    """Steps along all hulls, the steepest first: minus the slope, the item, the bytes and the choice it leads to."""
    steps = []
    for index, (item, hull) in enumerate(zip(items, hulls, strict=True)):
        for before, after in pairwise(hull):
            size = item.sizes[after] - item.sizes[before]
            steps.append(((item.errors[after] - item.errors[before]) / size, index, size, after))
    return sorted(steps, key=lambda step: (step[0], step[1], step[2]))


def _divide(items: Sequence[Item], chosen: Sequence[int], left: int) -> list[tuple[int, int]]:
    """What some bytes are best spent on: positions of items and their new choices (multiple-choice knapsack)."""
    gains: NDArray[np.int64] = np.zeros(left + 1, dtype=np.int64)
    taken: list[tuple[int, NDArray[np.intp], list[int]]] = []
    for position, (item, choice) in enumerate(zip(items, chosen, strict=True)):
        extra = [size - item.sizes[choice] for size in item.sizes]
        gain = [item.errors[choice] - error for error in item.errors]
        options = [i for i in range(len(extra)) if 0 <= extra[i] <= left and gain[i] > 0]
        if not options:
            continue
        table = np.full((len(options) + 1, left + 1), -1, dtype=np.int64)
        table[0] = gains
        for row, option in enumerate(options, start=1):
            table[row, extra[option] :] = gains[: left + 1 - extra[option]] + gain[option]
        best = table.argmax(axis=0)
        gains = np.take_along_axis(table, best[None], axis=0)[0]
        taken.append((position, best, options))
    found = []
    for position, best, options in reversed(taken):
        row = int(best[left])
        if row:
            option = options[row - 1]
            found.append((position, option))
            left -= items[position].sizes[option] - items[position].sizes[chosen[position]]
    return found

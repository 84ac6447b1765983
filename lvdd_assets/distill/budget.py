"""Bytes: what is allowed, what was used and for what, and whether that is right.

Pure arithmetic on numbers; no file is opened here. The allowance is compared with the size of the release file on disk.
"""

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvdd_assets.distill import paper
from lvdd_assets.distill.catalog import Budget, ClipShape
from lvdd_assets.distill.extras import needing

if TYPE_CHECKING:
    import pandas as pd

_MOST_NAMED = 5
PARTS = ("decoder", "encoder", "basis", "cores", "labels", "metadata")


class BudgetError(ValueError):
    """Nothing that the recipe can make fits the allowance. The message gives both sizes."""


@dataclass(frozen=True)
class LedgerLine:
    """Bytes of the release file that serve one part; `class_name` is empty for what all classes share."""

    part: str
    class_name: str
    num_bytes: int

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.num_bytes < 0:
            raise ValueError(f"{self!r}: part must be one of {PARTS} and num_bytes at least 0")


@dataclass(frozen=True)
class Ledger:
    """Every byte of one release file: the lines add up to the file's size."""

    lines: tuple[LedgerLine, ...]

    @property
    def total(self) -> int:
        """Sum of all lines in bytes."""
        return sum(line.num_bytes for line in self.lines)

    def by_class(self) -> dict[str, int]:
        """Bytes of the coded clips of each class."""
        return {line.class_name: line.num_bytes for line in self.lines if line.part == "cores"}

    def table(self) -> "pd.DataFrame":
        """One row a line: columns part, class, bytes, share (of the file, 0 … 1).

        Raises:
            MissingExtraError: pandas is not installed, which the base install leaves out; `lines` are there without.
        """
        with needing("pipeline", "the ledger as a table"):
            import pandas as pd
        rows = [
            (line.part, line.class_name, line.num_bytes, line.num_bytes / max(self.total, 1)) for line in self.lines
        ]
        return pd.DataFrame(rows, columns=["part", "class", "bytes", "share"])


@dataclass(frozen=True)
class Verdict:
    """A judged budget: passed or not, with the sentences that say why."""

    passed: bool
    reasons: tuple[str, ...]


def format_bytes(num_bytes: float) -> str:
    """`1 234 567` as `1.23 MB`; powers of 1,000, three significant digits."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        value = num_bytes / factor
        if value < 999.5 or unit == "GB":
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"
    raise AssertionError("unreachable")


def field_budget_bytes(num_classes: int, ipc: int, shape: ClipShape) -> int:
    """Bytes of `ipc` clips a class, kept as the field counts them: float32 pixels (paper, Table 5)."""
    values = num_classes * ipc * shape.frames * shape.size**2 * paper.BUDGET_CHANNELS
    return values * paper.BUDGET_BYTES_PER_VALUE


def allowed_bytes(budget: Budget, *, num_classes: int, shape: ClipShape) -> int:
    """The allowance of a dataset's release in bytes."""
    if budget.num_bytes is not None:
        return budget.num_bytes
    assert budget.ipc is not None
    return field_budget_bytes(num_classes, budget.ipc, shape)


def judge_release(ledger: Ledger, *, file_bytes: int, allowed: int, expected_classes: Sequence[str]) -> Verdict:
    """Whether a release keeps its promise: all classes there, every byte accounted for, not over the allowance.

    Args:
        ledger: the release's lines.
        file_bytes: size of the file on disk.
        allowed: allowance in bytes.
        expected_classes: the classes that the registry has.
    """
    reasons = []
    missing = sorted(set(expected_classes) - set(ledger.by_class()))
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        names = ", ".join(missing[:_MOST_NAMED]) + more
        reasons.append(f"{len(missing)} of {len(expected_classes)} classes are missing: {names}")
    if ledger.total != file_bytes:
        reasons.append(f"the ledger adds up to {ledger.total} B, the file has {file_bytes} B")
    if file_bytes > allowed:
        over = file_bytes - allowed
        reasons.append(f"{file_bytes} B on disk are {over} B over the allowance of {allowed} B")
    if reasons:
        return Verdict(False, tuple(reasons))
    return Verdict(True, (f"{file_bytes} B on disk of {allowed} B allowed ({file_bytes / allowed:.1%})",))


def judge_class(*, coded_bytes: int, allowed: int, num_classes: int) -> Verdict:
    """Whether a class fits its equal share of the allowance.

    Args:
        coded_bytes: the class with all its clips, in its smallest coding.
        allowed: the dataset's allowance in bytes.
        num_classes: classes among which it is shared.
    """
    share = allowed // num_classes
    text = f"{coded_bytes} B with all clips in the smallest coding, equal share {share} B"
    return Verdict(coded_bytes <= share, (text,))


STEPS_PER_OCTAVE = 64  # one more costs about 1 % of the bytes: so near does a release come to its allowance
FINEST_STEP, COARSEST_STEP = 2.0**-6, 4.0
# Beyond the coarsest step clips are left out; with a single clip of each class left, steps grow on to this one.
LAST_STEP = 64.0


@dataclass(frozen=True)
class Fit:
    """How a dataset is coded so that it fits.

    Attributes:
        step: the quantiser step of all classes, in latent units.
        share: of each class's clips that is kept, in (0, 1]; at least one clip.
        num_bytes: what that takes.
    """

    step: float
    share: float
    num_bytes: int


def clips_of_share(num_clips: int, share: float) -> int:
    """How many of a class's clips a share is: rounded down, at least one."""
    return max(1, math.floor(num_clips * share + 1e-9))


def fit_allowance(
    measure: Callable[[float, float], int],
    *,
    allowed: int,
    most_clips: int,
    finest: float = FINEST_STEP,
    coarsest: float = COARSEST_STEP,
    guess: float | None = None,
) -> Fit:
    """The finest step at which all clips fit; where not even the coarsest does, the most clips that fit, and the finest
    step for them. Clips come before fidelity: at these rates a further clip teaches more than a finer one.

    Steps lie on a grid of `STEPS_PER_OCTAVE` to the octave, so that more bytes allowed never mean a coarser step. One
    step for all classes is one slope of rate against distortion for all.

    Args:
        measure: exact bytes at a step and a share of each class's clips; called some ten times.
        allowed: allowance in bytes.
        most_clips: clips of the largest class.
        finest: no finer step is taken, whatever is left of the allowance.
        coarsest: no coarser step is taken while clips can be left out.
        guess: a step to begin the search at.

    Raises:
        BudgetError: a single clip of each class at `LAST_STEP` takes more than is allowed.
    """
    if not 0 < finest <= coarsest <= LAST_STEP:
        raise ValueError(f"expected 0 < finest ≤ coarsest ≤ {LAST_STEP:g}, got {finest = }, {coarsest = }")
    measure = functools.cache(measure)
    steps, share = _grid(finest, coarsest), 1.0
    if measure(coarsest, share) > allowed:
        # By the clips of the largest class that are left out, from one to all but one: the first number that fits.
        shares = [(most_clips - left) / most_clips for left in range(most_clips)]
        index = first_fitting(most_clips, lambda index: measure(coarsest, shares[index]), allowed=allowed)
        share = shares[min(index, most_clips - 1)]
        if index == most_clips:
            steps = _grid(finest, LAST_STEP)
    start = None if guess is None else bisect.bisect_left(steps, guess)
    index = first_fitting(len(steps), lambda index: measure(steps[index], share), allowed=allowed, guess=start)
    if index == len(steps):
        raise BudgetError(
            f"the budget of {allowed} B is too small: the smallest release of this dataset takes "
            f"{measure(steps[-1], share)} B. Raise `budget`, or name a `vae` with a smaller decoder."
        )
    return Fit(steps[index], share, measure(steps[index], share))


def _grid(finest: float, coarsest: float) -> list[float]:
    """Steps from the finest to the coarsest, both among them, `STEPS_PER_OCTAVE` to the octave."""
    count = math.ceil(math.log2(coarsest / finest) * STEPS_PER_OCTAVE - 1e-9)
    return [finest, *(coarsest * 2 ** ((index - count) / STEPS_PER_OCTAVE) for index in range(1, count + 1))]


def first_fitting(count: int, measure: Callable[[int], int], *, allowed: int, guess: int | None = None) -> int:
    """The first of sizes 0 … count − 1, by falling size, that fits; `count` if none does.

    Begins at a guess and doubles its stride until the answer is enclosed: O(log of the guess's error) measurements.
    """
    low, high = 0, count  # the answer is in low … high
    middle, stride = count // 2 if guess is None else min(max(guess, 0), count - 1), 1
    while low < high:
        if measure(middle) <= allowed:
            high = middle
            middle = max(low, middle - stride)
        else:
            low = middle + 1
            middle = min(high - 1, middle + stride)
        stride *= 2
        if guess is None or stride > high - low:
            middle = (low + high) // 2
    return low

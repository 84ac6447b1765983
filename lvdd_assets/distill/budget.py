"""Bytes: what is allowed, what was used and for what, and whether that is right.

Pure arithmetic on numbers; no file is opened here. The allowance is compared with the size of the release file on disk.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from lvdd_assets.distill import paper
from lvdd_assets.distill.catalog import Budget, ClipShape

PARTS = ("decoder", "encoder", "cores", "labels", "metadata")


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

    def table(self) -> pd.DataFrame:
        """One row a line: columns part, class, bytes, share (of the file, 0 … 1)."""
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
        reasons.append(f"{len(missing)} of {len(expected_classes)} classes are missing: {', '.join(missing)}")
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


# Shares of a class's clips that a release may come down to, once coarser steps alone do not fit; the last means one
# clip.
_CLIP_SHARES = (0.75, 0.5, 0.375, 0.25, 0.125, 0.0625, 0.0)


@dataclass(frozen=True)
class Rung:
    """One way to code a class: its first `num_clips` clips with a quantiser step in latent units."""

    num_clips: int
    step: float


def build_ladder(num_clips: int, *, finest: float, coarsest: float, steps_per_octave: int) -> tuple[Rung, ...]:
    """Codings of falling size, the same number for every class: coarser steps with all clips, then fewer clips.

    One rung for all classes means one step for all classes, which is one slope of rate against distortion.

    Args:
        num_clips: clips of the class.
        finest: first step in latent units (latents have unit scale).
        coarsest: last step.
        steps_per_octave: steps from one to its double.
    """
    if not 0 < finest <= coarsest or steps_per_octave < 1 or num_clips < 1:
        raise ValueError(
            f"expected 0 < finest ≤ coarsest, got {finest = }, {coarsest = }, {steps_per_octave = }, {num_clips = }"
        )
    count = math.floor(math.log2(coarsest / finest) * steps_per_octave + 1e-9)
    rungs = [Rung(num_clips, finest * 2 ** (index / steps_per_octave)) for index in range(count + 1)]
    last = rungs[-1].step
    return (*rungs, *(Rung(max(1, round(num_clips * share)), last) for share in _CLIP_SHARES))


def choose_rung(num_rungs: int, measure: Callable[[int], int], *, allowed: int) -> int:
    """The first (largest) rung of a ladder of falling sizes whose measured size fits.

    Args:
        num_rungs: rungs 0 … num_rungs − 1, by falling size.
        measure: exact size in bytes of the release at a rung; called O(log num_rungs) times.
        allowed: allowance in bytes.

    Raises:
        BudgetError: even the last rung does not fit.
    """
    smallest = measure(num_rungs - 1)
    if smallest > allowed:
        raise BudgetError(
            f"the budget of {allowed} B is too small: the smallest release of this dataset takes {smallest} B. "
            "Raise `budget`, or name a `vae` with a smaller decoder."
        )
    low, high = 0, num_rungs - 1
    while low < high:
        middle = (low + high) // 2
        if measure(middle) <= allowed:
            high = middle
        else:
            low = middle + 1
    return low

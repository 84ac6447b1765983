"""What a report is made of: the comparison's rows, the curve, the ledger, pictures; checked for contradictions.

What must NOT come here: wording, drawing, HTML; figures come in, none is computed but sums, means and spreads.

Legend: K classes.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from lvdd_assets.distill.scores import Row

Role = Literal["full", "release", "video", "recipe", "subset", "other"]
Metric = Literal["top1", "top5"]


@dataclass(frozen=True)
class ReportRow:
    """A line of the comparison with what its training set weighs.

    Attributes:
        result: Name, number of clips and scores.
        stored_bytes: What is stored to have that training set.
        role: `full` is all training data, `release` the distilled file, `video` a plain competitor of the same size,
            `recipe` the same clips by another recipe, `subset` real clips chosen by some rule.
        note: What the bytes are, for instance "uint8 pixels"; may be empty.
        group: How a subset is kept, for instance "AV1": subsets of one group stand together; by default the note.
    """

    result: Row
    stored_bytes: int
    role: Role
    note: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if self.stored_bytes < 0:
            raise ValueError(f"row {self.result.name!r}: got {self.stored_bytes = }; expected 0 or more")

    @property
    def name(self) -> str:
        """What was trained on."""
        return self.result.name

    @property
    def num_seeds(self) -> int:
        """Networks trained on it."""
        return len(self.result.scores)

    @property
    def group_name(self) -> str:
        """The group, or the note where none is given."""
        return self.group or self.note

    def mean(self, metric: Metric) -> float:
        """Mean accuracy over seeds, in [0, 1]."""
        return self.result.mean_top1 if metric == "top1" else self.result.mean_top5

    def std(self, metric: Metric) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        return self.result.std_top1 if metric == "top1" else self.result.std_top5


@dataclass(frozen=True)
class NotRun:
    """A line of the comparison that could not be measured, and why; never a figure."""

    name: str
    reason: str


@dataclass(frozen=True)
class CurvePoint:
    """What a recipe's training set of so many bytes is worth.

    Attributes:
        recipe: A recipe's name, or `plain video`; points of one are joined by a line.
        stored_bytes: What is stored, 1 or more, for the axis is logarithmic.
        accuracies: By the report's metric, one for each seed, in [0, 1].
    """

    recipe: str
    stored_bytes: int
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.stored_bytes < 1:
            raise ValueError(f"curve of {self.recipe!r}: got {self.stored_bytes = }; expected at least 1")
        if not self.accuracies or not all(0 <= accuracy <= 1 for accuracy in self.accuracies):
            raise ValueError(
                f"curve of {self.recipe!r} at {self.stored_bytes} B: got accuracies {self.accuracies}; expected one in "
                "[0, 1] for each seed"
            )

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed, which says nothing about the spread."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class Stage:
    """A stage of the work, its wall time, and the most memory it held; None where that was not measured."""

    name: str
    seconds: float
    peak_bytes: int | None

    def __post_init__(self) -> None:
        if self.seconds < 0 or (self.peak_bytes is not None and self.peak_bytes < 0):
            raise ValueError(f"stage {self.name!r}: got {self.seconds = }, {self.peak_bytes = }; expected 0 or more")


@dataclass(frozen=True)
class Sheet:
    """A picture with its caption; `png` is what `contact_sheet` or `pair_sheet` returns."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Preview:
    """A looping picture with its caption; `data` and `mime` are of `looping_preview`, or another animated image."""

    data: bytes
    mime: str
    caption: str

    def __post_init__(self) -> None:
        if not self.mime.startswith("image/"):
            raise ValueError(f"preview {self.caption!r}: got {self.mime = }; expected an image, such as image/webp")


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report says.

    Attributes:
        dataset: Name of the dataset.
        class_names: Names in the order of the labels.
        rows: The comparison; one row is `full`, one is `release`.
        allowed_bytes: The budget.
        ledger: Columns part, class (empty for what all classes share), bytes; its sum is the release file's size.
        settings: How it was distilled and evaluated.
        provenance: What it was made from.
        versions: Software by name.
        sheets: Pictures of the clips.
        notes: Sentences for the reader, below the comparison.
        not_run: Rows that could not be measured.
        curve: Accuracy at several numbers of bytes; empty where only one was tried.
        stages: Time and memory, in the order of the work.
        previews: Looping pictures of the clips.
        metric: Which accuracy is the headline and the curve's.
    """

    dataset: str
    class_names: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    allowed_bytes: int
    ledger: pd.DataFrame
    settings: Mapping[str, object]
    provenance: Mapping[str, object]
    versions: Mapping[str, object]
    sheets: tuple[Sheet, ...] = ()
    notes: tuple[str, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    stages: tuple[Stage, ...] = ()
    previews: tuple[Preview, ...] = ()
    metric: Metric = "top1"

    def __post_init__(self) -> None:
        missing = [column for column in ("part", "class", "bytes") if column not in self.ledger.columns]
        if missing:
            raise ValueError(f"the ledger has no column {', '.join(missing)}; got {list(self.ledger.columns)}")
        without_bytes = set(self.class_names) - set(self.ledger["class"])
        if without_bytes:
            raise ValueError(
                f"the ledger has no line for class {', '.join(sorted(without_bytes))}; expected every class"
            )
        self._check_rows()
        self._check_curve()
        if self.allowed_bytes < 1:
            raise ValueError(f"got {self.allowed_bytes = }; expected at least 1")
        if self.used_bytes != self.release.stored_bytes:
            raise ValueError(
                f"the ledger adds up to {self.used_bytes} B, the release has {self.release.stored_bytes} B; "
                "expected the same: count the release again"
            )

    def _check_rows(self) -> None:
        for role in ("full", "release"):
            count = sum(row.role == role for row in self.rows)
            if count != 1:
                raise ValueError(f"got {count} rows with role {role!r}; expected exactly one")
        for row in self.rows:
            for score in row.result.scores:
                if len(score.confusion) != len(self.class_names):
                    raise ValueError(
                        f"row {row.result.name!r} was scored on {len(score.confusion)} classes; "
                        f"expected the {len(self.class_names)} of the report"
                    )
        if len({int(score.confusion.sum()) for row in self.rows for score in row.result.scores}) != 1:
            raise ValueError("the rows were tested on different numbers of clips; expected one test set for all")

    def _check_curve(self) -> None:
        places = [(point.recipe, point.stored_bytes) for point in self.curve]
        twice = sorted({place for place in places if places.count(place) > 1})
        if twice:
            raise ValueError(
                f"the curve has {twice[0][0]!r} at {twice[0][1]} B more than once; expected all seeds in one point"
            )

    @property
    def full(self) -> ReportRow:
        """The row of all training data."""
        return next(row for row in self.rows if row.role == "full")

    @property
    def release(self) -> ReportRow:
        """The row of the distilled file."""
        return next(row for row in self.rows if row.role == "release")

    @property
    def subsets(self) -> list[ReportRow]:
        """Subsets of real clips in at most the release's bytes; all subsets where none is that small."""
        rows = [row for row in self.rows if row.role == "subset"]
        return [row for row in rows if row.stored_bytes <= self.release.stored_bytes] or rows

    @property
    def best_subset(self) -> ReportRow | None:
        """The one of `subsets` with the highest accuracy by the report's metric."""
        return max(self.subsets, key=lambda row: row.mean(self.metric), default=None)

    @property
    def used_bytes(self) -> int:
        """Sum of the ledger."""
        return int(self.ledger["bytes"].sum())

    @property
    def metric_name(self) -> str:
        """The headline's accuracy in words."""
        return "top-1" if self.metric == "top1" else "top-5"

    @property
    def chance(self) -> float:
        """Accuracy of guessing blindly, by the report's metric, in [0, 1]."""
        return self.chance_of(self.metric)

    def chance_of(self, metric: Metric) -> float:
        """Accuracy of guessing blindly, in [0, 1]."""
        return min(1.0, (1 if metric == "top1" else 5) / len(self.class_names))

    @property
    def recipes(self) -> dict[str, list[CurvePoint]]:
        """Points of the curve by recipe, from few to many bytes."""
        found: dict[str, list[CurvePoint]] = {}
        for point in self.curve:
            found.setdefault(point.recipe, []).append(point)
        return {name: sorted(points, key=lambda point: point.stored_bytes) for name, points in found.items()}

    @property
    def confusion(self) -> np.ndarray:
        """Test clips by true class (row) and first guess (column), summed over the release's seeds: int64 [K, K]."""
        return np.sum([score.confusion for score in self.release.result.scores], axis=0)

    @property
    def num_test_clips(self) -> int:
        """Clips of the test set."""
        return int(self.release.result.scores[0].confusion.sum())

    @property
    def num_seeds(self) -> int:
        """Networks trained on the release."""
        return len(self.release.result.scores)

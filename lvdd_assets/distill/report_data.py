"""What a report is made of: the comparison's rows, the ledger, pictures; checked for contradictions.

What must NOT come here: wording, drawing, HTML; figures come in, none is computed but sums and means.

Legend: K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lvdd_assets.distill import evaluation


@dataclass(frozen=True)
class ReportRow:
    """A line of the comparison with what its training set weighs.

    Attributes:
        result: Name, number of clips and scores.
        stored_bytes: What is stored to have that training set.
        role: `full` is all training data, `release` the distilled file, `video` a plain competitor of the same size.
        note: What the bytes are, for instance "uint8 pixels"; may be empty.
    """

    result: evaluation.Row
    stored_bytes: int
    role: Literal["full", "release", "video", "other"]
    note: str = ""

    def __post_init__(self) -> None:
        if self.stored_bytes < 0:
            raise ValueError(f"row {self.result.name!r}: got {self.stored_bytes = }; expected 0 or more")


@dataclass(frozen=True)
class Sheet:
    """A picture with its caption; `png` is what `contact_sheet` or `pair_sheet` returns."""

    png: bytes
    caption: str


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

    def __post_init__(self) -> None:
        missing = [column for column in ("part", "class", "bytes") if column not in self.ledger.columns]
        if missing:
            raise ValueError(f"the ledger has no column {', '.join(missing)}; got {list(self.ledger.columns)}")
        without_bytes = set(self.class_names) - set(self.ledger["class"])
        if without_bytes:
            raise ValueError(
                f"the ledger has no line for class {', '.join(sorted(without_bytes))}; expected every class"
            )
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
        if self.allowed_bytes < 1:
            raise ValueError(f"got {self.allowed_bytes = }; expected at least 1")
        if self.used_bytes != self.release.stored_bytes:
            raise ValueError(
                f"the ledger adds up to {self.used_bytes} B, the release has {self.release.stored_bytes} B; "
                "expected the same: count the release again"
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
    def used_bytes(self) -> int:
        """Sum of the ledger."""
        return int(self.ledger["bytes"].sum())

    @property
    def chance(self) -> float:
        """Accuracy of guessing blindly, in [0, 1]."""
        return 1 / len(self.class_names)

    @property
    def num_test_clips(self) -> int:
        """Clips of the test set."""
        return int(self.release.result.scores[0].confusion.sum())

    @property
    def num_seeds(self) -> int:
        """Networks trained on the release."""
        return len(self.release.result.scores)

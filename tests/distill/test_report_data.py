import dataclasses

import numpy as np
import pytest

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.report_data import ReportRow
from tests.distill.report_examples import USUAL, make_ledger, make_row


def _bad_reports() -> dict[str, tuple[dict[str, object], str]]:
    rows = USUAL.rows
    short = make_ledger().drop(columns=["bytes"])
    three = evaluation.Row("odd", 3, (evaluation.Score(1.0, 1.0, 0, 1, np.eye(3, dtype=np.int64) * 30, 1.0),))
    return {
        "no release": ({"rows": rows[:1]}, "got 0 rows with role 'release'"),
        "two full": ({"rows": (*rows, rows[0])}, "got 2 rows with role 'full'"),
        "column": ({"ledger": short}, "no column bytes"),
        "class without bytes": ({"ledger": make_ledger().iloc[:2]}, "no line for class <b>spin"),
        "sum": ({"ledger": make_ledger(labels=499)}, "adds up to 154999 B, the release has 155000 B"),
        "classes": ({"rows": (*rows, ReportRow(three, 1, "other"))}, "scored on 3 classes; expected the 2"),
        "test set": ({"rows": (*rows, make_row("odd", [1], "other", 1, per_class=49))}, "different numbers of clips"),
        "budget": ({"allowed_bytes": 0}, "allowed_bytes = 0"),
    }


@pytest.mark.parametrize("case", list(_bad_reports()))
def test_reports_that_contradict_themselves_are_refused(case: str) -> None:
    changes, message = _bad_reports()[case]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(USUAL, **changes)  # type: ignore[arg-type]


def test_negative_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="stored_bytes = -1"):
        make_row("r", [1], "other", -1)

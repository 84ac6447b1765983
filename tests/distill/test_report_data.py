import dataclasses

import numpy as np
import pytest

from lvdd_assets.distill.report_data import CurvePoint, Preview, ReportRow, Stage
from lvdd_assets.distill.scores import Row, Score
from tests.distill.report_examples import USUAL, make_ledger, make_many_classes, make_rich, make_row


def _bad_reports() -> dict[str, tuple[dict[str, object], str]]:
    rows = USUAL.rows
    short = make_ledger().drop(columns=["bytes"])
    three = Row("odd", 3, (Score(1.0, 1.0, 0, 1, np.eye(3, dtype=np.int64) * 30, 1.0),))
    return {
        "no release": ({"rows": rows[:1]}, "got 0 rows with role 'release'"),
        "two full": ({"rows": (*rows, rows[0])}, "got 2 rows with role 'full'"),
        "column": ({"ledger": short}, "no column bytes"),
        "class without bytes": ({"ledger": make_ledger().iloc[:2]}, "no line for class <b>spin"),
        "sum": ({"ledger": make_ledger(labels=499)}, "adds up to 154999 B, the release has 155000 B"),
        "classes": ({"rows": (*rows, ReportRow(three, 1, "other"))}, "scored on 3 classes; expected the 2"),
        "test set": ({"rows": (*rows, make_row("odd", [1], "other", 1, per_class=49))}, "different numbers of clips"),
        "curve": ({"curve": (CurvePoint("r", 9, (0.5,)), CurvePoint("r", 9, (0.6,)))}, "'r' at 9 B more than once"),
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


def test_parts_of_a_report_check_themselves() -> None:
    with pytest.raises(ValueError, match="stored_bytes = 0"):
        CurvePoint("r", 0, (0.5,))
    with pytest.raises(ValueError, match="for each seed"):
        CurvePoint("r", 9, ())
    with pytest.raises(ValueError, match=r"50\.0"):
        CurvePoint("r", 9, (50.0,))
    with pytest.raises(ValueError, match="seconds = -1"):
        Stage("s", -1.0, None)
    with pytest.raises(ValueError, match="peak_bytes = -2"):
        Stage("s", 1.0, -2)
    with pytest.raises(ValueError, match="video/mp4"):
        Preview(b"", "video/mp4", "c")


def test_a_point_has_the_mean_and_the_sample_deviation_of_its_seeds() -> None:
    point = CurvePoint("r", 9, (0.5, 0.7, 0.9))
    assert point.mean == pytest.approx(0.7)
    assert point.std == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1))
    assert CurvePoint("r", 9, (0.5,)).std == 0


def test_recipes_go_from_few_to_many_bytes() -> None:
    points = tuple(CurvePoint(name, size, (0.5,)) for name, size in (("b", 9), ("a", 5), ("b", 2)))
    recipes = dataclasses.replace(USUAL, curve=points).recipes
    assert {name: [point.stored_bytes for point in found] for name, found in recipes.items()} == {"b": [2, 9], "a": [5]}


def test_the_best_subset_is_sought_among_those_that_take_no_more_bytes_than_the_release() -> None:
    data = make_rich()
    assert data.best_subset is not None
    assert data.best_subset.name == "k-means, AV1"
    large = make_row("all, AV1", [50, 50], "subset", data.release.stored_bytes + 1)
    data = dataclasses.replace(data, rows=(*data.rows, large))
    assert data.best_subset is not None
    assert data.best_subset.name == "k-means, AV1"
    only = dataclasses.replace(USUAL, rows=(*USUAL.rows, large))
    assert only.best_subset is large
    assert USUAL.best_subset is None


def test_the_metric_decides_which_accuracy_counts() -> None:
    data = make_many_classes(50)
    assert data.chance == pytest.approx(1 / 50)
    assert data.release.mean(data.metric) == pytest.approx(0.75)
    data = dataclasses.replace(data, metric="top5")
    assert data.chance == pytest.approx(0.1)
    assert data.release.mean(data.metric) == 1.0
    assert data.metric_name == "top-5"
    assert USUAL.chance_of("top5") == 1.0


def test_the_confusion_is_the_sum_over_the_releases_seeds() -> None:
    np.testing.assert_array_equal(USUAL.confusion, [[76, 24], [0, 100]])

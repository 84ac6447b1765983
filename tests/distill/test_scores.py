import numpy as np
import pytest

from lvdd_assets.distill.scores import Row, Score


def test_mean_and_deviation_of_a_row() -> None:
    scores = [Score(top1, 1.0, seed, 10, np.array([[2, 0], [1, 1]]), 0.1) for seed, top1 in enumerate((0.5, 0.6, 0.9))]
    row = Row("r", 4, tuple(scores))
    assert row.mean_top1 == pytest.approx(2 / 3)
    assert row.std_top1 == pytest.approx(np.std([0.5, 0.6, 0.9], ddof=1))
    assert (row.mean_top5, row.std_top5) == (1.0, 0.0)
    assert Row("r", 4, (scores[0],)).std_top1 == 0.0
    np.testing.assert_allclose(row.class_accuracy, [1.0, 0.5])


def test_wrong_figures_are_refused() -> None:
    confusion = np.array([[2, 0], [1, 1]])
    for top1, top5 in ((0.9, 0.5), (-0.1, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="expected 0 <= top1 <= top5 <= 1"):
            Score(top1, top5, 0, 1, confusion, 0.1)
    with pytest.raises(ValueError, match="row 'r' has no scores"):
        Row("r", 4, ())

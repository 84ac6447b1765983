"""Published figures belong to their dataset alone; budgets are the field's; comparisons train for as long."""

from dataclasses import replace
from fractions import Fraction

import pytest

from lvdd_assets.distill import paper
from lvdd_assets.distill.benches import (
    Measured,
    absent_benchmarks,
    all_notes,
    cells_of,
    ipc_text,
    measure_curve,
    measure_sets,
    published,
    reasons_of,
)
from lvdd_assets.distill.candidates import CODEC, FULL, PAPER, TIGHT
from lvdd_assets.distill.training_sets import NotPossible, TrainingSet
from tests.distill.nearest_mean import Calls
from tests.distill.tiny_benches import PROTOCOL, bench_of, small_bench
from tests.distill.tiny_originals import make_originals

CALLS: Calls = []
BENCH = small_bench(CALLS)


def _named(name: str, num_classes: int):  # type: ignore[no-untyped-def]
    counts = {f"class {index}": 1 for index in range(num_classes)}
    return bench_of(make_originals(name, counts, with_latents=False))


@pytest.mark.parametrize(
    ("name", "num_classes", "benchmark", "metric"),
    [
        ("MiniUCF", 50, "MiniUCF", "top-1"),
        ("miniucf", 50, "MiniUCF", "top-1"),
        ("hmdb51", 51, "HMDB51", "top-1"),
        ("SSv2", 7, "SSv2", "top-5"),
        ("MiniUCF", 49, None, "top-1"),
        ("miniucf_small", 50, None, "top-1"),
    ],
)
def test_a_benchmark_is_known_by_name_and_number_of_classes(
    name: str, num_classes: int, benchmark: str | None, metric: str
) -> None:
    bench = _named(name, num_classes)
    assert (bench.benchmark, bench.metric) == (benchmark, metric)
    known = published(bench, "LVDD", 1)
    expected = {(r.method, r.dataset, r.ipc): r.accuracy_percent for r in paper.PUBLISHED_RESULTS}
    assert known == expected.get(("LVDD", benchmark or "", 1))
    assert (known is None) == (benchmark is None)
    assert published(bench, "LVDD", Fraction(1, 10)) is None
    assert published(bench, "nobody's", 1) is None
    notes = " ".join(bench.notes)
    assert ("another dataset" in notes) == (num_classes == 49)
    assert ("published at 16 frames of 112 px; here 4 frames of 32 px" in notes) == (
        num_classes in (50, 51) and benchmark is not None
    )


def test_benchmarks_that_are_not_there_are_named() -> None:
    assert absent_benchmarks([BENCH]) == ("MiniUCF", "HMDB51", "K400", "SSv2")
    assert absent_benchmarks([BENCH, _named("ssv2", 3)]) == ("MiniUCF", "HMDB51", "K400")
    notes = all_notes([BENCH], "First.", "First.")
    assert notes[0] == "First."
    assert notes.count("First.") == 1
    assert "Not run, dataset absent: MiniUCF, HMDB51, K400, SSv2." in notes
    assert any("3 epochs" in note and "2 seeds" in note for note in notes)
    assert not any("epochs" in note for note in all_notes([BENCH], trained=False))


def test_budgets_are_the_fields() -> None:
    assert BENCH.allowed(Fraction(1)) == 3 * 4 * 32 * 32 * 3 * 4
    assert BENCH.allowed(Fraction(1, 10)) == 3 * 4 * 32 * 32 * 3 * 4 // 10
    assert [ipc_text(Fraction(5)), ipc_text(Fraction(1, 10))] == ["5", "1/10"]
    assert BENCH.chance == pytest.approx(100 / 3)
    assert replace(_named("SSv2", 20)).chance == 25


def test_every_comparison_holds_the_full_data_once() -> None:
    CALLS.clear()
    measured = measure_sets(BENCH, BENCH.allowed(1), (FULL, TIGHT, CODEC, "random, uint8"))
    assert [names for names, _ in CALLS] == [[FULL, TIGHT, CODEC, "random, uint8"]]
    assert [point.candidate.name for point in measured] == [FULL, TIGHT, CODEC, "random, uint8"]
    for point in measured:
        assert point.row is not None
        assert isinstance(point.candidate, TrainingSet)
        assert point.row.num_clips == point.candidate.num_clips
    CALLS.clear()
    measure_sets(BENCH, BENCH.allowed(1), ("random, uint8",))
    assert [names for names, _ in CALLS] == [[FULL, "random, uint8"]]


def test_a_curve_computes_what_all_budgets_share_once() -> None:
    assert BENCH.sources is BENCH.sources
    assert BENCH.ladders is BENCH.stored_ladders
    budgets = (100, 60_000)
    measured = measure_curve(BENCH, budgets, names=(TIGHT, PAPER))
    assert [(point.allowed, point.candidate.name) for point in measured] == [
        (100, TIGHT),
        (100, PAPER),
        (60_000, TIGHT),
        (60_000, PAPER),
    ]
    assert [type(point.candidate) for point in measured[:2]] == [NotPossible] * 2
    assert measured[2].row is not None
    assert measured[0].row is None
    assert cells_of(BENCH, measured[0]) == (100, None, None, "top-1", "not possible", None, None)
    reasons = reasons_of(BENCH, measured, at="IPC 1")
    assert len(reasons) == sum(isinstance(point.candidate, NotPossible) for point in measured)
    assert reasons[0].startswith(f"videos, IPC 1, {TIGHT}: the budget of 100 B is too small")
    allowed, stored, clips, _, accuracy, std, seeds = cells_of(BENCH, measured[2])
    assert (allowed, std, seeds) == (60_000, 0.0, 2)
    assert isinstance(stored, int)
    assert stored <= 60_000
    assert clips == "3 to 6"
    assert isinstance(accuracy, float)
    assert accuracy > BENCH.chance


def test_a_single_seed_has_no_deviation() -> None:
    single = replace(BENCH, protocol=replace(PROTOCOL, seeds=(0,)))
    point = Measured(9, single.full, single.score([])[FULL])
    assert cells_of(single, point)[-2:] == (None, 1)

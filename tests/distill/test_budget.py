"""Bytes add up, allowances follow the field's convention, and the planner takes the largest rung that fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvdd_assets.distill.budget import (
    BudgetError,
    Ledger,
    LedgerLine,
    allowed_bytes,
    build_ladder,
    choose_rung,
    field_budget_bytes,
    format_bytes,
    judge_class,
    judge_release,
)
from lvdd_assets.distill.catalog import Budget, ClipShape


def test_field_convention_gives_the_published_budget() -> None:
    assert field_budget_bytes(50, 1, ClipShape(16, 4, 112)) == 120_422_400  # MiniUCF IPC 1
    assert field_budget_bytes(6, 1, ClipShape(8, 4, 64)) == 2_359_296
    assert field_budget_bytes(6, 5, ClipShape(8, 4, 64)) == 5 * 2_359_296


def test_allowance_takes_either_form() -> None:
    shape = ClipShape(8, 4, 64)
    assert allowed_bytes(Budget(num_bytes=1234), num_classes=6, shape=shape) == 1234
    assert allowed_bytes(Budget(ipc=2), num_classes=6, shape=shape) == 2 * 2_359_296


def _ledger(**cores: int) -> Ledger:
    lines = [LedgerLine("cores", name, size) for name, size in cores.items()]
    return Ledger((LedgerLine("decoder", "", 50), *lines, LedgerLine("labels", "", 3), LedgerLine("metadata", "", 7)))


def test_ledger_adds_up_and_tabulates() -> None:
    ledger = _ledger(run=20, jump=20)
    assert ledger.total == 100
    assert ledger.by_class() == {"run": 20, "jump": 20}
    table = ledger.table()
    assert table["bytes"].sum() == 100
    assert table["share"].sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="part must be one of"):
        LedgerLine("teacher", "", 1)


@pytest.mark.parametrize(
    ("size", "allowed", "classes", "passed", "reason"),
    [
        (100, 100, ["jump", "run"], True, "100 B on disk of 100 B allowed"),
        (100, 99, ["jump", "run"], False, "1 B over the allowance of 99 B"),
        (101, 200, ["jump", "run"], False, "adds up to 100 B, the file has 101 B"),
        (100, 200, ["jump", "run", "swim"], False, "1 of 3 classes are missing: swim"),
    ],
    ids=["exact", "over", "unaccounted", "missing"],
)
def test_judge_release(size: int, allowed: int, classes: list[str], passed: bool, reason: str) -> None:
    verdict = judge_release(_ledger(run=20, jump=20), file_bytes=size, allowed=allowed, expected_classes=classes)
    assert verdict.passed is passed
    assert reason in "; ".join(verdict.reasons)


def test_judge_class_compares_with_an_equal_share() -> None:
    assert judge_class(coded_bytes=25, allowed=100, num_classes=4).passed
    assert not judge_class(coded_bytes=26, allowed=100, num_classes=4).passed


@given(st.integers(1, 500), st.integers(1, 500))
def test_every_class_has_the_same_rungs(one: int, other: int) -> None:
    first, second = (build_ladder(n, finest=0.125, coarsest=4.0, steps_per_octave=4) for n in (one, other))
    assert [rung.step for rung in first] == [rung.step for rung in second]
    clips = [rung.num_clips for rung in first]
    assert clips == sorted(clips, reverse=True)
    assert clips[0] == one
    assert clips[-1] == 1
    steps = [rung.step for rung in first]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0.125, 4.0)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(0, 10**6))
def test_choose_rung_is_the_largest_that_fits(sizes: list[int], allowed: int) -> None:
    sizes = sorted(sizes, reverse=True)
    calls: list[int] = []

    def measure(rung: int) -> int:
        calls.append(rung)
        return sizes[rung]

    if sizes[-1] > allowed:
        with pytest.raises(BudgetError, match=f"budget of {allowed} B is too small.*takes {sizes[-1]} B"):
            choose_rung(len(sizes), measure, allowed=allowed)
        return
    chosen = choose_rung(len(sizes), measure, allowed=allowed)
    assert sizes[chosen] == max(size for size in sizes if size <= allowed)
    assert len(calls) <= len(sizes).bit_length() + 1


def test_build_ladder_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="finest ≤ coarsest"):
        build_ladder(3, finest=2.0, coarsest=1.0, steps_per_octave=4)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (99_950, "100 kB"),
        (1_234_567, "1.23 MB"),
        (3 * 10**12, "3000 GB"),
    ],
)
def test_format_bytes(size: int, text: str) -> None:
    assert format_bytes(size) == text

"""Bytes add up, allowances follow the field's convention, and the planner takes the largest rung that fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvdd_assets.distill.budget import (
    COARSEST_STEP,
    FINEST_STEP,
    LAST_STEP,
    STEPS_PER_OCTAVE,
    BudgetError,
    Fit,
    Ledger,
    LedgerLine,
    allowed_bytes,
    clips_of_share,
    field_budget_bytes,
    first_fitting,
    fit_allowance,
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


def test_hundreds_of_missing_classes_are_counted_and_a_few_named() -> None:
    classes = [f"class {number:03d}" for number in range(400)]
    verdict = judge_release(_ledger(run=20, jump=20), file_bytes=100, allowed=100, expected_classes=classes)
    assert verdict.reasons == (
        "400 of 400 classes are missing: class 000, class 001, class 002, class 003, class 004 and 395 more",
    )


def test_judge_class_compares_with_an_equal_share() -> None:
    assert judge_class(coded_bytes=25, allowed=100, num_classes=4).passed
    assert not judge_class(coded_bytes=26, allowed=100, num_classes=4).passed


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.integers(0, 10**6), st.integers(-5, 80))
def test_the_first_size_that_fits_is_found_from_any_guess(sizes: list[int], allowed: int, guess: int) -> None:
    sizes = sorted(sizes, reverse=True)
    calls: list[int] = []

    def measure(index: int) -> int:
        calls.append(index)
        return sizes[index]

    for start in (None, guess):
        calls.clear()
        found = first_fitting(len(sizes), measure, allowed=allowed, guess=start)
        assert found == next((index for index, size in enumerate(sizes) if size <= allowed), len(sizes))
        assert len(calls) <= 2 * len(sizes).bit_length() + 2


def test_a_good_guess_saves_measurements() -> None:
    calls: list[int] = []

    def measure(index: int) -> int:
        calls.append(index)
        return 1000 - index

    assert first_fitting(1000, measure, allowed=400, guess=599) == 600
    assert len(calls) <= 5


CLIPS = (24, 7, 1)


def _measure(step: float, share: float) -> int:
    """A file as they are: something fixed, and cores that fall with the step."""
    return 500 + sum(30 + round(clips_of_share(clips, share) * 90 / step**1.3) for clips in CLIPS)


def _fit(allowed: int, **options: float) -> Fit:
    return fit_allowance(_measure, allowed=allowed, most_clips=max(CLIPS), **options)  # type: ignore[arg-type]


@given(st.integers(620, 60_000), st.one_of(st.none(), st.floats(0.02, 60)))
def test_a_fit_never_passes_the_allowance_and_nearly_fills_it(allowed: int, guess: float | None) -> None:
    fit = _fit(allowed, guess=guess)  # type: ignore[arg-type]
    assert fit == _fit(allowed)  # whatever it was guessed
    assert fit.num_bytes == _measure(fit.step, fit.share) <= allowed
    finer = fit.step / 2 ** (1 / STEPS_PER_OCTAVE)
    assert fit.step <= FINEST_STEP or _measure(finer, fit.share) > allowed or fit.step == COARSEST_STEP
    assert fit.num_bytes - 590 >= 0.97 * (allowed - 590) - 30 or fit.step in (FINEST_STEP, COARSEST_STEP)


@given(st.integers(620, 200_000), st.integers(0, 5_000))
def test_more_bytes_never_mean_fewer_clips_or_a_coarser_step(allowed: int, more: int) -> None:
    less, enough = _fit(allowed), _fit(allowed + more)
    assert enough.share >= less.share
    assert enough.share > less.share or enough.step <= less.step


def test_clips_are_left_out_only_beyond_the_coarsest_step() -> None:
    whole = _measure(COARSEST_STEP, 1.0)
    assert _fit(whole) == Fit(COARSEST_STEP, 1.0, whole)
    fewer = _fit(whole - 1)
    assert 0.9 < fewer.share < 1
    assert fewer.step <= COARSEST_STEP  # what the left-out clips freed goes into the rest
    tiny = _fit(620)
    assert clips_of_share(24, tiny.share) == 1
    assert tiny.step > COARSEST_STEP


def test_what_fits_nowhere_is_an_error_with_both_numbers() -> None:
    smallest = _measure(LAST_STEP, 1 / 24)
    with pytest.raises(BudgetError, match=rf"budget of 100 B is too small: the smallest .* takes {smallest} B"):
        _fit(100)
    with pytest.raises(ValueError, match="finest ≤ coarsest"):
        _fit(1000, finest=2.0, coarsest=1.0)


@given(st.integers(1, 500), st.floats(0, 1))
def test_a_share_is_never_nothing_and_never_too_much(num_clips: int, share: float) -> None:
    kept = clips_of_share(num_clips, share)
    assert 1 <= kept <= num_clips
    assert kept == 1 or kept <= num_clips * share + 1e-6


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

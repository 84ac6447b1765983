"""A stage's peak is what it really took, also where the memory has been given back."""

import time
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill import measuring
from lvdd_assets.distill.measuring import measure

MEGABYTE = 1_000_000

with measure("probe") as _probe:
    pass
linux_only = pytest.mark.skipif(_probe.peak_bytes is None, reason="this system does not tell a process's peak")


def _take(megabytes: int) -> None:
    taken = np.ones(megabytes * MEGABYTE, dtype=np.uint8)  # ones: every page is really there
    assert taken[-1] == 1


@linux_only
def test_a_peak_of_200_megabytes_is_seen_after_it_is_gone() -> None:
    with measure("allocate") as stage:
        _take(200)
    assert stage.grown_bytes is not None
    assert 195 * MEGABYTE < stage.grown_bytes < 260 * MEGABYTE


@linux_only
def test_an_earlier_peak_does_not_count() -> None:
    _take(300)
    with measure("little") as stage:
        _take(20)
    assert stage.grown_bytes is not None
    assert 15 * MEGABYTE < stage.grown_bytes < 80 * MEGABYTE


@linux_only
def test_an_outer_stage_has_the_peak_of_what_lies_within_and_before_it() -> None:
    with measure("outer") as outer:
        _take(200)
        with measure("inner") as inner:
            _take(50)
    assert inner.grown_bytes is not None
    assert outer.grown_bytes is not None
    assert inner.grown_bytes < 110 * MEGABYTE
    assert outer.grown_bytes > 195 * MEGABYTE
    with measure("outer") as outer, measure("inner"):
        _take(200)
    assert outer.grown_bytes is not None
    assert outer.grown_bytes > 195 * MEGABYTE


def test_seconds_are_wall_time_also_where_the_stage_fails() -> None:
    stages = []

    def fail() -> None:
        with measure("fail") as stage:
            stages.append(stage)
            time.sleep(0.05)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert 0.05 <= stages[0].seconds < 5
    assert measuring._running == []


def test_where_the_system_does_not_tell_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "_CLEAR_REFS", tmp_path / "no folder" / "clear_refs")
    with measure("elsewhere") as stage:
        _take(10)
    assert (stage.start_bytes, stage.peak_bytes, stage.grown_bytes) == (None, None, None)
    assert stage.seconds > 0

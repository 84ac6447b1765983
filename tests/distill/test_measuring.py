"""A stage's peak is what it really took, also where the memory has been given back.

Memory is measured in an interpreter of its own: one in which other tests ran has free memory that it takes from first.
"""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill import measuring
from lvdd_assets.distill.measuring import measure

with measure("probe") as _probe:
    pass
linux_only = pytest.mark.skipif(_probe.peak_bytes is None, reason="this system does not tell a process's peak")


def _grown_megabytes(code: str) -> list[float]:
    """What the stages `a`, `b`, … of some lines have grown by, in megabytes, in a fresh interpreter."""
    script = """
    import numpy as np
    from lvdd_assets.distill.measuring import measure

    def take(megabytes):
        taken = np.ones(megabytes * 1_000_000, dtype=np.uint8)  # ones: every page is really there
        assert taken[-1] == 1

    """
    lines = textwrap.dedent(script) + textwrap.dedent(code)
    lines += "print(*(stage.grown_bytes for stage in stages))\n"
    result = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return [int(word) / 1e6 for word in result.stdout.split()]


@linux_only
def test_a_peak_of_200_megabytes_is_seen_after_it_is_gone() -> None:
    (grown,) = _grown_megabytes("""
    with measure("allocate") as stage:
        take(200)
    stages = [stage]
    """)
    assert 195 < grown < 260


@linux_only
def test_an_earlier_peak_does_not_count() -> None:
    (grown,) = _grown_megabytes("""
    take(300)
    with measure("little") as stage:
        take(20)
    stages = [stage]
    """)
    assert 15 < grown < 80


@linux_only
def test_an_outer_stage_has_the_peak_of_what_lies_within_and_before_it() -> None:
    inner, outer, around = _grown_megabytes("""
    with measure("outer") as outer:
        take(200)
        with measure("inner") as inner:
            take(50)
    with measure("around") as around, measure("within"):
        take(200)
    stages = [inner, outer, around]
    """)
    assert 45 < inner < 110
    assert outer > 195
    assert around > 195


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
        np.ones(10_000_000, dtype=np.uint8)
    assert (stage.start_bytes, stage.peak_bytes, stage.grown_bytes) == (None, None, None)
    assert stage.seconds > 0

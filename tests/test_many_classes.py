"""Beyond the 100 partitions above at which Dagster stops looking, through Dagster's assets."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks/bookkeeping.py"


def test_one_touched_clip_of_120_classes_makes_its_class_and_the_roll_up() -> None:
    """In a process of its own: partitions are those of the registry that is there when the package is imported."""
    words = ("--datasets", "1", "--classes", "120", "--clips", "2", "--touch-only")
    run = subprocess.run([sys.executable, str(BENCHMARK), *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    key = "many0/class 00060"
    assert found["computed"] == [
        f"dpp_subsets {key}",
        "eval_report many0",
        f"hosvd_cores {key}",
        f"latents {key}",
        "quantized_vae many0",
        f"raw_clips {key}",
        "release many0",
    ]
    assert found["stale"] == found["computed"]

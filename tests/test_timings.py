from pathlib import Path

from lvdd_assets.timings import Taken, recall, remember


def test_a_step_takes_the_seconds_of_all_its_partitions_and_the_largest_peak(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert recall(root, "demo") == {}
    remember(root, "latents", {"demo/spin": Taken(1.5, 100), "demo/drop": Taken(2.0, 300), "demos/x": Taken(9.0, 900)})
    remember(root, "release", {"demo": Taken(4.0)})
    assert recall(root, "demo") == {"latents": Taken(3.5, 300), "release": Taken(4.0, None)}
    assert recall(root, "demos") == {"latents": Taken(9.0, 900)}


def test_the_last_run_counts(tmp_path: Path) -> None:
    remember(tmp_path, "latents", {"demo/spin": Taken(1.5, 100)})
    remember(tmp_path, "latents", {"demo/spin": Taken(1.0, None)})
    remember(tmp_path, "latents", {})
    assert recall(tmp_path, "demo") == {"latents": Taken(1.0, None)}

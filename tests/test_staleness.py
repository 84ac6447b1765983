"""What would run is told before anything runs, with a reason that names what has changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.staleness import all_configs
from tests.counting_chain import STEPS, make_pipeline, replace_step, run, run_all


def _plan(pipeline: Pipeline, config: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Reasons by step and partition, of what is stale."""
    return {f"{one.step.name} {one.task.key}": one.reason for one in pipeline.plan("set", config) if one.is_stale}


def test_everything_is_stale_at_first_and_nothing_after_a_run(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    assert set(_plan(pipeline).values()) == {"never made"}
    assert list(_plan(pipeline)) == ["a set/x", "a set/y", "b set/x", "b set/y", "c set"]
    run_all(pipeline)
    assert _plan(pipeline) == {}


def test_what_is_foretold_is_what_a_run_computes(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y", "z"])
    run_all(pipeline)
    (tmp_path / "videos/y/one.mp4").write_text("50")
    foretold = {(one.step.name, one.task.key): one.task.fingerprint for one in pipeline.plan("set")}
    stale = _plan(pipeline)
    assert stale == {
        "a set/y": "y/one.mp4 changed",
        "b set/y": "a will be made anew",
        "c set": "b set/y will be made anew",
    }
    outcomes = run(pipeline, "c")
    computed = {f"{one.step} {one.key}": one.reason for one in outcomes if not one.cached}
    assert computed == stale
    for one in outcomes:
        assert one.commit.fingerprint == foretold[one.step, one.key]


def test_planning_writes_nothing(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    _plan(pipeline)
    assert not (tmp_path / "data").exists()
    run_all(pipeline)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    (tmp_path / "videos/y/one.mp4").write_text("50")
    _plan(pipeline)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_config_that_changed_is_named_with_both_values(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    assert _plan(pipeline, {"b": {"factor": 5}}) == {
        "b set/x": "config factor 2 → 5",
        "b set/y": "config factor 2 → 5",
        "c set": "b set/x, set/y will be made anew",
    }
    run(pipeline, "b", {"factor": 5})
    # A run without config has defaults; that is what it would do, and what it says.
    assert _plan(pipeline)["b set/x"] == "config factor 5 → 2"
    assert _plan(pipeline, {"b": {"factor": 5}}) == {"c set": "b set/x, set/y was made anew"}


def test_a_registry_entry_that_changed_is_named_with_both_values(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    assert _plan(make_pipeline(tmp_path, ["x"], frames=16))["a set/x"] == "registry frames 8 → 16"


def test_code_that_changed_is_named(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    a, b, c = STEPS
    steps = (a, replace_step(b, module="lvdd_assets.distill.paper"), c)
    changed = Pipeline(pipeline.workspace, steps, progress=False)
    assert _plan(changed) == {"b set/x": "its code has changed", "c set": "b set/x will be made anew"}


def test_a_class_that_is_gone_is_named(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    (tmp_path / "videos/y/one.mp4").unlink()
    (tmp_path / "videos/y").rmdir()
    assert _plan(pipeline) == {"c set": "no longer made from b set/y"}


def test_damage_is_named(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    store = ZarrStore(pipeline.workspace.data_root, "b")
    version = store.commit_of("set/y").version
    (store.folder("set/y") / version / "value/c/0").unlink()
    assert _plan(pipeline)["b set/y"] == "damaged: value/c/0 is gone"
    # It comes back as it was, so that what was made of it is still right.
    assert _plan(pipeline).keys() == {"b set/y"}


def test_forcing_makes_everything_stale(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    forced = list(pipeline.plan("set", force=True))
    assert [one.reason for one in forced] == ["forced"] * 3


def test_unknown_config_is_an_error() -> None:
    with pytest.raises(ValueError, match="config for unknown steps d; there are a, b, c"):
        all_configs(STEPS, {"d": {}})
    with pytest.raises(ValueError, match="b has no config faktor; it has factor"):
        all_configs(STEPS, {"b": {"faktor": 1}})

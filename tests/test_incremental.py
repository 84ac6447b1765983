"""Only what is stale is computed, whatever came before; what was finished stays."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.listing import class_names, list_dataset
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.resources import Workspace
from lvdd_assets.steps import Outcome, Outside, Step, StepError, Task
from lvdd_assets.timings import recall

# Small steps with the shape of the real chain: a (files) → b → c (by dataset). They only count and add.


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"frames": spec.shape.frames}


def _nothing(spec: DatasetSpec) -> Mapping[str, Any]:
    return {}


def _files(spec: DatasetSpec, classes: Sequence[str], data_root: Path) -> Mapping[str, Outside]:
    listings = list_dataset(spec)
    return {
        name: Outside({clip.name: _sha256(spec.root / clip.name) for clip in listings[name].clips}, payload=spec.root)
        for name in classes
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(task: Task, value: int) -> None:
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("value", np.array([value]))
        out.metrics = {"value": value}


def _compute_a(task: Task) -> None:
    if task.class_name == "bad":
        raise ValueError("this class is bad")
    _write(task, sum(int((task.payload / name).read_text()) for name in task.inputs))


def _compute_b(task: Task) -> None:
    _write(task, int(task.open("a").read("value")[0]) * task.config["factor"])


def _compute_c(task: Task) -> None:
    _write(task, sum(int(task.open("b", name).read("value")[0]) for name in task.class_names))


SOURCE = ("lvdd_assets.distill.fidelity",)
STEPS = (
    Step("a", "class", _compute_a, _settings, {}, SOURCE, outside=_files),
    Step("b", "class", _compute_b, _nothing, {"factor": 2}, SOURCE, upstream=("a",)),
    Step("c", "dataset", _compute_c, _nothing, {}, SOURCE, upstream=("b",)),
)


def _pipeline(tmp_path: Path, classes: list[str], *, num_workers: int = 1, frames: int = 8) -> Pipeline:
    for index, name in enumerate(classes):
        folder = tmp_path / "videos" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "one.mp4").write_text(str(index + 1))
    registry = tmp_path / "datasets.yaml"
    registry.write_text(
        "default: set\ndatasets:\n  set:\n    root: videos\n    layout: folders\n    split: {test_fraction: 0.5}\n"
        f"    frames: {frames}\n    stride: 1\n    size: 8\n    budget: {{ipc: 1}}\n"
    )
    return Pipeline(Workspace(registry, tmp_path / "data", num_workers), STEPS, progress=False)


def _run(pipeline: Pipeline, step: str, config: Mapping[str, Any] | None = None) -> list[Outcome]:
    spec = pipeline.workspace.catalog().dataset("set")
    keys = ["set"] if step == "c" else [f"set/{name}" for name in class_names(spec)]
    defaults = pipeline.step(step).defaults
    return pipeline.bring_up_to_date(step, keys, {**defaults, **(config or {})})


def _computed(outcomes: list[Outcome]) -> list[str]:
    return sorted(f"{outcome.step} {outcome.key}" for outcome in outcomes if not outcome.cached)


def _run_all(pipeline: Pipeline) -> None:
    for step in "abc":
        _run(pipeline, step)


def test_first_run_computes_all_and_second_nothing(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y"])
    assert _computed(_run(pipeline, "a")) == ["a set/x", "a set/y"]
    assert _computed(_run(pipeline, "b")) == ["b set/x", "b set/y"]
    assert _computed(_run(pipeline, "c")) == ["c set"]
    assert ZarrStore(pipeline.workspace.data_root, "c").open("set").read("value")[0] == 2 * (1 + 2)
    for step in "abc":
        outcomes = _run(pipeline, step)
        assert _computed(outcomes) == []
        assert all(outcome.cached for outcome in outcomes)


def test_a_touched_class_recomputes_itself_and_what_hangs_on_it(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y", "z"])
    _run_all(pipeline)
    (tmp_path / "videos/y/one.mp4").write_text("50")
    # Asked for one step, its stale upstream is refreshed on the way, and reported.
    assert _computed(_run(pipeline, "c")) == ["a set/y", "b set/y", "c set"]
    assert ZarrStore(pipeline.workspace.data_root, "c").open("set").read("value")[0] == 2 * (1 + 50 + 3)
    assert _computed(_run(pipeline, "c")) == []


def test_the_same_content_under_a_new_time_is_fresh(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y"])
    _run_all(pipeline)
    path = tmp_path / "videos/y/one.mp4"
    text = path.read_text()
    path.unlink()
    path.write_text(text)
    assert _computed(_run(pipeline, "c")) == []


def test_more_than_a_hundred_classes(tmp_path: Path) -> None:
    """Dagster's own staleness ignores edges of 100 partitions and more."""
    classes = [f"class_{index:03d}" for index in range(120)]
    pipeline = _pipeline(tmp_path, classes)
    _run_all(pipeline)
    (tmp_path / "videos/class_077/one.mp4").write_text("0")
    assert _computed(_run(pipeline, "c")) == ["a set/class_077", "b set/class_077", "c set"]


def test_config_counts_and_upstream_keeps_its_own(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y"])
    _run_all(pipeline)
    assert _computed(_run(pipeline, "b", {"factor": 5})) == ["b set/x", "b set/y"]
    (tmp_path / "videos/x/one.mp4").write_text("10")
    assert _computed(_run(pipeline, "c")) == ["a set/x", "b set/x", "c set"]
    # b was refreshed with the factor it had been made with, not with the default.
    assert ZarrStore(pipeline.workspace.data_root, "c").open("set").read("value")[0] == 5 * (10 + 2)


def test_only_the_registry_keys_that_a_step_reads_count(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x"])
    _run_all(pipeline)
    changed = _pipeline(tmp_path, ["x"], frames=4)  # a reads it, and through a all others
    assert _computed(_run(changed, "a")) == ["a set/x"]
    registry = changed.workspace.registry
    registry.write_text(registry.read_text().replace("ipc: 1", "bytes: 5kB"))  # none of these steps reads the budget
    assert _computed(_run(changed, "a")) == []


def test_some_partitions_only(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y"])
    assert _computed(pipeline.bring_up_to_date("a", ["set/y"], {})) == ["a set/y"]
    assert _computed(pipeline.bring_up_to_date("b", ["set/y"], {"factor": 2})) == ["b set/y"]


def test_what_was_never_made_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y"])
    with pytest.raises(StepError) as caught:
        _run(pipeline, "b")
    text = str(caught.value)
    assert "b: nothing stored upstream: a for set/x, set/y" in text
    assert "dagster asset materialize --select '*a' --partition set" in text
    assert ZarrStore(pipeline.workspace.data_root, "b").commit_of("set/x") is None
    pipeline.bring_up_to_date("a", ["set/x"], {})
    with pytest.raises(StepError, match=r"--select '\*a' --partition set/y"):
        _run(pipeline, "b")


def test_one_bad_class_costs_no_other(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["bad", "x", "y"])
    with pytest.raises(
        StepError, match=r"a failed for 1 of 3 partitions; 2 finished and stored:\n  set/bad: this class is bad"
    ):
        _run(pipeline, "a")
    store = ZarrStore(pipeline.workspace.data_root, "a")
    assert [store.commit_of(f"set/{name}") is None for name in ("bad", "x", "y")] == [True, False, False]


def test_a_failure_keeps_the_old_partition(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x"])
    _run_all(pipeline)
    (tmp_path / "videos/x/one.mp4").write_text("not a number")
    with pytest.raises(StepError, match="invalid literal"):
        _run(pipeline, "b")
    assert ZarrStore(pipeline.workspace.data_root, "a").open("set/x").read("value")[0] == 1


def test_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown dataset 'other'"):
        _pipeline(tmp_path, ["x"]).bring_up_to_date("a", ["other/x"], {})


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_as_one(tmp_path: Path) -> None:
    classes = ["bad", *(f"c{index}" for index in range(6))]
    pipeline = _pipeline(tmp_path, classes, num_workers=2)
    with pytest.raises(StepError, match="1 of 7 partitions; 6 finished"):
        _run(pipeline, "a")
    store = ZarrStore(pipeline.workspace.data_root, "a")
    values = {name: int(store.open(f"set/{name}").read("value")[0]) for name in classes[1:]}
    assert values == {name: index + 2 for index, name in enumerate(classes[1:])}


def test_progress_is_made_step_by_step_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _pipeline(tmp_path, ["x", "y"])
    _run_all(pipeline)
    (tmp_path / "videos/x/one.mp4").write_text("10")
    calls: Counter[str] = Counter()
    original = ZarrStore.write

    def counting(self: ZarrStore, key: str, *arguments: Any, **named: Any) -> Any:
        calls[f"{self.asset} {key}"] += 1
        return original(self, key, *arguments, **named)

    monkeypatch.setattr(ZarrStore, "write", counting)
    _run_all(pipeline)
    assert calls == {"a set/x": 1, "b set/x": 1, "c set": 1}


def test_what_steps_took_is_remembered(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x"])
    _run_all(pipeline)
    taken = recall(pipeline.workspace.data_root, "set")
    assert set(taken) == {"a", "b", "c"}
    assert all(one.seconds > 0 for one in taken.values())
    _run_all(pipeline)
    assert recall(pipeline.workspace.data_root, "set") == taken  # nothing ran, nothing changed


def test_another_code_version_makes_everything_stale(tmp_path: Path) -> None:
    pipeline = _pipeline(tmp_path, ["x"])
    _run_all(pipeline)
    first, *rest = STEPS
    changed = Step("a", "class", _compute_a, _settings, {}, ("lvdd_assets.distill.budget",), outside=_files)
    assert changed.code_version != first.code_version
    again = Pipeline(pipeline.workspace, (changed, *rest), progress=False)
    assert _computed(_run(again, "c")) == ["a set/x", "b set/x", "c set"]

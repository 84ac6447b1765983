"""Only what is stale is computed, whatever came before; what was finished stays."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.steps import Outcome, Step, StepError, Task
from lvdd_assets.timings import recall
from tests.counting_chain import (
    STEPS,
    compute_a,
    compute_b,
    files_of,
    make_pipeline,
    replace_step,
    run,
    run_all,
    settings_of,
)


def _computed(outcomes: list[Outcome]) -> list[str]:
    return sorted(f"{outcome.step} {outcome.key}" for outcome in outcomes if not outcome.cached)


def test_first_run_computes_all_and_second_nothing(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    assert _computed(run(pipeline, "a")) == ["a set/x", "a set/y"]
    assert _computed(run(pipeline, "b")) == ["b set/x", "b set/y"]
    assert _computed(run(pipeline, "c")) == ["c set"]
    assert ZarrStore(pipeline.workspace.data_root, "c").open("set").read("value")[0] == 2 * (1 + 2)
    for step in "abc":
        outcomes = run(pipeline, step)
        assert _computed(outcomes) == []
        assert all(outcome.cached for outcome in outcomes)


def test_a_touched_class_recomputes_itself_and_what_hangs_on_it(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y", "z"])
    run_all(pipeline)
    (tmp_path / "videos/y/one.mp4").write_text("50")
    # Asked for one step, its stale upstream is refreshed on the way, and reported.
    assert _computed(run(pipeline, "c")) == ["a set/y", "b set/y", "c set"]
    assert ZarrStore(pipeline.workspace.data_root, "c").open("set").read("value")[0] == 2 * (1 + 50 + 3)
    assert _computed(run(pipeline, "c")) == []


def test_the_same_content_under_a_new_time_is_fresh(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    path = tmp_path / "videos/y/one.mp4"
    text = path.read_text()
    path.unlink()
    path.write_text(text)
    assert _computed(run(pipeline, "c")) == []


def test_more_than_a_hundred_classes(tmp_path: Path) -> None:
    """Dagster's own staleness ignores edges of 100 partitions and more."""
    classes = [f"class_{index:03d}" for index in range(120)]
    pipeline = make_pipeline(tmp_path, classes)
    run_all(pipeline)
    (tmp_path / "videos/class_077/one.mp4").write_text("0")
    assert _computed(run(pipeline, "c")) == ["a set/class_077", "b set/class_077", "c set"]


def test_config_counts_and_upstream_keeps_its_own(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    assert _computed(run(pipeline, "b", {"factor": 5})) == ["b set/x", "b set/y"]
    (tmp_path / "videos/x/one.mp4").write_text("10")
    assert _computed(run(pipeline, "c")) == ["a set/x", "b set/x", "c set"]
    # b was refreshed with the factor it had been made with, not with the default.
    assert ZarrStore(pipeline.workspace.data_root, "c").open("set").read("value")[0] == 5 * (10 + 2)


def test_only_the_registry_keys_that_a_step_reads_count(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    changed = make_pipeline(tmp_path, ["x"], frames=4)  # a reads it, and through a all others
    assert _computed(run(changed, "a")) == ["a set/x"]
    registry = changed.workspace.registry
    registry.write_text(registry.read_text().replace("ipc: 1", "bytes: 5kB"))  # none of these steps reads the budget
    assert _computed(run(changed, "a")) == []


def test_some_partitions_only(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    assert _computed(pipeline.bring_up_to_date("a", ["set/y"], {})) == ["a set/y"]
    assert _computed(pipeline.bring_up_to_date("b", ["set/y"], {"factor": 2})) == ["b set/y"]


def test_what_was_never_made_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    with pytest.raises(StepError) as caught:
        run(pipeline, "b")
    text = str(caught.value)
    assert "b: nothing stored upstream: a for set/x, set/y" in text
    assert "dagster asset materialize --select '*a' --partition set" in text
    assert ZarrStore(pipeline.workspace.data_root, "b").commit_of("set/x") is None
    pipeline.bring_up_to_date("a", ["set/x"], {})
    with pytest.raises(StepError, match=r"--select '\*a' --partition set/y"):
        run(pipeline, "b")


def test_one_bad_class_costs_no_other(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["bad", "x", "y"])
    with pytest.raises(
        StepError, match=r"a failed for 1 of 3 partitions; 2 finished and stored:\n  set/bad: this class is bad"
    ):
        run(pipeline, "a")
    store = ZarrStore(pipeline.workspace.data_root, "a")
    assert [store.commit_of(f"set/{name}") is None for name in ("bad", "x", "y")] == [True, False, False]


def test_a_failure_keeps_the_old_partition(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    (tmp_path / "videos/x/one.mp4").write_text("not a number")
    with pytest.raises(StepError, match="invalid literal"):
        run(pipeline, "b")
    assert ZarrStore(pipeline.workspace.data_root, "a").open("set/x").read("value")[0] == 1


def test_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown dataset 'other'"):
        make_pipeline(tmp_path, ["x"]).bring_up_to_date("a", ["other/x"], {})


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_as_one(tmp_path: Path) -> None:
    classes = ["bad", *(f"c{index}" for index in range(6))]
    pipeline = make_pipeline(tmp_path, classes, num_workers=2)
    with pytest.raises(StepError, match="1 of 7 partitions; 6 finished"):
        run(pipeline, "a")
    store = ZarrStore(pipeline.workspace.data_root, "a")
    values = {name: int(store.open(f"set/{name}").read("value")[0]) for name in classes[1:]}
    assert values == {name: index + 2 for index, name in enumerate(classes[1:])}


def test_progress_is_made_step_by_step_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    (tmp_path / "videos/x/one.mp4").write_text("10")
    calls: Counter[str] = Counter()
    original = ZarrStore.write

    def counting(self: ZarrStore, key: str, *arguments: Any, **named: Any) -> Any:
        calls[f"{self.asset} {key}"] += 1
        return original(self, key, *arguments, **named)

    monkeypatch.setattr(ZarrStore, "write", counting)
    run_all(pipeline)
    assert calls == {"a set/x": 1, "b set/x": 1, "c set": 1}


def test_what_steps_took_is_remembered(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    taken = recall(pipeline.workspace.data_root, "set")
    assert set(taken) == {"a", "b", "c"}
    assert all(one.seconds > 0 for one in taken.values())
    run_all(pipeline)
    assert recall(pipeline.workspace.data_root, "set") == taken  # nothing ran, nothing changed


def test_another_code_version_makes_everything_stale(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    run_all(pipeline)
    first, *rest = STEPS
    changed = Step("a", "class", compute_a, settings_of, {}, "lvdd_assets.distill.budget", outside=files_of)
    assert changed.code_version != first.code_version
    again = Pipeline(pipeline.workspace, (changed, *rest), progress=False)
    assert _computed(run(again, "c")) == ["a set/x", "b set/x", "c set"]


def _flip_a_bit(pipeline: Pipeline, step: str, key: str) -> None:
    store = ZarrStore(pipeline.workspace.data_root, step)
    chunk = store.folder(key) / store.commit_of(key).version / "value/c/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 16
    chunk.write_bytes(data)


def test_damage_that_a_step_meets_is_mended_by_the_same_run(tmp_path: Path) -> None:
    """The size of a file tells nothing of a flipped bit: it is found when the next step reads."""
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    _flip_a_bit(pipeline, "a", "set/x")
    outcomes = run(pipeline, "b", {"factor": 3})
    assert _computed(outcomes) == ["a set/x", "b set/x", "b set/y"]
    (mended,) = (one for one in outcomes if one.step == "a")
    assert mended.reason.startswith("damaged: value/c/0 is not what was written")
    assert ZarrStore(pipeline.workspace.data_root, "b").open("set/x").read("value")[0] == 3
    assert _computed(run(pipeline, "c")) == ["c set"]


def test_what_is_made_again_as_it_was_makes_nothing_below_stale(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    ZarrStore(pipeline.workspace.data_root, "a").withdraw("set/x", "a test")
    assert _computed(run(pipeline, "c")) == ["a set/x"]


def test_forcing_computes_what_is_fresh_and_nothing_above(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x", "y"])
    run_all(pipeline)
    outcomes = pipeline.bring_up_to_date("b", ["set/x"], {"factor": 2}, force=True)
    assert [(one.key, one.cached, one.reason) for one in outcomes] == [("set/x", False, "forced")]
    assert _computed(run(pipeline, "c")) == []  # the same fingerprint came out


def _compute_b_after_another_run(task: Task) -> None:
    """Between the plan and the reading of its input, another run replaces that, once."""
    sign = Path(task.data_root) / "another run"
    if not sign.exists():
        sign.write_text("")
        with ZarrStore(task.data_root, "a").write(task.key, "of another config", settings={}, inputs={}) as out:
            out.put("value", np.array([-1]))
    compute_b(task)


def test_an_input_that_another_run_replaced_is_never_mixed_in(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    a, b, c = STEPS
    racing = Pipeline(pipeline.workspace, (a, replace_step(b, compute=_compute_b_after_another_run), c), progress=False)
    run(racing, "a")
    outcomes = run(racing, "b")
    assert _computed(outcomes) == ["a set/x", "b set/x"]
    assert ZarrStore(pipeline.workspace.data_root, "b").open("set/x").read("value")[0] == 2


def test_runs_that_replace_each_other_for_ever_end_with_an_error(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    a, b, c = STEPS

    def always(task: Task) -> None:
        (Path(task.data_root) / "another run").unlink(missing_ok=True)
        _compute_b_after_another_run(task)

    racing = Pipeline(pipeline.workspace, (a, replace_step(b, compute=always), c), progress=False)
    run(racing, "a")
    with pytest.raises(StepError, match=r"replaced by another run while b set/x was made.*5 times in a row"):
        run(racing, "b")


def test_figures_that_cannot_be_remembered_cost_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = make_pipeline(tmp_path, ["x"])
    (tmp_path / "data/timings.sqlite").mkdir(parents=True)
    run_all(pipeline)
    assert "what a took is not remembered" in capsys.readouterr().err
    assert _computed(run(pipeline, "c")) == []

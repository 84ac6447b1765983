"""One click: the demo's chain with its lineage, and the paper's tables on the run's page."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lvdd_assets import jobs
from lvdd_assets.definitions import defs
from tests.conftest import QUICK, Chain, MakeChain

NAMES = ("raw_clips", "latents", "dpp_subsets", "hosvd_cores", "quantized_vae", "release", "eval_report")


def _run(chain: Chain, job: dg.JobDefinition, op: str, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    return job.execute_in_process(
        run_config={"ops": {op: {"config": config}}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        resources={"pipeline": chain.pipeline},
        raise_on_error=False,
    )


def _told(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    events = [event for event in result.all_events if event.is_step_materialization]
    found = [event.step_materialization_data.materialization for event in events]
    return {f"{one.asset_key.to_user_string()} {one.partition}": bool(one.metadata["cached"].value) for one in found}


def test_both_are_in_the_definitions_and_say_what_they_do() -> None:
    for name in ("distill_demo", "paper_tables"):
        assert len(defs.resolve_job_def(name).description or "") > 60


def test_the_demo_s_chain_is_told_by_partition(finished: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the tests' dataset in the place of the demo's, which takes minutes; its report has other settings."""
    chain = finished()
    rendered: list[Path] = []
    monkeypatch.setattr(jobs, "render_dataset", lambda root: rendered.append(root) or 0)
    monkeypatch.setattr(jobs, "_settings_of", lambda step: {**step.defaults, **QUICK.get(step.name, {})})
    result = _run(chain, jobs.distill_demo, "demo_chain", {"dataset": "tiny"})
    assert result.success
    assert [path.name for path in rendered] == ["videos"]
    told = _told(result)
    assert {name.split()[0] for name in told} == set(NAMES)
    assert all(told.values())
    next((chain.videos / "train/grow").iterdir()).unlink()
    told = _told(_run(chain, jobs.distill_demo, "demo_chain", {"dataset": "tiny"}))
    assert told["raw_clips tiny/grow"] is False
    assert told["raw_clips tiny/move_left"] is True


def test_an_unknown_table_fails_with_its_sentence(finished: MakeChain) -> None:
    result = _run(finished(), jobs.paper_tables, "tables", {"datasets": ["tiny"], "tables": ["magic"]})
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "unknown tables magic" in str(failed.step_failure_data.user_failure_data.description)


def test_a_table_is_on_the_run_s_page_and_in_the_data_root(finished: MakeChain) -> None:
    chain = finished()
    config = {"datasets": ["tiny"], "tables": ["runtime"], "num_seeds": 1, "epochs": 1}
    result = _run(chain, jobs.paper_tables, "tables", config)
    assert result.success
    (shown,) = [
        event.event_specific_data.metadata["tables"].value
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_OUTPUT
    ]
    assert "| tiny |" in str(shown)
    assert (chain.workspace.data_root / "paper_tables.md").read_text() == shown

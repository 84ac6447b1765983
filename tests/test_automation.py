"""The jobs cover the whole chain; the sensor and the schedule ask for what is to be done, once, and say what they leave
out. That the daemon runs what they ask for is tested in test_routes.
"""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from lvdd_assets import automation
from lvdd_assets.definitions import defs
from tests.conftest import CLASS_ASSETS, Chain, MakeChain

DATASET_ASSETS = ("quantized_vae", "release", "eval_report")
FIRST, LAST, ONE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"


def test_the_jobs_cover_the_chain() -> None:
    selected = {}
    for name in ("distill_classes", "release_dataset"):
        job = defs.resolve_job_def(name)
        selected[name] = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert selected == {
        "distill_classes": {"raw_clips", "latents", "dpp_subsets", "hosvd_cores"},
        "release_dataset": {"quantized_vae", "release", "eval_report"},
    }


@pytest.fixture
def settled(finished: MakeChain) -> Chain:
    """A finished chain whose videos came an hour ago."""
    chain = finished()
    for file in chain.videos.rglob("*.mp4"):
        _age(file, seconds=3600)
    return chain


def _planned(class_name: str, *, stale: bool) -> SimpleNamespace:
    """What `class_runs` reads of a partition of one step."""
    task = SimpleNamespace(
        step="latents",
        key=f"tiny/{class_name}",
        class_name=class_name,
        fingerprint=class_name,
        dataset=SimpleNamespace(name="tiny"),
    )
    stored = SimpleNamespace(version="v", damage="")
    return SimpleNamespace(step=SimpleNamespace(name="latents"), task=task, stored=stored, is_stale=stale)


@pytest.mark.parametrize(
    ("classes", "stale", "expected"),
    [
        ("abcdef", "abcdef", [("a", "f")]),
        ("abcdef", "bcf", [("b", "c"), ("f", "f")]),
        ("abcdef", "", []),
        ("abdef", "bde", [("b", "b"), ("d", "e")]),  # c is gone: a run over b...e would ask for it
        ("abcdefg", "fg", [("f", "f")]),  # Dagster does not know g yet
        ("fedcba", "ab", [("a", "b")]),
    ],
)
def test_neighbours_are_one_run(
    monkeypatch: pytest.MonkeyPatch, classes: str, stale: str, expected: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(automation, "BY_CLASS", dg.StaticPartitionsDefinition([f"tiny/{name}" for name in "abcdef"]))
    requests = automation.class_runs([_planned(name, stale=name in stale) for name in classes])  # type: ignore[misc]
    ends = [(one.tags.get(FIRST, one.tags.get(ONE)), one.tags.get(LAST, one.tags.get(ONE))) for one in requests]
    assert ends == [(f"tiny/{first}", f"tiny/{last}") for first, last in expected]
    assert len({one.run_key for one in requests}) == len(requests)
    assert {one.tags["lvdd/dataset"] for one in requests} <= {"tiny"}


def _tick(chain: Chain, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(resources={"pipeline": chain.pipeline}, cursor=cursor)
    result = automation.new_clips(context)
    assert isinstance(result, dg.SensorResult)
    return result


def _said(result: dg.SensorResult) -> str:
    assert not result.run_requests
    return str(result.skip_reason.skip_message) if result.skip_reason else ""


def _age(file: Path, seconds: float) -> None:
    os.utime(file, (time.time() - seconds, time.time() - seconds))


def test_a_new_clip_is_taken_when_it_is_there_whole(settled: Chain) -> None:
    chain = settled
    assert _said(_tick(chain)) == "tiny: nothing is stale"
    new = chain.videos / "train/grow/another.mp4"
    new.write_bytes((chain.videos / "test/grow/grow_000.mp4").read_bytes())
    assert "files are still arriving" in _said(_tick(chain))
    _age(new, seconds=3600)
    (request,) = _tick(chain).run_requests or ()
    assert (request.job_name, request.tags[ONE]) == ("distill_classes", "tiny/grow")
    _age(new, seconds=-3600)  # a clock that was set back must not stop it for ever
    assert _tick(chain).run_requests


def test_it_asks_once_and_again_when_the_same_files_come_back(settled: Chain) -> None:
    chain = settled
    clip, aside = chain.videos / "train/grow/grow_000.mp4", chain.videos.parent / "aside.mp4"
    run_keys = []
    cursor = _tick(chain).cursor
    for _ in range(2):
        shutil.move(clip, aside)
        first = _tick(chain, cursor)
        run_keys += [request.run_key for request in first.run_requests or ()]
        assert "was asked for tiny/grow already" in _said(_tick(chain, first.cursor))
        assert chain.materialize(*CLASS_ASSETS).success
        second = _tick(chain, first.cursor)
        assert [request.job_name for request in second.run_requests or ()] == ["release_dataset"]
        shutil.move(aside, clip)
        third = _tick(chain, second.cursor)
        run_keys += [request.run_key for request in third.run_requests or ()]
        assert chain.materialize(*CLASS_ASSETS).success
        cursor = _tick(chain, third.cursor).cursor
        assert json.loads(cursor or "") == {"tiny": {}}
    assert len(run_keys) == len(set(run_keys)) == 4  # the daemon starts no run twice whose key it knows


def test_what_is_not_on_this_machine_is_left_out_by_name(settled: Chain) -> None:
    chain = settled
    registry = chain.workspace.registry
    text = registry.read_text().replace("default: tiny\n", "")
    gone = text.partition("datasets:\n")[2].replace("  tiny:", "  gone:").replace("root: videos", "root: nowhere")
    registry.write_text(text + gone)
    said = _said(_tick(chain))
    assert "tiny: nothing is stale" in said
    assert "gone is left out: dataset 'gone': no folder" in said
    (chain.videos / "train/grow/grow_000.mp4").unlink()
    assert [request.tags["lvdd/dataset"] for request in _tick(chain).run_requests or ()] == ["tiny"]


def test_a_new_class_asks_for_a_reload(finished: MakeChain) -> None:
    chain = finished()
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("[grow, move_left]", "[grow, move_left, new]"))
    for split in ("train", "test"):
        shutil.copytree(chain.videos / split / "grow", chain.videos / split / "new")
    said = _said(_tick(chain))
    assert "no class that Dagster knows is stale" in said
    assert "tiny/new came after Dagster loaded the classes: press Reload" in said


def _night(chain: Chain) -> list[dg.RunRequest] | dg.SkipReason:
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2030, 1, 2, 2, tzinfo=UTC), resources={"pipeline": chain.pipeline}
    )
    result = automation.nightly(context)
    assert isinstance(result, list | dg.SkipReason)
    return result


def test_the_schedule_asks_for_fresh_classes_too(finished: MakeChain) -> None:
    requests = _night(finished())
    assert isinstance(requests, list)
    (request,) = requests
    assert (request.tags[FIRST], request.tags[LAST]) == ("tiny/grow", "tiny/move_left")
    assert "2030-01-02T02:00:00" in (request.run_key or "")


def test_the_schedule_says_why_it_asks_for_nothing(make_chain: MakeChain) -> None:
    chain = make_chain(root="nowhere")
    reason = _night(chain)
    assert isinstance(reason, dg.SkipReason)
    assert "tiny is left out: dataset 'tiny': no folder" in (reason.skip_message or "")


def _report(instance: dg.DagsterInstance, asset: str, key: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))


def test_the_conditions_follow_the_chain_over_both_partition_definitions() -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def requested(cursor: object) -> tuple[set[str], object]:
            result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)  # type: ignore[arg-type]
            found = {
                f"{asset} {key}"
                for asset in (*CLASS_ASSETS, *DATASET_ASSETS)
                for key in result.get_requested_partitions(dg.AssetKey(asset))
            }
            return found, result.cursor

        found, cursor = requested(None)
        assert found == set()  # turning it on starts nothing
        for asset in CLASS_ASSETS:
            for key in ("tiny/grow", "tiny/move_left"):
                _report(instance, asset, key)
        for asset in DATASET_ASSETS:
            _report(instance, asset, "tiny")
        found, cursor = requested(cursor)
        assert found == set()
        _report(instance, "raw_clips", "tiny/grow")
        found, cursor = requested(cursor)
        below = {f"{asset} tiny/grow" for asset in CLASS_ASSETS[1:]}
        assert found == below | {f"{asset} tiny" for asset in DATASET_ASSETS}
        found, cursor = requested(cursor)
        assert found == set()

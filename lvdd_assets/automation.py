"""Jobs over assets, named for what people do with them, and what starts runs unasked: a sensor on clips, a schedule,
conditions.

All of it is off until somebody turns it on in Dagster's UI, the conditions under which Dagster itself starts an asset
included. What a run then skips is told by `staleness`, whoever started it.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import KEEP_SETTINGS
from lvdd_assets.partitions import BY_CLASS, BY_DATASET
from lvdd_assets.staleness import Planned, plan_chain
from lvdd_assets.steps import some

CLASS_ASSETS = ("raw_clips", "latents", "dpp_subsets", "hosvd_cores")
DATASET_ASSETS = ("quantized_vae", "release", "eval_report")

DATASET_TAG = "lvdd/dataset"
"""On every run that is started here; `dagster.yaml` lets those of one dataset run one after the other."""
THEN_TAG = "lvdd/then-release"
"""On runs of distill_classes after which release_dataset is wanted; its value tells one night from another."""

# A file that changed within this time may still be being copied.
_QUIET_SECONDS = 30.0

distill_classes = dg.define_asset_job(
    "distill_classes",
    selection=dg.AssetSelection.assets(*CLASS_ASSETS),
    partitions_def=BY_CLASS,
    description="From video files to coded cores, class by class; recomputes only what is stale.",
)

release_dataset = dg.define_asset_job(
    "release_dataset",
    selection=dg.AssetSelection.assets(*DATASET_ASSETS),
    partitions_def=BY_DATASET,
    description="From coded cores to the release file within its budget and the report on what it is worth.",
)

JOBS = (distill_classes, release_dataset)

_Condition = dg.AutomationCondition
_changed: dg.AutomationCondition[Any] = (
    _Condition.code_version_changed() | _Condition.missing().newly_true() | _Condition.any_deps_updated()
)
WHEN_STALE: dg.AutomationCondition[Any] = (
    _changed.since_last_handled() & ~_Condition.any_deps_missing() & ~_Condition.in_progress()
)
"""When Dagster starts an asset by itself, where somebody has turned its automation sensor on. What it does not see
(changed files, settings) is told by fingerprints in the run; what it starts needlessly is found fresh there."""


def look(pipeline: Pipeline, spec: DatasetSpec) -> list[Planned]:
    """All partitions of a dataset, stale or not by the settings that each was made with.

    Nobody is there to say other settings, so a clip that is added does not undo what somebody chose.

    Raises:
        ValueError: the dataset, or the weights it needs, are not on this machine.
    """
    plan = plan_chain(pipeline.workspace, pipeline.steps, spec, configs={})
    return [one for planned in plan for one in planned]


def class_runs(planned: Sequence[Planned], *, night: str = "") -> list[dg.RunRequest]:
    """Runs of distill_classes over a dataset's classes: one for each stretch of neighbours.

    Args:
        planned: what `look` returned.
        night: the schedule's time, for all classes and a release after them; without it, for stale classes alone.

    Returns:
        Requests whose run key names what is wanted and what is stored, or the night, so that none is made twice.
    """
    by_key: dict[str, list[Planned]] = {}
    for one in planned:
        if one.step.name in CLASS_ASSETS:
            by_key.setdefault(one.task.key, []).append(one)
    positions = {key: place for place, key in enumerate(BY_CLASS.get_partition_keys())}
    chosen = [key for key in by_key if key in positions]
    if not night:
        chosen = [key for key in chosen if any(one.is_stale for one in by_key[key])]
    chosen.sort(key=positions.__getitem__)
    # Neighbours in the order of all partitions have the same distance to their place among those chosen.
    distances = [positions[key] - rank for rank, key in enumerate(chosen)]
    requests = []
    for _, stretch in itertools.groupby(zip(distances, chosen, strict=True), key=lambda pair: pair[0]):
        keys = [key for _, key in stretch]
        members = [one for key in keys for one in by_key[key]]
        requests.append(
            dg.RunRequest(
                run_key=f"{keys[0]}...{keys[-1]} {night or _hash(members, with_stored=True)}",
                job_name=distill_classes.name,
                tags={
                    DATASET_TAG: members[0].task.dataset.name,
                    **KEEP_SETTINGS,
                    **_partition_tags(keys[0], keys[-1]),
                    **({THEN_TAG: night} if night else {}),
                },
            )
        )
    return requests


def release_run(planned: Sequence[Planned], *, night: str = "") -> dg.RunRequest:
    """A run of release_dataset; arguments as above."""
    members = [one for one in planned if one.step.name in DATASET_ASSETS]
    dataset = members[0].task.dataset.name
    return dg.RunRequest(
        run_key=f"{dataset} {night or _hash(members, with_stored=True)}",
        job_name=release_dataset.name,
        tags={DATASET_TAG: dataset, **KEEP_SETTINGS, **_partition_tags(dataset, dataset)},
    )


def _partition_tags(first: str, last: str) -> dict[str, str]:
    if first == last:
        return {PARTITION_NAME_TAG: first}
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def _stale(planned: Iterable[Planned], assets: Sequence[str]) -> list[Planned]:
    return [one for one in planned if one.is_stale and one.step.name in assets]


def _hash(members: Iterable[Planned], *, with_stored: bool = False) -> str:
    """Of what is wanted; and, where that may come back, of what is there."""
    rows = [[one.task.step, one.task.key, one.task.fingerprint] for one in members]
    if with_stored:
        rows += [[one.stored.version, one.stored.damage] for one in members]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _seconds_since_change(planned: Iterable[Planned]) -> float:
    """How long ago the newest video file changed; endless where there is none."""
    times = [
        digest.mtime_ns
        for one in planned
        if one.step.name == "raw_clips"
        for digest in one.task.payload.digests
        if digest is not None
    ]
    return time.time() - max(times) / 1e9 if times else float("inf")


@dg.sensor(
    jobs=list(JOBS),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Video files that are new, changed or gone: starts distill_classes for the classes they belong to, then "
        "release_dataset. What has failed is not tried again until something changes."
    ),
)
def new_clips(context: dg.SensorEvaluationContext, pipeline: dg.ResourceParam[Pipeline]) -> dg.SensorResult:
    """Looks at every dataset, and asks once for what is stale in it."""
    asked: dict[str, dict[str, str]] = json.loads(context.cursor or "{}")
    requests: list[dg.RunRequest] = []
    reasons: list[str] = []
    for spec in pipeline.workspace.catalog().datasets:
        try:
            planned = look(pipeline, spec)
        except ValueError as error:
            asked.pop(spec.name, None)
            reasons.append(f"{spec.name} is left out: {error}")
            continue
        wanted, reason = _wanted(planned, asked.setdefault(spec.name, {}))
        requests += wanted
        reasons.append(f"{spec.name}: {reason}")
        reasons += _not_loaded(planned)
    for line in reasons if requests else ():
        context.log.info(line)
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else "; ".join(reasons), cursor=json.dumps(asked)
    )


def _wanted(planned: Sequence[Planned], asked: dict[str, str]) -> tuple[list[dg.RunRequest], str]:
    """Runs to ask for now, and what they are for.

    Args:
        planned: a dataset's partitions.
        asked: hashes of what was asked for, by job; brought up to date. What has become fresh is forgotten, so that
            it is asked for again should it be damaged, or the same files come back.
    """
    requests, stale = class_runs(planned), _stale(planned, CLASS_ASSETS)
    if not stale:
        asked.pop(distill_classes.name, None)
        stale = _stale(planned, DATASET_ASSETS)
        requests = [release_run(planned)] if stale else []
    if not stale:
        asked.clear()
        return [], "nothing is stale"
    if not requests:
        return [], "no class that Dagster knows is stale"
    if 0 <= _seconds_since_change(planned) < _QUIET_SECONDS:
        return [], f"files are still arriving; waits until none has changed for {_QUIET_SECONDS:.0f} s"
    job = requests[0].job_name or ""
    assets = CLASS_ASSETS if job == distill_classes.name else DATASET_ASSETS
    keys = some(list(dict.fromkeys(one.task.key for one in stale)))
    mark = _hash(one for one in planned if one.step.name in assets)
    if asked.get(job) == mark:
        return [], f"{job} was asked for {keys} already, and is at work or has failed"
    asked[job] = mark
    return requests, f"{job} for {keys}"


def _not_loaded(planned: Iterable[Planned]) -> list[str]:
    """A sentence on classes that have come since Dagster loaded the partitions."""
    known = set(BY_CLASS.get_partition_keys())
    new = list(dict.fromkeys(one.task.key for one in planned if one.task.class_name and one.task.key not in known))
    if not new:
        return []
    return [f"{some(new)} came after Dagster loaded the classes: press Reload on the UI's Deployment page"]


@dg.schedule(
    job=distill_classes,
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description=(
        "Every night at two (UTC): distill_classes over all classes of every dataset that is on this machine, and "
        "after it release_dataset. What is fresh is not computed."
    ),
)
def nightly(
    context: dg.ScheduleEvaluationContext, pipeline: dg.ResourceParam[Pipeline]
) -> list[dg.RunRequest] | dg.SkipReason:
    """Asks for all classes of every dataset; `release_after_classes` asks for the rest."""
    night = context.scheduled_execution_time.isoformat()
    requests: list[dg.RunRequest] = []
    reasons: list[str] = []
    for spec in pipeline.workspace.catalog().datasets:
        try:
            planned = look(pipeline, spec)
        except ValueError as error:
            reasons.append(f"{spec.name} is left out: {error}")
            continue
        requests += class_runs(planned, night=night)
        reasons += _not_loaded(planned)
    for line in reasons if requests else ():
        context.log.info(line)
    return requests or dg.SkipReason("; ".join(reasons) or "no dataset is registered")


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[distill_classes],
    request_job=release_dataset,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="After the schedule's runs of distill_classes: release_dataset. Does nothing after any other run.",
)
def release_after_classes(
    context: dg.RunStatusSensorContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.RunRequest | dg.SkipReason:
    """Asks for a dataset's release once all runs over its classes are through."""
    tags: Mapping[str, str] = context.dagster_run.tags
    if THEN_TAG not in tags:
        return dg.SkipReason("nobody asked for a release after this run")
    planned = look(pipeline, pipeline.workspace.catalog().dataset(tags[DATASET_TAG]))
    waiting = _stale(planned, CLASS_ASSETS)
    if waiting:
        return dg.SkipReason(f"waits for {some([f'{one.step.name} {one.task.key}' for one in waiting])}")
    return release_run(planned, night=tags[THEN_TAG])


SENSORS = (new_clips, release_after_classes)
SCHEDULES = (nightly,)

"""`lvdd demo` and `lvdd run`: the whole chain through Dagster, in this process."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvdd_assets.cli.terminal import leave_interrupted, progress_bar, sentences, short
from lvdd_assets.resources import workspace_from_environment

if TYPE_CHECKING:
    import dagster as dg

    from lvdd_assets.incremental import Pipeline
    from lvdd_assets.staleness import Planned


# Steps print nothing: what they say is in events. Capturing it anyway costs Dagster four processes a step, which
# answer Ctrl-C with tracebacks.
_NO_COMPUTE_LOGS = {
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


@click.command()
def demo() -> None:
    """Render the demo dataset, run the whole chain on it, and print what it cost and what it is worth.

    What is there already is not made again.
    """
    from lvdd_assets.distill.demo import render_dataset

    with sentences():
        spec = workspace_from_environment().catalog().dataset("demo")
        with progress_bar("render demo videos", "clip") as progress:
            num_rendered = render_dataset(spec.root, progress=progress)
        if num_rendered:
            click.echo(f"rendered {num_rendered} videos below {short(spec.root)}")
    _run_chain("demo")


@click.command()
@click.argument("dataset", default="default")
@click.option("--force", is_flag=True, help="Compute everything, also what is fresh.")
def run(dataset: str, force: bool) -> None:
    """Run the whole chain on DATASET (of the registry), recomputing only what is stale (`lvdd stale` says what that
    is)."""
    _run_chain(dataset, force=force)


def _run_chain(dataset: str, *, force: bool = False) -> None:
    """Both jobs of the chain through Dagster in this process, then the report's table."""
    start = time.monotonic()
    # Dagster reads the same registry and data root; its definitions are loaded now, when the videos are there.
    with sentences():
        import dagster as dg
        from dagster._core.instance.ref import InstanceRef

        from lvdd_assets.automation import distill_classes, release_dataset
        from lvdd_assets.definitions import build_pipeline, defs
        from lvdd_assets.distill.file_stores import FileStore
        from lvdd_assets.distill.places import parse_place
        from lvdd_assets.partitions import BY_CLASS, BY_DATASET

        workspace = workspace_from_environment()
        pipeline = build_pipeline(workspace)
        name = workspace.catalog().dataset(dataset).name
        home = os.environ.get("DAGSTER_HOME") or str(Path.cwd())
        if not (Path(home) / "dagster.yaml").exists():
            raise ValueError(f"no dagster.yaml in {home}: run lvdd from the project's folder, or set DAGSTER_HOME")
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(home, overrides=_NO_COMPUTE_LOGS)) as instance:
            for job, partitions in ((distill_classes, BY_CLASS), (release_dataset, BY_DATASET)):
                partitions.validate_partition_key(name, None)
                tags = partitions.get_tags_for_partition_key(name)
                resolved = defs.resolve_job_def(job.name)
                if force or not _says_all_is_fresh(pipeline, resolved, instance, name):
                    _run_job(resolved, tags, instance, force=force)
        commit = FileStore(workspace.data_root, "eval_report").commit_of(name)
        release = FileStore(workspace.data_root, "release").commit_of(name)
        assert commit is not None
        assert release is not None
        click.echo(f"\n{commit.metrics['summary']}\n")
        click.echo(f"release  {short(parse_place(release.metrics['file']))}")
        click.echo(f"report   {short(parse_place(commit.metrics['report']))}")
        click.echo(f"lineage  . ./env.sh && dagster dev    ({time.monotonic() - start:.0f} s)")


def _says_all_is_fresh(
    pipeline: "Pipeline", job: "dg.JobDefinition", instance: "dg.DagsterInstance", dataset: str
) -> bool:
    """Whether a run would only find that all is fresh, and Dagster's lineage has all of it: then says so instead.

    For hundreds of classes Dagster needs most of a minute to write that down once more.
    """
    import dagster as dg

    from lvdd_assets.distill.file_stores import FileStore

    names = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    planned: dict[str, list[Planned]] = {}
    for one in pipeline.plan(dataset):
        if one.step.name in names:
            planned.setdefault(one.step.name, []).append(one)
    if any(one.is_stale for members in planned.values() for one in members):
        return False
    for name, members in planned.items():
        if not {one.task.key for one in members} <= instance.get_materialized_partitions(dg.AssetKey(name)):
            return False
    for name, members in planned.items():
        for one in members:
            store = one.step.store(pipeline.workspace.data_root)
            if isinstance(store, FileStore):
                store.publish(one.task.key)
        click.echo(f"{name:<14} 0 computed, {len(members)} fresh")
    return True


def _run_job(job: "dg.JobDefinition", tags: object, instance: "dg.DagsterInstance", *, force: bool) -> None:
    """Runs one job; says of each asset what was computed, and ends the program with the step's own message if it
    fails."""
    config: dict[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    if force:
        steps = [key.to_user_string() for key in job.asset_layer.executable_asset_keys]
        config["ops"] = {step: {"config": {"force": True}} for step in steps}
    result = job.execute_in_process(instance=instance, tags=tags, run_config=config, raise_on_error=False)  # type: ignore[arg-type]
    for event in result.all_events:
        if event.is_step_success:
            materialized = result.asset_materializations_for_node(event.step_key or "")
            cached = [bool(item.metadata["cached"].value) for item in materialized if "cached" in item.metadata]
            if cached:
                fresh = sum(cached)
                click.echo(f"{event.step_key:<14} {len(cached) - fresh} computed, {fresh} fresh")
    if result.success:
        return
    failed = [event for event in result.all_events if event.is_step_failure]
    if any(_is_interruption(event) for event in failed):
        leave_interrupted()
    for event in failed:
        click.echo(f"{event.step_key} failed: {_message(event)}", err=True)
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed and evaluation.severity.value == "ERROR":
            click.echo(f"check {evaluation.check_name} failed: {evaluation.description}", err=True)
    click.echo(f"run {result.run_id} is in Dagster's UI with all its events: . ./env.sh && dagster dev", err=True)
    sys.exit(1)


def _is_interruption(event: "dg.DagsterEvent") -> bool:
    """Whether a step ended because Dagster was told to stop, which it takes for a failure."""
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _message(event: "dg.DagsterEvent") -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "no message"

"""`lvdd demo` and `lvdd run`: the whole chain through Dagster, in this process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvdd_assets.cli.completion import complete_datasets
from lvdd_assets.cli.run_config import Config, config_option, read_config
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

    What is there already is not made again. At first it takes some minutes, most of them for the three networks that
    are compared.

    \b
      lvdd demo
    """
    from lvdd_assets.distill.demo import render_dataset

    with sentences():
        spec = workspace_from_environment().catalog().dataset("demo")
        with progress_bar("render demo videos", "clip") as progress:
            num_rendered = render_dataset(spec.root, progress=progress)
        if num_rendered:
            click.echo(f"rendered {num_rendered} videos below {short(spec.root)}")
    run_chain("demo")


@click.command()
@click.argument("dataset", default="default", shell_complete=complete_datasets)
@config_option
@click.option("--force", is_flag=True, help="Compute everything, also what is fresh.")
def run(dataset: str, config_file: Path | None, force: bool) -> None:
    """Run the whole chain on DATASET (of the registry), recomputing only what is stale (`lvdd stale` says what that
    is).

    \b
      lvdd run my_videos
      lvdd run my_videos --config config.yaml
      lvdd run --force
    """
    with sentences():
        config, forced = read_config(config_file)
    run_chain(dataset, config=config, force=force, forced=forced)


def run_chain(
    dataset: str,
    *,
    config: Config | None = None,
    force: bool = False,
    forced: Collection[str] = (),
    with_report: bool = True,
) -> tuple[Path, Path | None]:
    """Both jobs of the chain through Dagster in this process, then the report's table.

    Args:
        dataset: of the registry.
        config: by step; what is not given has its default.
        force: whether what is fresh is computed as well.
        forced: steps of which it is, without `force`.
        with_report: whether the release is evaluated.

    Returns:
        Paths of the release, and of the report where there is one.
    """
    start = time.monotonic()
    # Dagster reads the same registry and data root; its definitions are loaded now, when the videos are there.
    with sentences():
        import dagster as dg
        from dagster._core.instance.ref import InstanceRef

        from lvdd_assets.automation import CLASS_ASSETS, DATASET_ASSETS, distill_classes, release_dataset
        from lvdd_assets.definitions import build_pipeline, defs
        from lvdd_assets.distill.file_stores import FileStore
        from lvdd_assets.distill.places import parse_place
        from lvdd_assets.distill.release import SUFFIX
        from lvdd_assets.partitions import BY_CLASS, BY_DATASET
        from lvdd_assets.staleness import all_configs

        workspace = workspace_from_environment()
        pipeline = build_pipeline(workspace)
        name = workspace.catalog().dataset(dataset).name
        config = config or {}
        all_configs(pipeline.steps, config)  # a step or field that is unknown is said before anything runs
        home = os.environ.get("DAGSTER_HOME") or str(Path.cwd())
        if not (Path(home) / "dagster.yaml").exists():
            raise ValueError(f"no dagster.yaml in {home}: run lvdd from the project's folder, or set DAGSTER_HOME")
        last = DATASET_ASSETS if with_report else DATASET_ASSETS[:-1]
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(home, overrides=_NO_COMPUTE_LOGS)) as instance:
            for job, partitions, assets in (
                (distill_classes, BY_CLASS, CLASS_ASSETS),
                (release_dataset, BY_DATASET, last),
            ):
                partitions.validate_partition_key(name, None)
                tags = partitions.get_tags_for_partition_key(name)
                resolved = defs.resolve_job_def(job.name)
                if assets == DATASET_ASSETS[:-1]:
                    resolved = resolved.get_subset(asset_selection={dg.AssetKey(asset) for asset in assets})
                own = {step: {**config.get(step, {}), "force": force or step in forced} for step in assets}
                is_forced = any(values["force"] for values in own.values())
                if is_forced or not _says_all_is_fresh(pipeline, assets, config, instance, name):
                    _run_job(resolved, tags, instance, own)
        release = FileStore(workspace.data_root, "release")
        file = release.fetch(name, f"{name}{SUFFIX}")
        made = release.commit_of(name)
        assert made is not None
        kept = f"\nkept     {made.metrics['verdict']}"
        if not with_report:
            click.echo(kept)
            return file, None
        reports = FileStore(workspace.data_root, "eval_report")
        commit = reports.commit_of(name)
        assert commit is not None
        click.echo(f"\n{commit.metrics['summary']}\n{kept}")
        click.echo(f"release  {short(parse_place(made.metrics['file']))}")
        click.echo(f"report   {short(parse_place(commit.metrics['report']))}")
        click.echo(f"lineage  lvdd ui    ({time.monotonic() - start:.0f} s)")
        return file, reports.fetch(name, f"{name}/report.html")


def _says_all_is_fresh(
    pipeline: "Pipeline", names: Sequence[str], config: Config, instance: "dg.DagsterInstance", dataset: str
) -> bool:
    """Whether a run would only find that all is fresh, and Dagster's lineage has all of it: then says so instead.

    For hundreds of classes Dagster needs most of a minute to write that down once more.
    """
    import dagster as dg

    from lvdd_assets.distill.file_stores import FileStore

    planned: dict[str, list[Planned]] = {}
    for one in pipeline.plan(dataset, config):
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


def _run_job(job: "dg.JobDefinition", tags: object, instance: "dg.DagsterInstance", config: Config) -> None:
    """Runs one job; says of each asset what was computed, and ends the program with the step's own message if it
    fails."""
    import dagster as dg

    run_config = {
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {step: {"config": dict(values)} for step, values in config.items()},
    }
    try:
        result = job.execute_in_process(instance=instance, tags=tags, run_config=run_config, raise_on_error=False)  # type: ignore[arg-type]
    except dg.DagsterInvalidConfigError as error:
        raise ValueError("; ".join(one.message for one in error.errors)) from error
    for event in result.all_events:
        if event.is_step_success:
            materialized = result.asset_materializations_for_node(event.step_key or "")
            cached = [bool(item.metadata["cached"].value) for item in materialized if "cached" in item.metadata]
            if cached:
                fresh = sum(cached)
                click.echo(f"{event.step_key:<14} {len(cached) - fresh} computed, {fresh} fresh")
    unmet = [evaluation for evaluation in result.get_asset_check_evaluations() if not evaluation.passed]
    for evaluation in unmet:
        if evaluation.severity.value == "WARN":
            click.echo(f"warning: {evaluation.description}", err=True)
    if result.success:
        return
    failed = [event for event in result.all_events if event.is_step_failure and not _is_unmet_check(event)]
    if any(_is_interruption(event) for event in failed):
        leave_interrupted()
    for event in failed:
        click.echo(f"{event.step_key} failed: {_message(event)}", err=True)
    for evaluation in unmet:
        if evaluation.severity.value == "ERROR":
            click.echo(f"check {evaluation.check_name} failed: {evaluation.description}", err=True)
    click.echo(f"run {result.run_id} is in Dagster's UI with all its events: lvdd ui", err=True)
    sys.exit(1)


def _is_interruption(event: "dg.DagsterEvent") -> bool:
    """Whether a step ended because Dagster was told to stop, which it takes for a failure."""
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _is_unmet_check(event: "dg.DagsterEvent") -> bool:
    """Whether a step ended because its check was not met; the check says why."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name == "DagsterAssetCheckFailedError"


def _message(event: "dg.DagsterEvent") -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "no message"


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Of this machine.")
def ui(port: int) -> None:
    """Open Dagster's UI on this project: lineage, runs, checks, sensors. Ctrl-C ends it.

    It listens on this machine alone; docs/automation.md says how to reach it from another.

    \b
      lvdd ui
      lvdd ui --port 8080
    """
    with sentences():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ValueError(f"port {port} cannot be used ({error.strerror}): choose another by --port") from error
        workspace_from_environment().catalog()  # a mistake in the registry is said here, not in a child's traceback
        click.echo(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", err=True)
        words = ("--module-name", "lvdd_assets.definitions", "--host", "127.0.0.1", "--port", str(port))
        command = [str(Path(sys.executable).with_name("dagster")), "dev", *words]
        sys.exit(subprocess.run(command, check=False).returncode)

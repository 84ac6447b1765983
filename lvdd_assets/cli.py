"""`lvdd`: the chain from the command line, for those who do not want to know Dagster. Commands are thin; the work is
in assets."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from lvdd_assets.resources import workspace_from_environment

if TYPE_CHECKING:
    import dagster as dg

    from lvdd_assets.distill.adaptation import StoredClips
    from lvdd_assets.distill.catalog import DatasetSpec
    from lvdd_assets.incremental import Pipeline
    from lvdd_assets.planner import Plans


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvdd-assets")
def main() -> None:
    """Distil a labelled video dataset into one small file that trains an action classifier.

    Run it from the project's folder; `data/datasets.yaml` says which datasets there are.
    """


@main.command()
def demo() -> None:
    """Render the demo dataset, run the whole chain on it, and print what it cost and what it is worth.

    What is there already is not made again.
    """
    from lvdd_assets.distill.demo import render_dataset

    with _sentences():
        spec = workspace_from_environment().catalog().dataset("demo")
        with _bar("render demo videos", "clip") as progress:
            num_rendered = render_dataset(spec.root, progress=progress)
        if num_rendered:
            click.echo(f"rendered {num_rendered} videos below {_short(spec.root)}")
    _run_chain("demo")


@main.command()
@click.argument("dataset", default="default")
def run(dataset: str) -> None:
    """Run the whole chain on DATASET (of the registry), recomputing only what is stale."""
    _run_chain(dataset)


@main.command()
@click.argument("dataset", default="default")
@click.option("--budget", help="Bytes, e.g. 200kB or 1.5MiB, instead of the registry's budget.")
@click.option(
    "--classes",
    "most_classes",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Classes to look at; of the others only the files are counted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of a table.")
def plan(dataset: str, budget: str | None, most_classes: int, as_json: bool) -> None:
    """Say what a budget buys of DATASET: clips, step or rate, and bytes by part, for every recipe; and pick one.

    The classes that are looked at are decoded, encoded and selected, and stay stored. Nothing is trained.
    """
    with _sentences():
        from lvdd_assets.distill.catalog import Budget, parse_bytes
        from lvdd_assets.incremental import StepError
        from lvdd_assets.planner import make_plans

        workspace = workspace_from_environment()
        spec = workspace.catalog().dataset(dataset)
        other = None if budget is None else Budget(num_bytes=parse_bytes(budget))
        try:
            plans = make_plans(workspace, spec, budget=other, most_classes=most_classes)
        except StepError as error:
            raise ValueError(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(plans), indent=1, ensure_ascii=False))
    else:
        click.echo(_plan_table(spec.name, plans))


def _plan_table(name: str, plans: "Plans") -> str:
    """The plans as text, the picked one marked."""
    from lvdd_assets.distill.budget import format_bytes
    from lvdd_assets.planner import clips_range

    heads = ("", "recipe", "clips a class", "setting", "decoder", "cores", "rest", "file", "of budget")
    table = [[head.upper() for head in heads]]
    for plan in plans.plans:
        parts = dict(plan.parts)
        decoder = parts.pop("decoder", 0) + parts.pop("encoder", 0)
        cores = parts.pop("cores", None)
        sizes = [format_bytes(decoder) if decoder else "–", "–" if cores is None else format_bytes(cores)]
        sizes.append(format_bytes(sum(parts.values())))
        used = (
            ["–", "does not fit"]
            if plan.problem
            else [format_bytes(plan.num_bytes), f"{plan.num_bytes / plan.allowed:.1%}"]
        )
        mark = "*" if plan.recipe == plans.picked else ""
        table.append([mark, plan.recipe, clips_range(plan.clips), plan.setting, *sizes, *used])
    lines = _aligned(table)
    problems = [f"{plan.recipe}: {plan.problem}" for plan in plans.plans if plan.problem]
    over = [f"{plan.recipe} does not bend to the budget" for plan in plans.plans if not plan.problem and not plan.fits]
    return "\n".join(
        [
            f"{name}: {format_bytes(plans.allowed)} allowed, {plans.num_classes} classes\n",
            *lines,
            f"\n* picked: {plans.why}",
            *(f"  {note}" for note in (*plans.notes, *problems, *over)),
            f"\nTo use it, give {name} in the registry:  recipe: {plans.picked}",
        ]
    )


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def inspect(file: Path) -> None:
    """Say what is in a release FILE, byte by byte, and what it was made from."""
    with _sentences():
        from lvdd_assets.distill.release import load_release

        release = load_release(file)
        shape = release.shape
        click.echo(f"{file}: {release.name}, {release.num_clips} clips in {release.num_classes} classes, ", nl=False)
        click.echo(f"{shape.frames} frames of {shape.size}×{shape.size}, {release.stored_bytes} B\n")
        click.echo(release.ledger.to_string(index=False, formatters={"share": "{:.1%}".format}))
        for name, value in release.provenance.items():
            if isinstance(value, dict):
                click.echo(f"\n{name}:")
                click.echo("\n".join(f"  {key}: {item}" for key, item in value.items()))
            else:
                click.echo(f"\n{name}: {value}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of a table.")
def datasets(as_json: bool) -> None:
    """List the registered datasets: clips found, published, missing, and left out when they were decoded.

    Files are listed, not opened. FOUND and PUBLISHED are train + test videos; EXCLUDED counts the classes that
    raw_clips has stored so far.
    """
    with _sentences():
        from lvdd_assets.distill.inventory import take_inventory

        workspace = workspace_from_environment()
        catalog = workspace.catalog()
        rows, problems = [], []
        for spec in catalog.datasets:
            counts = take_inventory(spec, workspace.data_root)
            rows.append({**asdict(counts), "layout": spec.layout, "split": str(spec.split), "root": str(spec.root)})
            if counts.problem:
                problems.append(counts.problem)
        if as_json:
            click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
            return
        click.echo(_dataset_table(rows, catalog.default))
        for problem in problems:
            click.echo(f"\n{problem}", err=True)


@main.command()
@click.argument("dataset")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the downloads; default data/DATASET.",
)
@click.option("--yes", is_flag=True, help="The terms are known and accepted: do not ask.")
def fetch(dataset: str, folder: Path | None, yes: bool) -> None:
    """Download DATASET from its publisher, or say how: its terms, the files, the steps that remain.

    DATASET is ucf101, miniucf, hmdb51, kinetics400 or ssv2; or an autoencoder on the hub, organisation/name. What was
    interrupted goes on where it stopped; what is there is verified and not fetched again.
    """
    from lvdd_assets.distill.download import download
    from lvdd_assets.distill.sources import SOURCES

    if "/" in dataset:
        _fetch_autoencoder(dataset)
        return
    if dataset not in SOURCES:
        known = f"{', '.join(SOURCES)}, and no hub id (organisation/name)"
        raise click.BadParameter(f"{dataset!r} is none of {known}", param_hint="DATASET")
    source = SOURCES[dataset]
    folder = folder or Path("data") / dataset
    click.echo(f"{source.title}\n{source.homepage}\n\n{source.terms}\n")
    if source.archives and not yes:
        if not sys.stdin.isatty():
            click.echo("Files: " + ", ".join(archive.url for archive in source.archives))
            raise click.UsageError("nothing was downloaded: read the terms above and pass --yes to accept them")
        click.confirm(f"Download {len(source.archives)} files to {folder}?", abort=True)
    with _sentences():
        for archive in source.archives:
            with _bar(archive.file_name, "B") as progress:
                path = download(archive, folder, progress=progress)
            given = "" if archive.known_hash else "; the publisher gives no checksum, this one's is kept beside it"
            click.echo(f"{_short(path)}  {path.stat().st_size} B{given}")
    click.echo("\nWhat remains:")
    for number, step in enumerate(source.steps, start=1):
        click.echo(f"  {number}. {step.format(folder=folder)}")
    click.echo("\nThen add to data/datasets.yaml, below `datasets:`\n")
    click.echo(source.registry_entry(os.path.relpath(folder, "data")))


def _fetch_autoencoder(name: str) -> None:
    from lvdd_assets.distill.vae_folders import download, find_autoencoder

    with _sentences():
        folder = download(name)
        found = find_autoencoder(str(folder))
        click.echo(f"{folder}  {found.class_name}; its terms: https://huggingface.co/{name.partition('@')[0]}")
        click.echo(f"\nTo use it, give a dataset in the registry:\n\n    vae: {name}")


@main.command("train-vae")
@click.argument("dataset", default="default")
@click.option("--from", "name", default="embedded-2d", show_default=True, help="Autoencoder to start from.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long to train; 5 by default.")
@click.option("--steps", type=click.IntRange(min=1), help="Number of updates instead; the same number repeats exactly.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=5e-4, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the weights; default autoencoders/DATASET in the data root.",
)
def train_vae(
    dataset: str,
    name: str,
    minutes: float | None,
    steps: int | None,
    learning_rate: float,
    seed: int,
    out: Path | None,
) -> None:
    """Adapt an autoencoder to DATASET's own train clips, and say what it brought and how to use it.

    Test clips are never seen. Every eighth train clip is kept apart to measure on. raw_clips is made first where it is
    missing or stale.
    """
    if minutes is not None and steps is not None:
        raise click.UsageError("--minutes and --steps exclude each other: give one")
    with _sentences():
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill.adaptation import adapt
        from lvdd_assets.distill.devices import find_device
        from lvdd_assets.distill.vae_training import Schedule

        workspace = workspace_from_environment()
        spec = workspace.catalog().dataset(dataset)
        clips = _train_clips(build_pipeline(workspace), spec)
        out = out or workspace.data_root / "autoencoders" / spec.name
        schedule = Schedule(steps, None if steps else minutes or 5.0, learning_rate)
        with tqdm(total=100, unit="%", desc="train", disable=not sys.stderr.isatty(), leave=False) as bar:

            def progress(_step: int, done: float) -> None:
                bar.update(int(100 * done) - bar.n)

            device = find_device(workspace.device)
            result = adapt(name, clips, out, schedule, base=spec.base, seed=seed, device=device, progress=progress)
    click.echo(
        f"{_short(out)}  {result.num_steps} updates on {result.num_train} train clips of {spec.name}\n"
        f"PSNR on {result.num_held_out} train clips kept apart: {result.psnr_before:.2f} dB with {name}, "
        f"{result.psnr_after:.2f} dB adapted\n\n"
        f"To use it, give {spec.name} in {_short(workspace.registry)}:\n\n"
        f"    vae: {os.path.relpath(out, spec.base)}"
    )


def _train_clips(pipeline: "Pipeline", spec: "DatasetSpec") -> "StoredClips":
    """All train clips of a dataset, class by class; made first where they are not fresh."""
    from lvdd_assets.distill.adaptation import StoredClips
    from lvdd_assets.distill.listing import class_names
    from lvdd_assets.distill.stores import ZarrStore
    from lvdd_assets.incremental import StepError
    from lvdd_assets.partitions import class_key

    keys = [class_key(spec.name, name) for name in class_names(spec)]
    try:
        pipeline.bring_up_to_date("raw_clips", keys, {})
    except StepError as error:
        raise ValueError(str(error)) from error
    store = ZarrStore(pipeline.workspace.data_root, "raw_clips")
    return StoredClips([store.open(key) for key in keys])


def _dataset_table(rows: list[dict[str, Any]], default: str) -> str:
    """The inventory as text; a dash where nothing is known."""
    heads = ("dataset", "layout", "split", "classes", "found", "published", "missing", "unused", "excluded")
    table = [[head.upper() for head in heads]]
    for row in rows:
        name = row["name"] + (" *" if row["name"] == default else "")
        if row["problem"]:
            table.append([name, row["layout"], row["split"], *["–"] * 6])
            continue
        published = f"{row['published'][0]} + {row['published'][1]}" if row["published"] else "–"
        excluded = str(row["num_excluded"] if row["num_decoded"] else row["num_refused"] or "–")
        if 0 < row["num_decoded"] < row["num_classes"]:
            excluded += f" (of {row['num_decoded']} classes)"
        found = f"{row['num_train']} + {row['num_test']}"
        counts = (row["num_classes"], found, published, row["num_missing"], row["num_unused"], excluded)
        table.append([name, row["layout"], row["split"], *map(str, counts)])
    return "\n".join([*_aligned(table), "* what `default` stands for"])


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _run_chain(dataset: str) -> None:
    """Both jobs of the chain through Dagster in this process, then the report's table."""
    start = time.monotonic()
    # Dagster reads the same registry and data root; its definitions are loaded now, when the videos are there.
    with _sentences():
        import dagster as dg

        from lvdd_assets.automation import distill_classes, release_dataset
        from lvdd_assets.definitions import defs
        from lvdd_assets.distill.stores import FileStore
        from lvdd_assets.partitions import BY_CLASS, BY_DATASET

        workspace = workspace_from_environment()
        name = workspace.catalog().dataset(dataset).name
        home = os.environ.get("DAGSTER_HOME") or str(Path.cwd())
        if not (Path(home) / "dagster.yaml").exists():
            raise ValueError(f"no dagster.yaml in {home}: run lvdd from the project's folder, or set DAGSTER_HOME")
        with dg.DagsterInstance.from_config(home) as instance:
            for job, partitions in ((distill_classes, BY_CLASS), (release_dataset, BY_DATASET)):
                partitions.validate_partition_key(name, None)
                _run_job(defs.resolve_job_def(job.name), partitions.get_tags_for_partition_key(name), instance)
        commit = FileStore(workspace.data_root, "eval_report").commit_of(name)
        release = FileStore(workspace.data_root, "release").commit_of(name)
        assert commit is not None
        assert release is not None
        click.echo(f"\n{commit.metrics['summary']}\n")
        click.echo(f"release  {_short(Path(release.metrics['file']))}")
        click.echo(f"report   {_short(Path(commit.metrics['report']))}")
        click.echo(f"lineage  . ./env.sh && dagster dev    ({time.monotonic() - start:.0f} s)")


def _run_job(job: "dg.JobDefinition", tags: object, instance: "dg.DagsterInstance") -> None:
    """Runs one job; says of each asset what was computed, and ends the program with the step's own message if it
    fails."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=instance, tags=tags, run_config=quiet, raise_on_error=False)  # type: ignore[arg-type]
    for event in result.all_events:
        if event.is_step_success:
            materialized = result.asset_materializations_for_node(event.step_key or "")
            cached = [bool(item.metadata["cached"].value) for item in materialized if "cached" in item.metadata]
            if cached:
                fresh = sum(cached)
                click.echo(f"{event.step_key:<14} {len(cached) - fresh} computed, {fresh} fresh")
    if result.success:
        return
    for event in result.all_events:
        if event.is_step_failure:
            click.echo(f"{event.step_key} failed: {_message(event)}", err=True)
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed and evaluation.severity.value == "ERROR":
            click.echo(f"check {evaluation.check_name} failed: {evaluation.description}", err=True)
    click.echo(f"run {result.run_id} is in Dagster's UI with all its events: . ./env.sh && dagster dev", err=True)
    sys.exit(1)


def _message(event: "dg.DagsterEvent") -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "no message"


@contextmanager
def _sentences() -> Iterator[None]:
    """Turns errors that a user can mend into one message and exit code 1."""
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough; click ends quietly
        raise
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, total); a bar on a terminal, nothing elsewhere."""
    with tqdm(desc=title, unit=unit, unit_scale=unit == "B", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield progress


def _short(path: Path) -> str:
    """The path as seen from here, where it lies below."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

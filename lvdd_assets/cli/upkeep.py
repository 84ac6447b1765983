"""`lvdd stale`, `lvdd verify`, `lvdd gc`: what would run and why, whether what is stored is whole, what can go."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdd_assets.cli.terminal import aligned, progress_bar, sentences, short
from lvdd_assets.resources import workspace_from_environment

if TYPE_CHECKING:
    from lvdd_assets.incremental import Pipeline
    from lvdd_assets.staleness import Planned


@click.command()
@click.argument("datasets", nargs=-1)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run config (YAML or JSON), as `dagster asset materialize --config` takes it; by default a run has defaults.",
)
@click.option("--each", is_flag=True, help="A line for each partition, the fresh ones too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of text.")
@click.option("--check", is_flag=True, help="Exit with code 1 if anything is stale.")
def stale(datasets: tuple[str, ...], config_file: Path | None, each: bool, as_json: bool, check: bool) -> None:
    """Say what a run of the whole chain would compute on DATASETS (default: all registered), and why.

    Nothing is computed or decoded; files that changed are read once for their hash.
    """
    with sentences():
        from lvdd_assets.definitions import build_pipeline

        workspace = workspace_from_environment()
        pipeline, catalog = build_pipeline(workspace), workspace.catalog()
        config = _read_config(config_file) if config_file is not None else {}
        names = [catalog.dataset(name).name for name in datasets] or [spec.name for spec in catalog.datasets]
        rows: list[dict[str, Any]] = []
        is_stale = False
        for name in dict.fromkeys(names):
            try:
                planned = list(pipeline.plan(name, config))
            except ValueError as error:
                if datasets or config:
                    raise
                click.echo(f"{name}: {error}", err=True)  # a dataset that is not on this machine
                continue
            is_stale |= any(one.is_stale for one in planned)
            rows += [_row(one) for one in planned]
            if not as_json:
                click.echo("\n".join(_lines(name, planned, each)))
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    if check and is_stale:
        sys.exit(1)


def _row(one: "Planned") -> dict[str, Any]:
    return {
        "step": one.step.name,
        "partition": one.task.key,
        "stale": one.is_stale,
        "reasons": list(one.reasons),
        "fingerprint": one.task.fingerprint,
        "stored_fingerprint": one.stored.commit.fingerprint if one.stored.commit is not None else None,
        "code_version": one.task.code,
    }


def _lines(name: str, planned: "Sequence[Planned]", each: bool) -> list[str]:
    """A dataset's stale partitions; those of a step with the same reason in one line."""
    from lvdd_assets.steps import some

    num_stale = sum(one.is_stale for one in planned)
    if each:
        table = [[one.step.name, one.task.key, one.reason or "fresh"] for one in planned]
    else:
        groups: dict[tuple[str, str], list[str]] = {}
        for one in planned:
            if one.is_stale:
                groups.setdefault((one.step.name, one.reason), []).append(one.task.key)
        table = [[step, some(keys), reason] for (step, reason), keys in groups.items()]
    head = f"{name}: {num_stale} of {len(planned)} partitions are stale" if num_stale else f"{name}: all fresh"
    return [head, *(f"  {line}" for line in aligned(table) if table)]


def _read_config(file: Path) -> dict[str, dict[str, Any]]:
    """Config by step out of a run config of Dagster."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        ops = content.get("ops", {})
        config = {name: dict(values.get("config", {})) for name, values in ops.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no run config: expected `ops: {{STEP: {{config: {{…}}}}}}` ({error})") from error
    for values in config.values():
        values.pop("force", None)
    return config


@click.command()
@click.argument("datasets", nargs=-1)
def verify(datasets: tuple[str, ...]) -> None:
    """Read every stored byte of DATASETS (default: all registered) and compare it with its checksum.

    What is damaged is named and no longer counts as stored: the next run makes it anew. Exits with code 1 if anything
    is.
    """
    with sentences():
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill.commits import DamagedError, ReplacedError

        workspace = workspace_from_environment()
        pipeline, catalog = build_pipeline(workspace), workspace.catalog()
        names = [catalog.dataset(name).name for name in datasets] or [spec.name for spec in catalog.datasets]
        keys = list(_stored_keys(pipeline, names))
        num_checked, damaged = 0, list[DamagedError]()
        with progress_bar("verify", "partition") as progress:
            for done, (step, key) in enumerate(keys):
                progress(done, len(keys))
                store = pipeline.step(step).store(workspace.data_root)
                try:
                    num_checked += store.verify(key)
                except ReplacedError:  # by a run that is at work: what it wrote is new
                    continue
                except DamagedError as error:
                    damaged.append(error)
                    store.withdraw(key, error.damage)
    for line in map(str, damaged):
        click.echo(line)
    click.echo(f"{num_checked} partitions are what was written, {len(damaged)} are damaged")
    if damaged:
        click.echo("The next run makes them anew; `lvdd stale` says what else that concerns.")
        sys.exit(1)


def _stored_keys(pipeline: "Pipeline", datasets: Sequence[str]) -> "Iterator[tuple[str, str]]":
    """Step and key of all partitions that there may be."""
    from lvdd_assets.distill.catalog import CatalogError
    from lvdd_assets.distill.listing import class_names
    from lvdd_assets.steps import keys_of

    catalog = pipeline.workspace.catalog()
    for name in dict.fromkeys(datasets):
        spec = catalog.dataset(name)
        try:
            classes = class_names(spec)
        except CatalogError:  # its videos are not here; so is nothing that was made of them, or it is left alone
            continue
        for step in pipeline.steps:
            for key in keys_of(spec, classes if step.by == "class" else ("",)):
                yield step.name, key


def _registered(pipeline: "Pipeline") -> "Callable[[str], bool]":
    """Whether the registry has a partition; of a dataset whose videos are not here, it may have any."""
    from lvdd_assets.distill.catalog import CatalogError
    from lvdd_assets.distill.listing import class_names
    from lvdd_assets.partitions import split_key

    specs = pipeline.workspace.catalog().datasets
    datasets, classes = {spec.name for spec in specs}, dict[str, tuple[str, ...]]()
    for spec in specs:
        with suppress(CatalogError):
            classes[spec.name] = class_names(spec)

    def is_registered(key: str) -> bool:
        dataset, class_name = split_key(key)
        known = classes.get(dataset)
        return dataset in datasets and (not class_name or not known or class_name in known)

    return is_registered


@click.command()
@click.option("--delete", is_flag=True, help="Remove them. Without it they are only listed.")
@click.option(
    "--unregistered", is_flag=True, help="Also what is stored of classes and datasets that the registry no longer has."
)
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="Hours without change after which what another machine has begun counts as given up.",
)
def gc(delete: bool, unregistered: bool, hours: float) -> None:
    """List what dead runs have left in the data root, and with --delete remove it.

    What is stored, and what a run is writing right now, is never touched.
    """
    with sentences():
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill.budget import format_bytes
        from lvdd_assets.distill.leftovers import find_leftovers

        workspace = workspace_from_environment()
        pipeline = build_pipeline(workspace)
        is_registered = _registered(pipeline)
        found = [
            one
            for step in pipeline.steps
            for one in find_leftovers(step.store(workspace.data_root), is_registered, older_than=3600 * hours)
            if one.kind == "unfinished" or unregistered
        ]
        table = [[format_bytes(one.num_bytes), short(one.place), one.why] for one in found]
        for line in aligned(table) if table else []:
            click.echo(line)
        total = format_bytes(sum(one.num_bytes for one in found))
        count = f"{len(found)} leftover{'s' if len(found) > 1 else ''}"
        if not found:
            click.echo("nothing is left over")
        elif not delete:
            click.echo(f"{count}, {total}; `lvdd gc --delete` removes them")
        else:
            for one in found:
                one.remove()
            click.echo(f"{count} removed, {total} freed")

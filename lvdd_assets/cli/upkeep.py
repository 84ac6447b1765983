"""`lvdd stale`, `lvdd verify`, `lvdd gc`: what would run and why, whether what is stored is whole, what can go."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdd_assets.cli.completion import complete_datasets
from lvdd_assets.cli.run_config import config_option, read_config
from lvdd_assets.cli.terminal import aligned, json_option, print_json, progress_bar, sentences, short
from lvdd_assets.resources import workspace_from_environment

if TYPE_CHECKING:
    from lvdd_assets.distill.commits import DamagedError
    from lvdd_assets.distill.leftovers import Leftover
    from lvdd_assets.incremental import Pipeline
    from lvdd_assets.staleness import Planned


@click.command()
@click.argument("datasets", nargs=-1, shell_complete=complete_datasets)
@config_option
@click.option("--each", is_flag=True, help="A line for each partition, the fresh ones too.")
@json_option
@click.option("--check", is_flag=True, help="Exit with code 1 if anything is stale.")
def stale(datasets: tuple[str, ...], config_file: Path | None, each: bool, as_json: bool, check: bool) -> None:
    """Say what a run of the whole chain would compute on DATASETS (default: all registered), and why.

    Nothing is computed or decoded; files that changed are read once for their hash.

    \b
      lvdd stale
      lvdd stale demo --each
      lvdd stale --check && echo "nothing to do"
    """
    with sentences():
        from lvdd_assets.definitions import build_pipeline

        workspace = workspace_from_environment()
        pipeline, catalog = build_pipeline(workspace), workspace.catalog()
        config, _ = read_config(config_file)
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
        print_json(rows)
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


@click.command()
@click.argument("datasets", nargs=-1, shell_complete=complete_datasets)
@json_option
def verify(datasets: tuple[str, ...], as_json: bool) -> None:
    """Read every stored byte of DATASETS (default: all registered) and compare it with its checksum.

    What is damaged is named and no longer counts as stored: the next run makes it anew. Exits with code 1 if anything
    is.

    \b
      lvdd verify
      lvdd verify demo --json
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
    if as_json:
        rows = [{"step": one.asset, "partition": one.key, "damage": one.damage} for one in damaged]
        print_json({"num_whole": num_checked, "damaged": rows})
    else:
        _say_damage(num_checked, damaged)
    if damaged:
        sys.exit(1)


def _say_damage(num_checked: int, damaged: "Sequence[DamagedError]") -> None:
    for line in map(str, damaged):
        click.echo(line)
    click.echo(f"{num_checked} partitions are what was written, {len(damaged)} are damaged")
    if damaged:
        click.echo("The next run makes them anew; `lvdd stale` says what else that concerns.")


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
@json_option
def gc(delete: bool, unregistered: bool, hours: float, as_json: bool) -> None:
    """List what dead runs have left in the data root, and with --delete remove it.

    What is stored, and what a run is writing right now, is never touched.

    \b
      lvdd gc
      lvdd gc --delete
      lvdd gc --unregistered --json
    """
    with sentences():
        from lvdd_assets.definitions import build_pipeline
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
        if not as_json:
            _say_found(found)
        if delete:
            for one in found:
                one.remove()
        if as_json:
            rows = [
                {"kind": one.kind, "place": str(one.place), "bytes": one.num_bytes, "why": one.why} for one in found
            ]
            print_json({"deleted": delete, "num_bytes": sum(one.num_bytes for one in found), "leftovers": rows})
        else:
            _say_total(found, delete)


def _say_found(found: "Sequence[Leftover]") -> None:
    from lvdd_assets.distill.budget import format_bytes

    table = [[format_bytes(one.num_bytes), short(one.place), one.why] for one in found]
    for line in aligned(table) if table else []:
        click.echo(line)


def _say_total(found: "Sequence[Leftover]", deleted: bool) -> None:
    from lvdd_assets.distill.budget import format_bytes

    total = format_bytes(sum(one.num_bytes for one in found))
    count = f"{len(found)} leftover{'s' if len(found) > 1 else ''}"
    if not found:
        click.echo("nothing is left over")
    elif deleted:
        click.echo(f"{count} removed, {total} freed")
    else:
        click.echo(f"{count}, {total}; `lvdd gc --delete` removes them")

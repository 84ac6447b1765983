"""`lvdd datasets`, `lvdd fetch` and `lvdd train-vae`: what there is to distil, where to get it, and with which
autoencoder."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from lvdd_assets.cli.completion import complete_datasets, complete_sources
from lvdd_assets.cli.terminal import aligned, json_option, print_json, progress_bar, sentences, short, step_errors
from lvdd_assets.resources import workspace_from_environment

if TYPE_CHECKING:
    from lvdd_assets.distill.adaptation import StoredClips
    from lvdd_assets.distill.catalog import DatasetSpec
    from lvdd_assets.incremental import Pipeline


@click.command()
@json_option
def datasets(as_json: bool) -> None:
    """List the registered datasets: clips found, published, missing, and left out when they were decoded.

    Files are listed, not opened. FOUND and PUBLISHED are train + test videos; EXCLUDED counts the classes that
    raw_clips has stored so far.

    \b
      lvdd datasets
      lvdd datasets --json | jq '.[].name'
    """
    with sentences():
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
            print_json(rows)
            return
        click.echo(_dataset_table(rows, catalog.default))
        for problem in problems:
            click.echo(f"\n{problem}", err=True)


@click.command()
@click.argument("dataset", shell_complete=complete_sources)
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

    \b
      lvdd fetch hmdb51
      lvdd fetch ucf101 --to /big/disk/ucf101 --yes
      lvdd fetch madebyollin/taesd
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
    with sentences():
        for archive in source.archives:
            with progress_bar(archive.file_name, "B") as progress:
                path = download(archive, folder, progress=progress)
            given = "" if archive.known_hash else "; the publisher gives no checksum, this one's is kept beside it"
            click.echo(f"{short(path)}  {path.stat().st_size} B{given}")
    click.echo("\nWhat remains:")
    for number, step in enumerate(source.steps, start=1):
        click.echo(f"  {number}. {step.format(folder=folder)}")
    click.echo("\nThen add to data/datasets.yaml, below `datasets:`\n")
    click.echo(source.registry_entry(os.path.relpath(folder, "data")))


def _fetch_autoencoder(name: str) -> None:
    from lvdd_assets.distill.vae_folders import download, find_autoencoder

    with sentences():
        folder = download(name)
        found = find_autoencoder(str(folder))
        click.echo(f"{folder}  {found.class_name}; its terms: https://huggingface.co/{name.partition('@')[0]}")
        click.echo(f"\nTo use it, give a dataset in the registry:\n\n    vae: {name}")


@click.command("train-vae")
@click.argument("dataset", default="default", shell_complete=complete_datasets)
@click.option("--from", "name", default="embedded-2d", show_default=True, help="Autoencoder to start from.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long to train; 5 by default.")
@click.option("--steps", type=click.IntRange(min=1), help="Number of updates instead; the same number repeats exactly.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=5e-4,
    show_default=True,
    help="The largest of the schedule.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order of clips.")
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

    \b
      lvdd train-vae my_videos
      lvdd train-vae my_videos --from embedded-3d --minutes 60
    """
    if minutes is not None and steps is not None:
        raise click.UsageError("--minutes and --steps exclude each other: give one")
    with sentences():
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill.adaptation import adapt
        from lvdd_assets.distill.devices import find_device
        from lvdd_assets.distill.vae_training import Schedule

        workspace = workspace_from_environment()
        spec = workspace.catalog().dataset(dataset)
        clips = _train_clips(build_pipeline(workspace), spec)
        if out is None:
            if not isinstance(workspace.data_root, Path):
                raise ValueError("the data root is no folder: say with --out where the weights are to go")
            out = workspace.data_root / "autoencoders" / spec.name
        schedule = Schedule(steps, None if steps else minutes or 5.0, learning_rate)
        with tqdm(total=100, unit="%", desc="train", disable=not sys.stderr.isatty(), leave=False) as bar:

            def progress(_step: int, done: float) -> None:
                bar.update(int(100 * done) - bar.n)

            device = find_device(workspace.device)
            result = adapt(name, clips, out, schedule, base=spec.base, seed=seed, device=device, progress=progress)
    click.echo(
        f"{short(out)}  {result.num_steps} updates on {result.num_train} train clips of {spec.name}\n"
        f"PSNR on {result.num_held_out} train clips kept apart: {result.psnr_before:.2f} dB with {name}, "
        f"{result.psnr_after:.2f} dB adapted\n\n"
        f"To use it, give {spec.name} in {short(workspace.registry)}:\n\n"
        f"    vae: {os.path.relpath(out, spec.base)}"
    )


def _train_clips(pipeline: "Pipeline", spec: "DatasetSpec") -> "StoredClips":
    """All train clips of a dataset, class by class; made first where they are not fresh."""
    from lvdd_assets.distill.adaptation import StoredClips
    from lvdd_assets.distill.listing import class_names
    from lvdd_assets.distill.stores import ZarrStore
    from lvdd_assets.partitions import class_key

    keys = [class_key(spec.name, name) for name in class_names(spec)]
    with step_errors():
        pipeline.bring_up_to_date("raw_clips", keys, {})
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
    return "\n".join([*aligned(table), "* what `default` stands for"])

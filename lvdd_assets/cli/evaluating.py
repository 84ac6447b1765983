"""`lvdd evaluate`, `lvdd tables`: what a release is worth, and the paper's tables beside figures measured here."""

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import click

from lvdd_assets.cli.completion import complete_datasets
from lvdd_assets.cli.terminal import json_option, print_json, progress_text, sentences, short, step_errors
from lvdd_assets.distill.protocols import AUGMENTATIONS, NETWORKS
from lvdd_assets.distill.tables import PAPER_TABLES
from lvdd_assets.resources import workspace_from_environment

RIVALS = ("video", "paper", "tight", "codec", "random", "herding", "k-center", "k-means")
"""Known before the comparison is imported, which takes seconds; a test compares them with its own."""

_protocol_option = click.option(
    "--protocol",
    type=click.Choice(["quick", "literature"]),
    default="quick",
    show_default=True,
    help="How networks are trained: 12 epochs of one seed, or 500 of five as in the literature.",
)
_seeds_option = click.option(
    "--seeds", type=click.IntRange(min=1), help="Networks to train on each set; by default the protocol's."
)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--dataset",
    shell_complete=complete_datasets,
    help="Whose train and test clips it is compared on; by default the one that it names.",
)
@_protocol_option
@click.option("--network", type=click.Choice(NETWORKS), default="convnet3d", show_default=True, help="What is trained.")
@_seeds_option
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the full data; every set gets as many updates.")
@click.option("--augment", type=click.Choice(AUGMENTATIONS), multiple=True, help="May be given again.")
@click.option(
    "--rival",
    "rivals",
    type=click.Choice(RIVALS),
    multiple=True,
    default=("video",),
    show_default=True,
    help="What it is compared with in as many bytes; may be given again.",
)
@click.option(
    "--at",
    "curve",
    multiple=True,
    help="A size, e.g. 200kB, for the curve of accuracy, of every recipe and of the rival video; may be given again.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder; default FILE with .report.")
@json_option
def evaluate(
    file: Path,
    dataset: str | None,
    protocol: str,
    network: str,
    seeds: int | None,
    epochs: int | None,
    augment: tuple[str, ...],
    rivals: tuple[str, ...],
    curve: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what a release FILE is worth: train on it, on all data and on its rivals, and test on real clips.

    Writes report.html, scores.csv, classes.csv, evaluation.json and, with --at, the curve as CSV and PNG. What was
    trained before is not trained again: an evaluation that was cut goes on.

    \b
      lvdd evaluate demo.zarr.zip
      lvdd evaluate demo.zarr.zip --rival video --rival random --seeds 3
      lvdd evaluate demo.zarr.zip --at 60kB --at 200kB --at 800kB
    """
    with sentences():
        from lvdd_assets.assets.eval_report import EvalReportConfig
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill import report
        from lvdd_assets.distill.release import load_release
        from lvdd_assets.distill.stored_scores import evaluation_document, write_evaluation
        from lvdd_assets.distill.vae_folders import own_classes
        from lvdd_assets.evaluating import bring_site_up, evaluate_release

        workspace = workspace_from_environment()
        spec = workspace.catalog().dataset(dataset or load_release(file).name)
        config = EvalReportConfig(
            protocol=protocol,  # type: ignore[arg-type]
            network=network,
            seeds=list(range(seeds)) if seeds else None,
            epochs=epochs,
            augmentation=list(augment) or None,
            rivals=list(rivals),
            curve=list(curve),
        ).settings()
        with step_errors():
            site = bring_site_up(build_pipeline(workspace), spec, config)
        release = load_release(file, trusted_classes=own_classes(spec.vae))
        data = evaluate_release(site, release, config, allowed=file.stat().st_size, own=False)
        folder = out or file.with_name(f"{file.name}.report")
        document = evaluation_document(data, release)
        written = (*report.write_report(folder, data), write_evaluation(folder, document))
    if as_json:
        print_json({**document, "files": [str(path) for path in written]})
        return
    click.echo(report.summary_table(data) + "\n")
    for path in written:
        click.echo(short(path))


def _read_ipc(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Fraction | None:
    if value is None:
        return None
    try:
        ipc = Fraction(value)
    except (ValueError, ZeroDivisionError):
        ipc = Fraction(0)
    if ipc <= 0:
        raise click.BadParameter(f"got {value!r}; expected a number above 0, e.g. 1 or 1/100")
    return ipc


@click.command()
@click.argument("datasets", nargs=-1, shell_complete=complete_datasets)
@click.option(
    "--only",
    "names",
    type=click.Choice(PAPER_TABLES),
    multiple=True,
    help="May be given again; by default all.",
)
@click.option(
    "--ipc",
    callback=_read_ipc,
    help="One budget for all tables, in instances per class, e.g. 1/100, instead of the paper's.",
)
@_protocol_option
@_seeds_option
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the largest set of a comparison.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write them to as well (Markdown)."
)
@json_option
def tables(
    datasets: tuple[str, ...],
    names: tuple[str, ...],
    ipc: Fraction | None,
    protocol: str,
    seeds: int | None,
    epochs: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the paper's tables with figures measured on DATASETS (of the registry) beside the published ones.

    The chain must have been run on them. What was trained before is not trained again. All tables take hours on a CPU;
    storage, contrast, memory and runtime train nothing.

    \b
      lvdd tables demo --only storage
      lvdd tables miniucf hmdb51 --protocol literature --out tables.md
    """
    with sentences():
        from lvdd_assets.assets.eval_report import EvalReportConfig
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.jobs import measured_tables

        workspace = workspace_from_environment()
        config = EvalReportConfig(
            protocol=protocol,  # type: ignore[arg-type]
            seeds=list(range(seeds)) if seeds else None,
            epochs=epochs,
            rivals=["tight", "paper", "codec"],
        ).settings()
        pipeline, catalog = build_pipeline(workspace), workspace.catalog()
        specs = [catalog.dataset(name) for name in datasets or ("default",)]
        texts, documents = [], []
        with progress_text() as say, step_errors():
            for name, table in measured_tables(pipeline, specs, config, names, ipc=ipc, say=say):
                say(name)
                texts.append(table.to_markdown())
                documents.append({"name": name, **asdict(table)})
                if not as_json:
                    click.echo(texts[-1])
        if out:
            out.write_text("\n".join(texts), encoding="utf-8")
    if as_json:
        print_json({"tables": documents, "file": None if out is None else str(out)})
    elif out:
        click.echo(short(out))

"""`lvdd inspect`, `lvdd evaluate`, `lvdd tables`: what a release holds, what it is worth, the paper's tables."""

from pathlib import Path

import click

from lvdd_assets.cli.terminal import progress_text, sentences, short, step_errors
from lvdd_assets.resources import workspace_from_environment


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def inspect(file: Path) -> None:
    """Say what is in a release FILE, byte by byte, and what it was made from."""
    with sentences():
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


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dataset", help="Whose train and test clips it is compared on; by default the one that it names.")
@click.option("--protocol", type=click.Choice(["quick", "literature"]), default="quick", show_default=True)
@click.option("--network", default="convnet3d", show_default=True, help="convnet3d, cnn-gru, cnn-lstm, c3d, r2plus1d.")
@click.option("--seeds", type=click.IntRange(min=1), help="Networks to train on each set; by default the protocol's.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the full data; every set gets as many updates.")
@click.option("--augment", multiple=True, help="flip, crop or shift; may be given again.")
@click.option(
    "--rival",
    "rivals",
    multiple=True,
    default=("video",),
    show_default=True,
    help="What it is compared with in as many bytes: video, paper, tight, codec, random, herding, k-center, k-means; "
    "may be given again.",
)
@click.option("--at", "curve", multiple=True, help="A size, e.g. 200kB, for the curve of accuracy; may be given again.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder; default FILE with .report.")
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
) -> None:
    """Say what a release FILE is worth: train on it, on all data and on its rivals, and test on real clips.

    Writes report.html and scores.csv. What was trained before is not trained again: an evaluation that was cut goes on.
    """
    with sentences():
        from lvdd_assets.assets.eval_report import EvalReportConfig
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill import report
        from lvdd_assets.distill.release import load_release
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
        written = report.write_report(folder, data)
    click.echo(report.summary_table(data) + "\n")
    for path in written:
        click.echo(short(path))


@click.command()
@click.argument("datasets", nargs=-1)
@click.option(
    "--only",
    "names",
    multiple=True,
    help="methods, cross-architecture, rank-ratio, svd, storage, sampling, contrast, rate-accuracy, memory or runtime; "
    "may be given again. By default all.",
)
@click.option("--ipc", help="One budget for all tables, in instances per class, e.g. 1/100, instead of the paper's.")
@click.option("--protocol", type=click.Choice(["quick", "literature"]), default="quick", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), help="Networks to train on each set; by default the protocol's.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the largest set of a comparison.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write them to as well (Markdown)."
)
def tables(
    datasets: tuple[str, ...],
    names: tuple[str, ...],
    ipc: str | None,
    protocol: str,
    seeds: int | None,
    epochs: int | None,
    out: Path | None,
) -> None:
    """Print the paper's tables with figures measured on DATASETS (of the registry) beside the published ones.

    The chain must have been run on them. What was trained before is not trained again.
    """
    with sentences():
        from fractions import Fraction

        from lvdd_assets.assets.eval_report import EvalReportConfig
        from lvdd_assets.definitions import build_pipeline
        from lvdd_assets.distill.paper_tables import TABLES, run_tables
        from lvdd_assets.evaluating import bring_site_up, make_bench

        workspace = workspace_from_environment()
        config = EvalReportConfig(
            protocol=protocol,  # type: ignore[arg-type]
            seeds=list(range(seeds)) if seeds else None,
            epochs=epochs,
            rivals=["tight", "paper", "codec"],
        ).settings()
        pipeline, catalog = build_pipeline(workspace), workspace.catalog()
        benches = []
        with progress_text() as say:
            for name in datasets or ("default",):
                with step_errors():
                    site = bring_site_up(pipeline, catalog.dataset(name), config)
                benches.append(make_bench(site, config, say))
            budget = Fraction(ipc) if ipc else None
            texts = []
            for name, table in run_tables(names or TABLES, benches, ipc=budget):
                say(name)
                texts.append(table.to_markdown())
                click.echo(texts[-1])
        if out:
            out.write_text("\n".join(texts), encoding="utf-8")
            click.echo(short(out))

"""`lvdd inspect`, `lvdd compare`, `lvdd export`: what files of releases hold, in what they differ, their clips in other
tools' forms. The base install has all that these need, but for the picture."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdd_assets.cli.terminal import aligned, json_option, print_json, printable, progress_bar, sentences, short

if TYPE_CHECKING:
    from lvdd_assets.distill.release import Release
    from lvdd_assets.distill.release_facts import ReleaseFacts
    from lvdd_assets.distill.stored_scores import StoredScores

_FORMATS = ("webdataset", "folder", "hf")
_SUFFIX = ".zarr.zip"
_MOST_NAMED = 6
_MARK = "≠"


class ReleaseFile(click.Path):
    """A file that is there, or a URL."""

    name = "release"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The words as given; a path is looked for."""
        return value if "://" in value else super().convert(value, param, ctx)


_trust_option = click.option(
    "--trust",
    "trusted_classes",
    multiple=True,
    metavar="MODULE:CLASS",
    help="An autoencoder's class whose code the file may have run to decode; may be given again.",
)


@click.command()
@click.argument("file", type=ReleaseFile())
@click.option(
    "--sheet", type=click.Path(dir_okay=False, path_type=Path), help="PNG to write clips of every class to, as decoded."
)
@click.option(
    "--clips",
    "num_clips",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Clips of each class on the sheet.",
)
@_trust_option
@json_option
def inspect(file: str, sheet: Path | None, num_clips: int, trusted_classes: tuple[str, ...], as_json: bool) -> None:
    """Say what is in a release FILE (a path or URL), byte by byte, and what it was made from.

    Nothing is decoded but for --sheet, and no code of the file is run.

    \b
      lvdd inspect demo.zarr.zip
      lvdd inspect https://example.org/demo.zarr.zip --sheet demo.png
      lvdd inspect demo.zarr.zip --json | jq .parts
    """
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise click.BadParameter(f"{sheet} is no name of a PNG: give one that ends in .png", param_hint="--sheet")
    with sentences():
        from lvdd_assets.distill.release import load_release
        from lvdd_assets.distill.release_facts import gather_facts

        release = load_release(file, trusted_classes=trusted_classes)
        facts = gather_facts(release, file)
        if sheet is not None:
            from lvdd_assets.distill.release_sheet import release_sheet

            with progress_bar("decode", "class") as progress:
                picture = release_sheet(release, num_clips=num_clips, progress=progress)
            sheet.parent.mkdir(parents=True, exist_ok=True)
            sheet.write_bytes(picture)
    if as_json:
        print_json({**facts.to_json(), "sheet": None if sheet is None else str(sheet)})
        return
    click.echo(_inspection(facts))
    if sheet is not None:
        click.echo(f"\nsheet: {short(sheet)}")


def _inspection(facts: "ReleaseFacts") -> str:
    """All of it as text. What a stranger wrote steers no terminal."""
    table = [["PART", "CLASS", "CLIPS", "BYTES", "SHARE"]]

    def add(part: str, name: str, num_clips: str, size: int) -> None:
        table.append([part, printable(name), num_clips, str(size), f"{size / facts.num_bytes:.1%}"])

    for part, size in facts.parts.items():
        if part == "cores":
            for one in facts.classes:
                add(part, one.name, str(one.num_clips), one.num_bytes)
        else:
            add(part, "", "", size)
    of_budget = "" if facts.allowed_bytes is None else f" of {facts.allowed_bytes} B allowed"
    lines = [
        f"{printable(facts.file)}: {printable(facts.dataset)}, {facts.num_clips} clips in {facts.num_classes} classes, "
        f"{_clip(facts)}, {facts.num_bytes} B{of_budget}",
        f"coded as {', '.join(facts.forms)}; {_autoencoder(facts)}; {facts.bytes_per_clip:.0f} B a clip",
        f"SHA-256 {facts.sha256}",
        "",
        *aligned(table),
    ]
    plain = {name: value for name, value in facts.provenance.items() if not isinstance(value, dict)}
    nested = {name: value for name, value in facts.provenance.items() if isinstance(value, dict)}
    lines += ["", *(f"{printable(name)}: {printable(value)}" for name, value in plain.items())]
    for name, values in nested.items():
        lines += ["", f"{printable(name)}:", *(f"  {printable(key)}: {printable(one)}" for key, one in values.items())]
    return "\n".join(lines)


def _clip(facts: "ReleaseFacts") -> str:
    clip = facts.clip
    return f"{clip['frames']} frames of {clip['size']}×{clip['size']}"


def _autoencoder(facts: "ReleaseFacts") -> str:
    if facts.decoder is None:
        return "no decoder"
    bits = "" if facts.weight_bits is None else f", weights of {facts.weight_bits} bits"
    return f"autoencoder {printable(facts.autoencoder or facts.decoder)}{bits}"


@click.command()
@click.argument("files", type=ReleaseFile(), nargs=-1, metavar="FILE FILE...")
@json_option
def compare(files: tuple[str, ...], as_json: bool) -> None:
    """Put release FILES (paths or URLs) side by side: sizes, bytes by part, how they were made, accuracy if known.

    Lines that differ bear a ≠. Accuracy is shown where this very file was evaluated: by `lvdd evaluate`, whose folder
    lies beside it, or by the chain of this project. Nothing is decoded or trained.

    \b
      lvdd compare demo.zarr.zip small.zarr.zip
      lvdd compare old.zarr.zip new.zarr.zip --json
    """
    if len(files) < 2:
        raise click.UsageError(f"got {len(files)} file{'' if len(files) == 1 else 's'}: give two or more to compare")
    with sentences():
        from lvdd_assets.distill.release import load_release
        from lvdd_assets.distill.release_facts import differences, gather_facts

        releases = [load_release(file) for file in files]
        facts = [gather_facts(release, file) for release, file in zip(releases, files, strict=True)]
        scores = [_scores(release) for release in releases]
        found = differences(facts)
    if as_json:
        rows = [
            {**one.to_json(), "scores": None if score is None else score.to_json()}
            for one, score in zip(facts, scores, strict=True)
        ]
        print_json({"releases": rows, "differences": found})
        return
    click.echo("\n".join(_comparison(facts, scores)))
    said = _differences(found)
    click.echo("\nThe provenance " + ("is the same" if not said else "differs in:\n" + "\n".join(said)))


def _scores(release: "Release") -> "StoredScores | None":
    """What is known of a file's worth: `lvdd evaluate` first, for it says how it was asked."""
    from lvdd_assets.distill.stored_scores import scores_of_chain, scores_of_evaluation

    path = release.path
    found = scores_of_evaluation(path.with_name(f"{path.name}.report"), release)
    if found is not None:
        return found
    with suppress(ModuleNotFoundError, ValueError, OSError):  # the base install has no chain; nor has any other folder
        from lvdd_assets.distill.file_stores import FileStore
        from lvdd_assets.resources import workspace_from_environment

        commit = FileStore(workspace_from_environment().data_root, "eval_report").commit_of(release.name)
        if commit is not None:
            return scores_of_chain(commit.inputs, commit.metrics, release)
    return None


def _comparison(facts: "Sequence[ReleaseFacts]", scores: "Sequence[StoredScores | None]") -> list[str]:
    """A line for each figure, a column for each file."""
    from lvdd_assets.distill.budget import PARTS, format_bytes

    def size(num_bytes: float | None) -> str:
        return "–" if num_bytes is None else format_bytes(num_bytes)

    rows = {
        "dataset": [one.dataset for one in facts],
        "source": [one.source or "–" for one in facts],
        "recipe": [one.recipe or "–" for one in facts],
        "coded as": [", ".join(one.forms) for one in facts],
        "classes": [str(one.num_classes) for one in facts],
        "clips": [str(one.num_clips) for one in facts],
        "clip": [_clip(one) for one in facts],
        "soft labels": ["yes" if one.has_soft_labels else "no" for one in facts],
        "bytes": [str(one.num_bytes) for one in facts],
        "budget": [size(one.allowed_bytes) for one in facts],
        **{
            f"  {part}": [size(one.parts.get(part)) for one in facts]
            for part in PARTS
            if any(part in one.parts for one in facts)
        },
        "bytes a clip": [f"{one.bytes_per_clip:.0f}" for one in facts],
        "autoencoder": [one.autoencoder or one.decoder or "–" for one in facts],
        "weights": ["–" if one.weight_bits is None else f"{one.weight_bits} bits" for one in facts],
        "top-1": [_accuracy(score) for score in scores],
        "  trained": [_training(score) for score in scores],
    }
    table = [["", "", *_labels([one.file for one in facts])]]
    for name, values in rows.items():
        mark = _MARK if len(set(values)) > 1 else ""
        table.append([mark, name, *map(printable, values)])
    return aligned(table)


def _accuracy(score: "StoredScores | None") -> str:
    if score is None:
        return "–"
    spread = f" ± {100 * score.std_top1:.1f}" if len(score.top1) > 1 else ""
    return f"{100 * score.mean_top1:.1f}{spread} %"


def _training(score: "StoredScores | None") -> str:
    if score is None:
        return "–"
    seeds = f"{len(score.top1)} seed{'' if len(score.top1) == 1 else 's'}"
    return f"{seeds}, {score.num_updates} updates, {score.num_test_clips} test clips"


def _labels(files: Sequence[str]) -> list[str]:
    """Short names of files; as they were given where two would be alike."""
    names = [file.rsplit("/", 1)[-1].removesuffix(_SUFFIX) for file in files]
    return [printable(name if names.count(name) == 1 else file) for name, file in zip(names, files, strict=True)]


def _differences(found: dict[str, tuple[Any, ...]]) -> list[str]:
    """Lines on what differs; the fingerprints of inputs, one a class, are counted by step."""
    table, inputs = list[list[str]](), dict[str, list[str]]()
    for name, values in found.items():
        if name.startswith("inputs."):
            step, _, key = name.removeprefix("inputs.").partition(" ")
            inputs.setdefault(step, []).append(key)
        else:
            table.append([f"  {printable(name)}", *("–" if value is None else printable(value) for value in values)])
    lines = aligned(table) if table else []
    for step, keys in inputs.items():
        more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
        lines.append(printable(f"  {step}: {', '.join(keys[:_MOST_NAMED])}{more}"))
    return lines


@click.command()
@click.argument("file", type=ReleaseFile())
@click.option("--to", type=click.Choice(_FORMATS), required=True, help="The form.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that is made; default NAME-FORM here. One that is not empty is refused.",
)
@_trust_option
@json_option
def export(file: str, to: str, out: Path | None, trusted_classes: tuple[str, ...], as_json: bool) -> None:
    """Write the clips of a release FILE (a path or URL) in another tool's form, with labels and a dataset card.

    \b
    webdataset  shards of .npy, .cls, .json: the pixels that the loader yields
    folder      CLASS/CLIP.mp4 and labels.csv, which any player reads
    hf          what datasets.load_dataset(FOLDER) reads, as mp4

    \b
      lvdd export demo.zarr.zip --to webdataset
      lvdd export s3://bucket/demo.zarr.zip --to hf --out demo-for-the-hub
    """
    with sentences():
        from lvdd_assets.distill.exporting import export as export_clips
        from lvdd_assets.distill.release import load_release

        if out is None:
            out = Path(f"{Path(file.rsplit('/', 1)[-1]).name.removesuffix(_SUFFIX)}-{to}")
        release = load_release(file, trusted_classes=trusted_classes)
        with progress_bar("export", "clip") as progress:
            done = export_clips(release, to, out, progress=progress)  # type: ignore[arg-type]
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "to": done.to,
                "num_clips": done.num_clips,
                "num_bytes": done.num_bytes,
                "files": list(done.files),
            }
        )
        return
    click.echo(
        f"{short(done.folder.resolve())}  {done.num_clips} clips, {done.num_bytes} B in {len(done.files)} files; its "
        "README.md says what they are"
    )

"""`lvdd distill`: a folder of videos in, a file and a report out; nothing to know, nothing to write."""

import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvdd_assets.cli.project import enter_project
from lvdd_assets.cli.running import run_chain
from lvdd_assets.cli.terminal import sentences, short
from lvdd_assets.distill.catalog import DEFAULT_MAX_LOST_SHARE

if TYPE_CHECKING:
    from lvdd_assets.distill.catalog import DatasetSpec

_LEAST_CLIPS = 2


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--budget", required=True, help="Size of the file, e.g. 500kB, 2MB, 1.5MiB.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file; default NAME.zarr.zip here.")
@click.option("--name", help="What the dataset is called; default the folder's name.")
@click.option(
    "--recipe",
    type=click.Choice(["auto", "tight", "codec", "paper"]),
    default="auto",
    show_default=True,
    help="How clips are kept; auto judges which keeps more.",
)
@click.option("--clip", default="8x64", show_default=True, help="Shape of clips: 8x64, 16x112 or another preset.")
@click.option(
    "--test-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Share of the videos that is kept apart to test on, where DIR has no folders train and test.",
)
@click.option(
    "--clips-per-class",
    metavar="N|all",
    help="Videos to choose from each class, or all; default 100 (recipe paper: 24), or all of a class that has fewer.",
)
@click.option(
    "--max-lost-share",
    type=click.FloatRange(0, 1),
    default=DEFAULT_MAX_LOST_SHARE,
    show_default=True,
    help="Share of a class's videos that may be unusable before the run stops.",
)
@click.option(
    "--report/--no-report", default=True, show_default=True, help="Train on the file and say what it is worth."
)
def distill(
    folder: Path,
    budget: str,
    out: Path | None,
    name: str | None,
    recipe: str,
    clip: str,
    test_fraction: float,
    clips_per_class: str | None,
    max_lost_share: float,
    report: bool,
) -> None:
    """Distil DIR, a folder of videos with one folder per class, into one file of at most --budget.

    DIR/CLASS/VIDEO, or DIR/train/CLASS/VIDEO and DIR/test/CLASS/VIDEO. What was computed before is not computed again:
    another budget recomputes no class, another video its own.

    \b
      lvdd distill ~/videos --budget 2MB
      lvdd distill ~/videos --budget 500kB --out small.zarr.zip --no-report
    """
    start = time.monotonic()
    with sentences():
        from lvdd_assets.distill.registration import register

        folder = folder.resolve()
        name = name or _name_of(folder)
        is_split = (folder / "train").is_dir() and (folder / "test").is_dir()
        entry: dict[str, Any] = {
            "root": str(folder),
            "layout": "folders",
            "split": "folders" if is_split else {"test_fraction": test_fraction},
            "clip": clip,
            "budget": {"bytes": budget},
            "recipe": recipe,
            "max_lost_share": max_lost_share,
        }
        if clips_per_class is not None:
            entry["clips_per_class"] = int(clips_per_class) if clips_per_class.isdecimal() else clips_per_class
        registry = enter_project(make=True)
        said = _found(_spec(name, entry), test_fraction)
        register(registry, name, entry)
        click.echo(said, err=True)
    release, page = run_chain(name, with_report=report)
    with sentences():
        out = out or Path(f"{name}.zarr.zip")
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release, out)
        click.echo(f"\nrelease  {short(out.resolve())}  ({out.stat().st_size} B)")
        if page is not None:
            shutil.copyfile(page, out.with_suffix(".report.html"))
            click.echo(f"report   {short(out.with_suffix('.report.html').resolve())}")
        click.echo(f"registry {short(registry.resolve())}, dataset {name}    ({time.monotonic() - start:.0f} s)")
        click.echo(
            "\nfrom lvdd_assets import load_release\n"
            f"dataset = load_release({str(out)!r}).dataset()  # a torch Dataset of (uint8 [T, 3, H, W], label)"
        )


def _spec(name: str, entry: dict[str, Any]) -> "DatasetSpec":
    """The dataset that an entry stands for, before anything is registered that cannot be used.

    Raises:
        ValueError: it is not understood.
    """
    from lvdd_assets.distill.registration import register
    from lvdd_assets.distill.registry import load_catalog

    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "datasets.yaml"
        try:
            register(trial, name, entry)
            return load_catalog(trial).dataset(name)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{trial}, ", "")) from None


def _name_of(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", folder.name).strip("_-")
    if not name or name == "default":
        raise ValueError(f"{folder.name!r} gives no name for the dataset: say one by --name")
    return name[:64]


def _found(spec: "DatasetSpec", test_fraction: float) -> str:
    """What was found, in a sentence.

    Raises:
        ValueError: it cannot be trained on.
    """
    from lvdd_assets.distill.listing import list_dataset

    listings, is_split = list_dataset(spec), spec.split.named is not None
    if len(listings) < 2:
        raise ValueError(
            f"{spec.root} has {len(listings)} class{'' if len(listings) == 1 else 'es'} ({', '.join(listings)}): a "
            "classifier needs two. Put videos into one folder per class"
        )
    train = {label: sum(not clip.is_test for clip in listing.clips) for label, listing in listings.items()}
    num_test = sum(clip.is_test for listing in listings.values() for clip in listing.clips)
    few = [label for label, count in train.items() if count < _LEAST_CLIPS]
    if few:
        raise ValueError(
            f"too few videos to train on in {', '.join(few[:5])}{' and others' if len(few) > 5 else ''}: at least "
            f"{_LEAST_CLIPS} a class. Add videos" + ("" if is_split else ", or lower --test-fraction")
        )
    how = "as in its folders train and test" if is_split else f"{test_fraction:.0%} of the videos kept apart to test on"
    return f"{spec.name}: {len(listings)} classes, {sum(train.values())} train and {num_test} test videos, {how}"

"""`lvdd`: the chain from the command line, for those who do not want to know Dagster. Commands are thin; the work is
in assets. docs/cli.md is the reference."""

import click

from lvdd_assets.cli.project import enter_project
from lvdd_assets.cli.sections import Entry, SectionedGroup

_SECTIONS = {
    "Make a file": {
        "distill": Entry("distilling", "A folder of videos to one file and a report on its worth."),
        "demo": Entry("running", "The same on a small dataset that is rendered here."),
        "fetch": Entry("datasets", "Download a published dataset or an autoencoder, or say how."),
        "datasets": Entry("datasets", "What is registered, and how many clips there are."),
        "plan": Entry("planning", "What a budget buys, before it is spent."),
        "train-vae": Entry("datasets", "Adapt an autoencoder to a dataset."),
        "run": Entry("running", "The whole chain on a registered dataset; only what is stale."),
    },
    "Look at it": {
        "inspect": Entry("releases", "What is in a file, byte by byte; its clips as a picture."),
        "compare": Entry("releases", "Files side by side, and in what they differ."),
        "evaluate": Entry("evaluating", "What a file is worth beside others of its size."),
        "tables": Entry("evaluating", "The paper's tables, measured here."),
        "ui": Entry("running", "Dagster's pages: lineage, runs, checks."),
    },
    "Use it elsewhere": {
        "export": Entry("releases", "Its clips as WebDataset, folder of videos or Hugging Face set."),
    },
    "Upkeep": {
        "stale": Entry("upkeep", "What a run would compute, and why."),
        "verify": Entry("upkeep", "Every stored byte against its checksum."),
        "gc": Entry("upkeep", "What dead runs left behind, and to remove it."),
    },
}

_EPILOG = """\b
Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted.
Figures as JSON: --json, where a command has it.
Completion: eval "$(_LVDD_COMPLETE=bash_source lvdd)"; or zsh_source,
fish_source. More in docs/cli.md.
"""


@click.group(
    cls=SectionedGroup,
    sections=_SECTIONS,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="lvdd-assets")
def main() -> None:
    """Distil a labelled video dataset into one small file that trains an action classifier.

    \b
      lvdd distill ~/videos --budget 2MB   one folder a class, to videos.zarr.zip
      lvdd inspect videos.zarr.zip         what is in it
      lvdd COMMAND --help                  each command with examples

    Commands work on the datasets of the project's folder (data/datasets.yaml), or of the folder `lvdd` that `lvdd
    distill` makes where there is no project.
    """
    enter_project()

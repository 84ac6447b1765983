"""`lvdd`: the chain from the command line, for those who do not want to know Dagster. Commands are thin; the work is
in assets."""

import click

from lvdd_assets.cli import datasets, distilling, planning, releases, running, upkeep
from lvdd_assets.cli.project import enter_project
from lvdd_assets.cli.terminal import InterruptibleGroup


@click.group(cls=InterruptibleGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvdd-assets")
def main() -> None:
    """Distil a labelled video dataset into one small file that trains an action classifier.

    `lvdd distill DIR --budget 2MB` does all of it. The other commands work on the datasets of the project's folder
    (`data/datasets.yaml`), or of the folder `lvdd` that `lvdd distill` makes where there is no project.
    """
    enter_project()


for _command in (
    distilling.distill,
    running.demo,
    running.run,
    running.ui,
    planning.plan,
    releases.inspect,
    releases.evaluate,
    releases.tables,
    upkeep.stale,
    upkeep.verify,
    upkeep.gc,
    datasets.datasets,
    datasets.fetch,
    datasets.train_vae,
):
    main.add_command(_command)

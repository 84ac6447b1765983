"""`lvdd`: the chain from the command line, for those who do not want to know Dagster. Commands are thin; the work is
in assets."""

import click

from lvdd_assets.cli import datasets, planning, releases, running, upkeep
from lvdd_assets.cli.terminal import InterruptibleGroup


@click.group(cls=InterruptibleGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvdd-assets")
def main() -> None:
    """Distil a labelled video dataset into one small file that trains an action classifier.

    Run it from the project's folder; `data/datasets.yaml` says which datasets there are.
    """


for _command in (
    running.demo,
    running.run,
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

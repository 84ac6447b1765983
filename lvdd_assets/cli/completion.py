"""What a shell completes: names of registered datasets, of published ones, of a release's forms; files by click itself.

Completion says nothing of what goes wrong: there is nobody to read it.
"""

import click
from click.shell_completion import CompletionItem

from lvdd_assets.cli.project import enter_project


def complete_datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Registered datasets whose names begin so, but for those that are already on the line."""
    try:
        enter_project()
        from lvdd_assets.resources import workspace_from_environment

        specs = workspace_from_environment().catalog().datasets
    except (ValueError, OSError, ImportError):
        return []
    given = ctx.params.get(param.name or "")
    there = given if isinstance(given, tuple) else ()
    return [
        CompletionItem(spec.name, help=f"{spec.layout}, {spec.root}")
        for spec in specs
        if spec.name.startswith(incomplete) and spec.name not in there
    ]


def complete_sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Published datasets that `lvdd fetch` knows."""
    from lvdd_assets.distill.sources import SOURCES

    return [CompletionItem(name, help=one.title) for name, one in SOURCES.items() if name.startswith(incomplete)]

"""A group of commands that lists them by what a person wants, and imports a command when it is asked for.

So `lvdd --help` takes no time, and commands that the base install can run do not wait for what it leaves out.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from lvdd_assets.cli.terminal import InterruptibleGroup
from lvdd_assets.distill.extras import MissingExtraError, needing

_EXTRA = "pipeline"


@dataclass(frozen=True)
class Entry:
    """A command before it is imported.

    Attributes:
        module: where it is, a module of `lvdd_assets.cli`; the function has the command's name.
        summary: what it does, a few words for the list.
    """

    module: str
    summary: str


Sections = Mapping[str, Mapping[str, Entry]]
"""Commands by name, by the title of their section."""


class SectionedGroup(InterruptibleGroup):
    """The group.

    Args:
        sections: the commands in the order in which they are listed.
        options: of `click.Group`.
    """

    def __init__(self, *, sections: Sections, **options: Any) -> None:
        super().__init__(**options)
        self.sections = sections
        self._entries = {name: entry for members in sections.values() for name, entry in members.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the sections."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command; one that says what is missing where its libraries are not installed."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        try:
            with needing(_EXTRA, f"lvdd {cmd_name}"):
                module = importlib.import_module(f"lvdd_assets.cli.{entry.module}")
        except MissingExtraError as error:
            return _refusing(cmd_name, entry.summary, str(error))
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        command.short_help = entry.summary
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        width = max(map(len, self._entries))
        for title, members in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in members.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command; a library that the base install leaves out is named in a sentence."""
        try:
            return super().invoke(ctx)
        except MissingExtraError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if _has_pipeline():  # a mistake of ours
                raise
            what = f"lvdd {ctx.invoked_subcommand}"
            raise click.ClickException(
                f"{what} needs {error.name}, which is not installed: pip install 'lvdd-assets[{_EXTRA}]'"
            ) from error


def _has_pipeline() -> bool:
    try:
        return importlib.util.find_spec("dagster") is not None
    except ImportError:  # a finder that somebody put there may raise where it has nothing
        return False


def _refusing(name: str, summary: str, message: str) -> click.Command:
    """A command in the place of one that cannot be imported."""

    def refuse(**_arguments: object) -> None:
        raise click.ClickException(message)

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        params=[words],
        callback=refuse,
        help=f"{summary}\n\nNot here: {message}",
        short_help=summary,
        context_settings={"ignore_unknown_options": True},
    )

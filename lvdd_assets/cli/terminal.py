"""What commands have in common on a terminal: errors in one sentence, bars, tables, short paths, JSON for scripts."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import click
from tqdm import tqdm

from lvdd_assets.distill.places import Place

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""


class InterruptibleGroup(click.Group):
    """Commands that leave after Ctrl-C or SIGTERM with a sentence instead of a traceback, their pools closed."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            sys.unraisablehook = _ask_again
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            leave_interrupted()


def _ask_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Sends this process a signal once more that arrived where Python lets nothing be raised, in a weak reference's
    callback or a destructor: it would be lost, and the run go on."""
    kind = unraisable.exc_type
    if issubclass(kind, Exception | SystemExit | GeneratorExit):
        sys.__unraisablehook__(unraisable)
        return
    # KeyboardInterrupt or Dagster's own. Not from here, which is inside that callback still.
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()


def leave_interrupted() -> NoReturn:
    """Ends the program as interrupted. Pools are closed in order, which may take seconds; a second Ctrl-C or SIGTERM
    does not wait for them."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _leave_at_once)
        signal.signal(signal.SIGTERM, _leave_at_once)
    click.echo("interrupted; what was finished is stored, the next run goes on from there", err=True)
    sys.exit(INTERRUPTED)


def _leave_at_once(_number: int, _frame: object) -> NoReturn:
    """Ends the program and all that it started, wherever they are: stores are whole at any moment."""
    with suppress(ModuleNotFoundError):  # the base install, which starts no processes
        import psutil

        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    os._exit(INTERRUPTED)


@contextmanager
def sentences() -> Iterator[None]:
    """Turns errors that a user can mend into one message and exit code 1."""
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough; click ends quietly
        raise
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def step_errors() -> Iterator[None]:
    """A step's own message for the user."""
    from lvdd_assets.steps import StepError

    try:
        yield
    except StepError as error:
        raise ValueError(str(error)) from error


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, total); a bar on a terminal, nothing elsewhere."""
    with tqdm(desc=title, unit=unit, unit_scale=unit == "B", disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield progress


@contextmanager
def progress_text() -> Iterator[Callable[[str], None]]:
    """A callback for what is done just now; one line with the time on a terminal, nothing elsewhere."""
    with tqdm(bar_format="{postfix} [{elapsed}]", disable=not sys.stderr.isatty(), leave=False) as bar:
        yield bar.set_postfix_str


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for scripts instead.")
"""Adds --json to a command, which gets `as_json`, and then prints by `print_json` and nothing else."""


def print_json(document: object) -> None:
    """The one thing that a command with --json writes to stdout."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def printable(value: object) -> str:
    """Text of a stranger, without signs that steer a terminal."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in str(value))


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def short(place: Place) -> str:
    """A path as seen from here, where it lies below; all of it, or its URL, elsewhere."""
    if not isinstance(place, Path):
        return str(place)
    return os.path.relpath(place) if place.is_relative_to(Path.cwd()) else str(place)

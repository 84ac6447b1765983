"""What the base install leaves out, and the sentence for who needs it.

`pip install lvdd-assets` brings what loading and exporting a release takes. The rest is imported where it is used,
within `needing`, and stands in extras of pyproject.toml.
"""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = ("pipeline", "int8", "s3")
"""The extras of pyproject.toml that somebody may have to install."""


class MissingExtraError(ImportError):
    """A library that the base install leaves out is not there. The message names the extra that brings it."""


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """The context in which libraries of an extra are imported.

    Args:
        extra: one of `EXTRAS`.
        what: what needs it, the sentence's subject, e.g. "the ledger as a table".

    Raises:
        MissingExtraError: an import within failed because something is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{what} needs {error.name}, which is not installed: pip install 'lvdd-assets[{extra}]'", name=error.name
        ) from error

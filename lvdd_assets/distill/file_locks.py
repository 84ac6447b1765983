"""One process at a time does a thing; the others wait, and then find it done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on a file, which is created empty and stays. The system frees it when its holder dies.

    Where the system has no such locks (Windows), nothing is held: two processes then may do the same work twice, which
    costs time alone, since what they write is replaced whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file frees it
        yield

"""What dead runs have left in a data root, and what is stored of classes that no registry names: found, and removed.

Nothing that a commit mark points to is ever taken for a leftover, nor what a process of this machine is still writing.
What another machine began, whose processes cannot be seen from here, is left until nothing of it has changed for a
while.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lvdd_assets.distill.commits import is_version, judge_mark, writer_lives
from lvdd_assets.distill.file_stores import VERSIONS, FileStore
from lvdd_assets.distill.places import (
    PARTIAL,
    Place,
    folders_in,
    last_change,
    read_bytes,
    remove_tree,
    sizes_below,
)
from lvdd_assets.distill.stores import ZarrStore

Kind = Literal["unfinished", "unregistered"]
_HEADER = "zarr.json"


@dataclass(frozen=True)
class Leftover:
    """A folder or file that nothing needs.

    Attributes:
        kind: unfinished: a version that no mark points to, or half a file; unregistered: a stored partition of a class
            that the registry no longer has.
        place: where it lies.
        also: what belongs to it and lies elsewhere.
        num_bytes: what removing it frees.
        why: how it is known that nobody is at work on it, or which partition it is.
    """

    kind: Kind
    place: Place
    num_bytes: int
    why: str
    also: tuple[Place, ...] = ()

    def remove(self) -> None:
        """Removes it; what has gone meanwhile is no error."""
        for place in (*self.also, self.place):
            if isinstance(place, Path) and place.is_dir():
                remove_tree(place)
            elif isinstance(place, Path):
                place.unlink(missing_ok=True)
            else:
                remove_tree(place)


def find_leftovers(
    store: ZarrStore | FileStore, is_registered: Callable[[str], bool], *, older_than: float, now: float | None = None
) -> Iterator[Leftover]:
    """Leftovers in one asset's store.

    Args:
        store: the store.
        is_registered: whether there is a partition of that key.
        older_than: seconds without any change after which what another machine began counts as given up.
        now: seconds since 1970; the clock's by default.
    """
    now = time.time() if now is None else now
    if isinstance(store, FileStore):
        yield from _in_files(store, is_registered, older_than, now)
    else:
        yield from _in_groups(store, is_registered, older_than, now)
    yield from _partial_files(store, older_than, now)


def _in_groups(
    store: ZarrStore, is_registered: Callable[[str], bool], older_than: float, now: float
) -> Iterator[Leftover]:
    """Of a zarr store: a partition is a group of the root (a dataset) or of a dataset's group (a class)."""
    for dataset in folders_in(store.path):
        names = folders_in(store.path / dataset)
        groups = [dataset, *(f"{dataset}/{name}" for name in names if not is_version(name))]
        for group in groups:
            folder = store.path / group
            key, kept = _key_of_group(folder), _version_of_group(folder)
            if kept and not is_registered(key):
                if group != dataset or all(map(is_version, names)):  # never classes together with their dataset's
                    yield _unregistered(store.asset, key, folder)
                continue
            yield from _unfinished(folder, functools.partial(_version_of_group, folder), older_than, now)


def _in_files(
    store: FileStore, is_registered: Callable[[str], bool], older_than: float, now: float
) -> Iterator[Leftover]:
    for key in folders_in(store.path(VERSIONS)):
        if not is_registered(key) and store.marked_version(key):
            yield _unregistered(store.asset, key, store.folder(key), *store.public_files(key))
            continue
        yield from _unfinished(store.folder(key), functools.partial(store.marked_version, key), older_than, now)


def _unregistered(asset: str, key: str, folder: Place, *also: Place) -> Leftover:
    return Leftover("unregistered", folder, _bytes(folder), f"{asset} {key} is in no registry", also)


def _unfinished(folder: Place, marked: Callable[[], str], older_than: float, now: float) -> Iterator[Leftover]:
    """Versions in a partition's folder that nobody writes and no mark points to.

    The mark is read after a writer was found dead: one that ended a moment ago may have committed just before.
    """
    for name in filter(is_version, folders_in(folder)):
        why = _why_dead(name, folder / name, older_than, now)
        if why and name != marked():
            yield Leftover("unfinished", folder / name, _bytes(folder / name), why)


def _partial_files(store: ZarrStore | FileStore, older_than: float, now: float) -> Iterator[Leftover]:
    """Files that were being written when their process died, outside versions, which go as a whole."""
    root = store.path() if isinstance(store, FileStore) else store.path
    if not isinstance(root, Path):
        return  # object stores have none
    for path in root.rglob(f"*{PARTIAL}"):
        within = any(is_version(part) for part in path.relative_to(root).parts)
        age = now - path.lstat().st_mtime
        if not within and age > min(older_than, _PARTIAL_SECONDS):
            yield Leftover("unfinished", path, path.lstat().st_size, f"half a file, unchanged for {_ago(age)}")


# Such a file is a commit mark or a report: it is written within a moment, or its process has died.
_PARTIAL_SECONDS = 3600.0


def _why_dead(version: str, folder: Place, older_than: float, now: float) -> str:
    """How it is known that nobody writes a version any more; empty where somebody may."""
    lives = writer_lives(version)
    if lives is False:
        return "its writer has ended"
    # Ages are what the clock says: one that was set back makes things look younger, never older.
    age = now - last_change(folder)
    if lives is None and age > older_than:
        return f"begun elsewhere, unchanged for {_ago(age)}"
    return ""


def _key_of_group(folder: Place) -> str:
    return str(_attributes(folder).get("key", ""))


def _version_of_group(folder: Place) -> str:
    """The version that a group's mark points to; empty where there is no mark."""
    return judge_mark(_attributes(folder).get("commit")).version


def _attributes(folder: Place) -> dict[str, Any]:
    try:
        attributes: dict[str, Any] = json.loads(read_bytes(folder / _HEADER) or b"{}").get("attributes", {})
    except (ValueError, AttributeError):
        return {}
    return attributes if isinstance(attributes, dict) else {}


def _bytes(place: Place) -> int:
    return sum(sizes_below(place).values())


def _ago(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"

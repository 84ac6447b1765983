"""Content hashes of files, remembered from run to run, so that an unchanged dataset is not read again.

A digest is remembered for a path, a size, a time of change and a time of status change. The last one is what a program
cannot set: a file that was replaced and given its old time of change back is hashed again. A file that changed within
the last seconds is hashed but not remembered, since a second change could leave the same times.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

# The coarsest time stamps in use are FAT's, of two seconds.
_UNSETTLED_SECONDS = 3.0
_BATCH = 500


@dataclass(frozen=True)
class FileDigest:
    """SHA-256 of a file's content, its size in bytes, and its time of change in nanoseconds when it was hashed."""

    sha256: str
    size: int
    mtime_ns: int

    def still_holds(self, path: Path) -> bool:
        """Whether the file's size and time of change are still those that were hashed."""
        try:
            stat = path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


class DigestCache:
    """Digests in one small database; several processes may use it at once.

    Args:
        path: the database's file; it and its folder are created. Deleting it costs time, nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digests(
        self, paths: Sequence[Path], *, num_threads: int = 1, progress: Callable[[int], None] | None = None
    ) -> dict[Path, FileDigest | None]:
        """The digest of each file's present content; None for what is no file or cannot be read.

        Args:
            paths: absolute paths.
            num_threads: files that are read at once.
            progress: told the number of bytes, whenever a file has been read.
        """
        if not paths:
            return {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found: dict[Path, FileDigest | None] = {}
        with closing(self._connect()) as database, ThreadPoolExecutor(num_threads) as pool:
            for start in range(0, len(paths), _BATCH):
                batch = paths[start : start + _BATCH]
                stats = {path: _stat(path) for path in batch}
                known = self._lookup(database, stats)
                unknown = [path for path in batch if path not in known]
                found.update(known)
                fresh: list[tuple[str, int, int, int, str]] = []
                for path, digest, row in pool.map(_hash, unknown):
                    found[path] = digest
                    if digest is not None and progress:
                        progress(digest.size)
                    if row is not None:
                        fresh.append(row)
                if fresh:
                    with database:
                        database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", fresh)
        return found

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError:
            # Damaged, or no database at all: it is only a cache.
            self._path.unlink(missing_ok=True)
            return self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=60)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS digests "
                "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, sha256 TEXT) WITHOUT ROWID"
            )
            database.execute("SELECT path, size, mtime_ns, ctime_ns, sha256 FROM digests LIMIT 1")
        except BaseException:
            database.close()
            raise
        return database

    def _lookup(
        self, database: sqlite3.Connection, stats: dict[Path, os.stat_result | None]
    ) -> dict[Path, FileDigest | None]:
        known: dict[Path, FileDigest | None] = {path: None for path, stat in stats.items() if stat is None}
        names = {str(path): path for path in stats}
        marks = ", ".join("?" * len(names))
        rows = database.execute(
            f"SELECT path, size, mtime_ns, ctime_ns, sha256 FROM digests WHERE path IN ({marks})", list(names)
        )
        for name, size, mtime_ns, ctime_ns, sha256 in rows:
            stat = stats[names[name]]
            if stat is not None and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == (size, mtime_ns, ctime_ns):
                known[names[name]] = FileDigest(sha256, size, mtime_ns)
        return known


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _hash(path: Path) -> tuple[Path, FileDigest | None, tuple[str, int, int, int, str] | None]:
    """A file's digest, and the row to remember it by if its times can be trusted."""
    try:
        with path.open("rb") as file:
            started = time.time()
            before = os.fstat(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError:
        return path, None, None
    digest = FileDigest(sha256, before.st_size, before.st_mtime_ns)
    times = [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in (before, after)]
    newest = max(before.st_mtime, before.st_ctime)
    # A time in the future is none that can be trusted either.
    settled = times[0] == times[1] and newest + _UNSETTLED_SECONDS < started
    return path, digest, (str(path), *times[0], sha256) if settled else None

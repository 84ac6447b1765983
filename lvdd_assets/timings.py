"""What each step took, remembered beside the data: seconds and peak memory of the last time that a partition was made.

They say something of the machine, not of the data: no fingerprint depends on them, and deleting the file costs nothing
but the figures. Several processes may use it at once.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from lvdd_assets.distill.places import Place, cache_folder

FILE = "timings.sqlite"


@dataclass(frozen=True)
class Taken:
    """What making one partition took.

    Attributes:
        seconds: wall time.
        peak_bytes: most memory of the process meanwhile; None where it could not be measured.
    """

    seconds: float
    peak_bytes: int | None = None


def remember(data_root: Place, step: str, taken: Mapping[str, Taken]) -> None:
    """Keeps what partitions of a step took, by key, instead of what was known before."""
    if not taken:
        return
    file = cache_folder(data_root) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        _create(database)
        rows = [(step, key, one.seconds, one.peak_bytes) for key, one in taken.items()]
        database.executemany("INSERT OR REPLACE INTO taken VALUES (?, ?, ?, ?)", rows)


def recall(data_root: Place, dataset: str) -> dict[str, Taken]:
    """What each step of a dataset took: seconds of all its partitions together, and the largest peak of memory."""
    file = cache_folder(data_root) / FILE
    if not file.exists():
        return {}
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        _create(database)
        rows = database.execute("SELECT step, key, seconds, peak_bytes FROM taken ORDER BY rowid").fetchall()
    found: dict[str, Taken] = {}
    for step, key, seconds, peak in rows:
        if key != dataset and not key.startswith(f"{dataset}/"):
            continue
        before = found.get(step, Taken(0.0))
        peaks = [value for value in (before.peak_bytes, peak) if value is not None]
        found[step] = Taken(before.seconds + seconds, max(peaks, default=None))
    return found


def _create(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE IF NOT EXISTS taken (step TEXT, key TEXT, seconds REAL, peak_bytes INTEGER, "
        "PRIMARY KEY (step, key))"
    )

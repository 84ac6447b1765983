"""Commit marks: what a partition was made from, sealed, and which stored version it means; and what can be wrong with
it.

A mark is one small JSON, written last and replaced whole, so that a partition is what its mark says or nothing. Data
lies in folders with a name of their own for every write (`new_version`), which says who is writing: that is how what a
dead run has left is told from what a running one is about to finish.
"""

import functools
import hashlib
import json
import os
import platform
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

_VERSION = re.compile(
    r"v-(?P<host>[0-9a-f]{8})-(?P<boot>[0-9a-f]{6})-(?P<pid>[0-9a-f]+)-(?P<start>[0-9a-f]+)-[0-9a-f]{8}"
)


class StoreError(RuntimeError):
    """What was to be read is not there. The message says which partition of which asset."""


class ReplacedError(StoreError):
    """Another run replaced a partition between being looked at and being read."""


class DamagedError(StoreError):
    """Stored bytes are not those that were written: a bit is flipped, a file is cut or gone.

    Attributes:
        asset: whose partition it is.
        key: the partition.
        damage: what is wrong with which file.
    """

    def __init__(self, asset: str, key: str, damage: str) -> None:
        super().__init__(f"{asset} {key} is damaged: {damage}")
        self.asset, self.key, self.damage = asset, key, damage

    def __reduce__(self) -> tuple[Any, ...]:  # it crosses from a worker's process
        return type(self), (self.asset, self.key, self.damage)


@dataclass(frozen=True)
class Commit:
    """The commit mark of one partition.

    Attributes:
        fingerprint: hash of everything that the data depends on.
        settings: the settings it was made with, as plain values.
        inputs: fingerprints of what it was made from, by name.
        metrics: plain figures and tables worth showing.
        code: the version of the code that made it.
        version: name of the folder that holds the data.
        files: SHA-256 by file name: of all files, or (zarr store) of the arrays' headers, whose chunks have checksums.
        chunks: bytes by file name, of the arrays' chunks (zarr store only).
    """

    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    chunks: Mapping[str, int] = field(default_factory=dict)

    def sealed(self) -> dict[str, Any]:
        """The mark as plain values, with a hash over all of them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {**values, "seal": _seal(values)}


@dataclass(frozen=True)
class Stored:
    """What a store has of a partition.

    Attributes:
        commit: its mark; None where nothing complete is stored.
        damage: what is wrong with what was stored; empty where nothing is, or nothing was ever stored.
        settings: those it was made with, also where its files are damaged; empty where the mark itself is.
        version: name of the folder that its mark points to, whatever is wrong with it.
    """

    commit: Commit | None = None
    damage: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""


def look_until_settled(look: Callable[[], Stored]) -> Stored:
    """What a store has of a partition, where a writer may replace and sweep a version between its mark and its files.

    Damage is believed where a second look finds it in the same version: a version is swept only after its mark went.
    """
    stored = look()
    while stored.damage:
        again = look()
        if again.version == stored.version:
            return again
        stored = again
    return stored


def judge_mark(mark: Any) -> Stored:
    """What a mark says, before anything is known of the files."""
    values = mark if isinstance(mark, dict) else {}
    version, commit = values.get("version"), unseal(mark)
    return Stored(
        commit,
        "" if commit is not None else "its commit mark is not what was written",
        commit.settings if commit is not None else {},
        version if isinstance(version, str) and is_version(version) else "",
    )


def unseal(mark: Any) -> Commit | None:
    """The commit of a mark; None where the mark is not the one that was written."""
    if not isinstance(mark, dict):
        return None
    values = {name: value for name, value in mark.items() if name != "seal"}
    if mark.get("seal") != _seal(values):
        return None
    try:
        return Commit(**values)
    except TypeError:  # sealed by a version of this package that keeps something else
        return None


def is_done_already(before: Stored, now: Stored, fingerprint: str) -> bool:
    """Whether another run has committed the same as this one is about to, since this one began."""
    return now.commit is not None and now.commit.fingerprint == fingerprint and now.version != before.version


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def new_version() -> str:
    """A name for what this process is about to write, different every time."""
    host, boot = _machine()
    return f"v-{host}-{boot}-{os.getpid():x}-{_start_of(os.getpid()) or 0:x}-{uuid.uuid4().hex[:8]}"


def is_version(name: str) -> bool:
    """Whether a folder's name is one of `new_version`."""
    return _VERSION.fullmatch(name) is not None


def writer_lives(version: str) -> bool | None:
    """Whether the process that began a version still runs; None where that cannot be known from this machine."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    host, boot = _machine()
    if match["host"] != host:
        return None
    if match["boot"] != boot:
        return False  # this machine was started again since
    # Another process may have got the same number since.
    return _start_of(int(match["pid"], 16)) == int(match["start"], 16)


def _start_of(pid: int) -> int | None:
    """When a process began, in a unit of the system's that no change of the clock touches; None where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.exists():
            return int(stat.read_text().rpartition(")")[2].split()[19])  # proc(5): field 22, in ticks since boot
        return int(psutil.Process(pid).create_time())
    except (psutil.NoSuchProcess, OSError, OverflowError):
        return None


@functools.cache
def _machine() -> tuple[str, str]:
    """Hashes of this machine (or container) and of the time since which it runs."""
    namespace = Path("/proc/self/ns/pid")
    host = f"{platform.node()} {uuid.getnode()} {namespace.readlink() if namespace.is_symlink() else ''}"
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    boot = boot_id.read_text().strip() if boot_id.exists() else str(int(psutil.boot_time()))
    return hashlib.sha256(host.encode()).hexdigest()[:8], hashlib.sha256(boot.encode()).hexdigest()[:6]

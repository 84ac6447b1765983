"""How each artefact lies on disk, and when it counts as stored.

`ZarrStore` keeps one group a partition in `<data root>/<asset>.zarr`; `FileStore` keeps plain files in `<data
root>/<asset>/`. Both commit by one atomic write that comes last: the commit mark, which carries the fingerprint. A
killed writer leaves the old partition or none. Nobody else builds a path below the data root. What a release file holds
inside belongs to `release`.

Layout of a partition in a zarr store (`demo/spin_left`): the group `demo/spin_left` has the commit mark among its
attributes; the arrays lie in a subgroup with a name of its own for every write, to which the mark points.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors

# Clips along the first axis of one shard file; a class of some hundred clips is a handful of files.
_SHARD_ROWS = 64


class StoreError(RuntimeError):
    """What was to be read is not there, or changed while it was read. The message says which partition of which
    asset."""


@dataclass(frozen=True)
class Commit:
    """The commit mark of one partition.

    Attributes:
        fingerprint: hash of everything that the data depends on.
        settings: the settings it was made with, as plain values.
        inputs: fingerprints of what it was made from, by name.
        metrics: plain figures and tables worth showing.
        version: name of the subgroup that holds the arrays (zarr store only).
        files: SHA-256 by file name (file store only).
    """

    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


class Writer:
    """Arrays of one partition while they are written; nothing counts before the commit."""

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        self._pending: dict[str, list[np.ndarray]] = {}
        self.metrics: dict[str, Any] = {}

    def put(self, name: str, array: np.ndarray) -> None:
        """Stores a whole array in one chunk."""
        data = np.ascontiguousarray(array)
        self._group.create_array(name, data=data, chunks=tuple(max(1, n) for n in data.shape))

    def append(self, name: str, rows: np.ndarray) -> None:
        """Adds rows to an array that grows along its first axis: chunks of one row, shards of 64."""
        pending = self._pending.setdefault(name, [])
        pending.extend(rows)
        while len(pending) >= _SHARD_ROWS:
            self._flush(name, _SHARD_ROWS)

    def finish(self) -> None:
        """Writes what `append` still holds back."""
        for name, pending in self._pending.items():
            if pending:
                self._flush(name, len(pending))

    def _flush(self, name: str, count: int) -> None:
        rows = np.stack(self._pending[name][:count])
        del self._pending[name][:count]
        if name not in self._group:
            self._group.create_array(
                name,
                shape=(0, *rows.shape[1:]),
                dtype=rows.dtype,
                chunks=(1, *rows.shape[1:]),
                shards=(_SHARD_ROWS, *rows.shape[1:]),
            )
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        start = array.shape[0]
        array.resize((start + count, *array.shape[1:]))
        array[start:] = rows


@dataclass(frozen=True)
class Partition:
    """A committed partition, open for reading."""

    asset: str
    key: str
    commit: Commit
    _group: zarr.Group

    def num_rows(self, name: str) -> int:
        """Length of the first axis; 0 for an array that never got a row."""
        return int(self._array(name).shape[0]) if name in self._group else 0

    def read(self, name: str, rows: slice | np.ndarray | None = None) -> np.ndarray:
        """An array, whole or some of its rows.

        Raises:
            StoreError: another writer replaced the partition meanwhile.
        """
        array = self._array(name)
        if rows is None:
            data = array[...]
        elif isinstance(rows, slice):
            data = array[rows]
        else:
            data = array.oindex[rows]
        # A chunk that a later commit has swept away reads as the fill value: see whether ours is still there.
        try:
            zarr.open_group(self._group.store_path, mode="r")
        except (FileNotFoundError, zarr.errors.GroupNotFoundError) as error:
            raise StoreError(f"{self.asset} {self.key} was replaced while it was read; run the step again") from error
        return np.asarray(data)

    def batches(self, name: str, size: int) -> Iterator[np.ndarray]:
        """The array's rows in order, at most `size` at a time."""
        for start in range(0, self.num_rows(name), size):
            yield self.read(name, slice(start, start + size))

    def _array(self, name: str) -> zarr.Array:
        found = self._group.get(name)
        if not isinstance(found, zarr.Array):
            raise StoreError(f"{self.asset} {self.key} has no array {name!r}; it has {sorted(self._group.keys())}")
        return found


@dataclass(frozen=True)
class ZarrStore:
    """The partitions of one asset as groups of `<data root>/<asset>.zarr`."""

    data_root: Path
    asset: str

    @property
    def path(self) -> Path:
        """Folder of the zarr hierarchy."""
        return self.data_root / f"{self.asset}.zarr"

    def commit_of(self, key: str) -> Commit | None:
        """The commit mark of a partition, or None where nothing complete is stored."""
        try:
            group = zarr.open_group(self.path, path=key, mode="r")
        except (FileNotFoundError, zarr.errors.GroupNotFoundError):
            return None
        mark = group.attrs.asdict().get("commit")
        return Commit(**mark) if isinstance(mark, dict) and str(mark.get("version")) in group else None

    def open(self, key: str) -> Partition:
        """A committed partition for reading.

        Raises:
            StoreError: nothing complete is stored under that key.
        """
        commit = self.commit_of(key)
        if commit is None:
            raise StoreError(f"{self.asset} has nothing stored for {key!r}")
        group = zarr.open_group(self.path, path=f"{key}/{commit.version}", mode="r")
        return Partition(self.asset, key, commit, group)

    def _ensure_group(self, path: str) -> zarr.Group:
        """The group, created unless it is there; several processes may do so at once."""
        while True:
            try:
                return zarr.open_group(self.path, path=path, mode="r+")
            except (FileNotFoundError, zarr.errors.GroupNotFoundError):
                # Another process may be quicker, then this one opens what that one made.
                with suppress(zarr.errors.ContainsGroupError, FileExistsError):
                    zarr.create_group(self.path, path=path)

    @contextmanager
    def write(
        self, key: str, fingerprint: str, *, settings: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> Iterator[Writer]:
        """Writes a partition and commits it when the block ends without an error; on an error the old one stays."""
        parts = key.split("/")
        for depth in range(len(parts)):  # a group is created without its parents, which would then lack their metadata
            self._ensure_group("/".join(parts[:depth]))
        group = self._ensure_group(key)
        old = self.commit_of(key)
        version = f"v-{uuid.uuid4().hex[:12]}"
        writer = Writer(group.create_group(version))
        try:
            yield writer
            writer.finish()
        except BaseException:
            shutil.rmtree(self.path / key / version, ignore_errors=True)
            raise
        commit = Commit(fingerprint, dict(settings), dict(inputs), writer.metrics, version=version)
        group.attrs.put({"commit": asdict(commit)})
        if old is not None:
            shutil.rmtree(self.path / key / old.version, ignore_errors=True)


@dataclass(frozen=True)
class FileStore:
    """The partitions of one asset as files of `<data root>/<asset>/`, with a commit mark `<key>.commit.json` beside
    them."""

    data_root: Path
    asset: str

    def path(self, name: str = "") -> Path:
        """Path of a stored file or of the asset's folder."""
        return self.data_root / self.asset / name

    def commit_of(self, key: str) -> Commit | None:
        """The commit mark of a partition, or None where it is absent or a file is not the one that was committed."""
        try:
            commit = Commit(**json.loads(self._mark(key).read_text(encoding="utf-8")))
            intact = all(_sha256(self.path(name)) == digest for name, digest in commit.files.items())
        except (OSError, ValueError, TypeError):
            return None
        return commit if intact else None

    def write(
        self,
        key: str,
        fingerprint: str,
        *,
        files: Mapping[str, bytes],
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        metrics: Mapping[str, Any],
    ) -> None:
        """Replaces a partition's files, each whole, and then its mark: a mixture of old and new never has a valid
        mark."""
        digests = {}
        for name, data in files.items():
            _replace(self.path(name), data)
            digests[name] = hashlib.sha256(data).hexdigest()
        commit = Commit(fingerprint, dict(settings), dict(inputs), dict(metrics), files=digests)
        _replace(self._mark(key), json.dumps(asdict(commit), indent=1, sort_keys=True).encode())

    def _mark(self, key: str) -> Path:
        return self.path(f"{key}.commit.json")


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

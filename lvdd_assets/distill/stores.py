"""How each artefact lies on disk, and when it counts as stored.

`ZarrStore` keeps one group a partition in `<data root>/<asset>.zarr`; `FileStore` keeps plain files in `<data
root>/<asset>/`. Both commit by one atomic write that comes last: the commit mark, which carries the fingerprint. A
killed writer leaves the old partition or none. Nobody else builds a path below the data root. What a release file holds
inside belongs to `release`.

Layout of a partition in a zarr store (`demo/spin_left`): the group `demo/spin_left` has the commit mark among its
attributes; the arrays lie in a subgroup with a name of its own for every write, to which the mark points. A class whose
name is no safe folder name everywhere (spaces, Unicode, capitals, `/`, hundreds of letters) lies in a group with a
shortened name and a hash; the true name is the attribute `key`.
"""

import hashlib
import json
import re
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
from zarr.codecs import ZstdCodec

from lvdd_assets.distill.digests import DigestCache

# Bytes of one shard file before compression, and of the writer's buffer: 100 clips of 16 frames at 112 pixels are four
# files, 600 of 8 frames at 64 pixels as well.
_SHARD_BYTES = 2**24
_MAX_SHARD_ROWS = 1024
# The default level takes three times as long for films and makes them 7 % smaller.
_CODEC = ZstdCodec(level=1)
# Names that mean the same folder on every file system, and only that one; all others are hashed.
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


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
        self._growing: dict[str, _GrowingArray] = {}
        self.metrics: dict[str, Any] = {}

    def put(self, name: str, array: np.ndarray) -> None:
        """Stores a whole array in one chunk."""
        data = np.ascontiguousarray(array)
        self._group.create_array(name, data=data, chunks=tuple(max(1, n) for n in data.shape))

    def put_json(self, name: str, value: object) -> None:
        """Stores a plain value that is too long for the metrics: UTF-8 text of JSON as a byte array."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        self.put(name, np.frombuffer(text.encode(), dtype=np.uint8))

    def append(self, name: str, rows: np.ndarray) -> None:
        """Adds rows to an array that grows along its first axis: chunks of one row, shards of 16 MiB."""
        for row in rows:
            if name not in self._growing:
                self._growing[name] = _GrowingArray(self._group, name, row)
            self._growing[name].append(row)

    def finish(self) -> None:
        """Writes what `append` still holds back."""
        for array in self._growing.values():
            array.flush()


class _GrowingArray:
    """An array written in whole shards; rows that are no shard yet wait in a buffer."""

    def __init__(self, group: zarr.Group, name: str, row: np.ndarray) -> None:
        num_rows = max(1, min(_MAX_SHARD_ROWS, _SHARD_BYTES // max(1, row.nbytes)))
        self._array = group.create_array(
            name,
            shape=(0, *row.shape),
            dtype=row.dtype,
            chunks=(1, *row.shape),
            shards=(num_rows, *row.shape),
            compressors=_CODEC,
            config={"write_empty_chunks": True},  # looking for empty ones takes as long as compressing
        )
        self._waiting = np.empty((num_rows, *row.shape), row.dtype)
        self._num_waiting = 0

    def append(self, row: np.ndarray) -> None:
        if (row.shape, row.dtype) != (self._waiting.shape[1:], self._waiting.dtype):
            raise ValueError(
                f"{self._array.basename}: got a row of {row.dtype} {row.shape}, expected {self._waiting.dtype} "
                f"{self._waiting.shape[1:]} as the rows before"
            )
        self._waiting[self._num_waiting] = row
        self._num_waiting += 1
        if self._num_waiting == len(self._waiting):
            self.flush()

    def flush(self) -> None:
        start = self._array.shape[0]
        if self._num_waiting:
            self._array.resize((start + self._num_waiting, *self._array.shape[1:]))
            self._array[start:] = self._waiting[: self._num_waiting]
        self._num_waiting = 0


def _group_name(key: str) -> str:
    """The path of a partition's group: no name of a class, whatever it is, leads out of its dataset's group."""
    dataset, slash, class_name = key.partition("/")
    if not slash or _SAFE_NAME.fullmatch(class_name):
        return key
    slug = re.sub(r"[^A-Za-z0-9]+", "_", class_name).strip("_")[:40] or "class"
    return f"{dataset}/{slug}.{hashlib.sha256(class_name.encode()).hexdigest()[:12]}"


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

    def read_json(self, name: str) -> Any:
        """A value that `put_json` stored."""
        return json.loads(self.read(name).tobytes())

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
            group = zarr.open_group(self.path, path=_group_name(key), mode="r")
        except (FileNotFoundError, zarr.errors.GroupNotFoundError):
            return None
        attributes = group.attrs.asdict()
        mark = attributes.get("commit")
        if not isinstance(mark, dict) or attributes.get("key") != key or str(mark.get("version")) not in group:
            return None
        return Commit(**mark)

    def open(self, key: str) -> Partition:
        """A committed partition for reading.

        Raises:
            StoreError: nothing complete is stored under that key.
        """
        commit = self.commit_of(key)
        if commit is None:
            raise StoreError(f"{self.asset} has nothing stored for {key!r}")
        group = zarr.open_group(self.path, path=f"{_group_name(key)}/{commit.version}", mode="r")
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
        name = _group_name(key)
        parts = name.split("/")
        for depth in range(len(parts)):  # a group is created without its parents, which would then lack their metadata
            self._ensure_group("/".join(parts[:depth]))
        group = self._ensure_group(name)
        old = self.commit_of(key)
        version = f"v-{uuid.uuid4().hex[:12]}"
        writer = Writer(group.create_group(version))
        try:
            yield writer
            writer.finish()
        except BaseException:
            shutil.rmtree(self.path / name / version, ignore_errors=True)
            raise
        commit = Commit(fingerprint, dict(settings), dict(inputs), writer.metrics, version=version)
        group.attrs.put({"key": key, "commit": asdict(commit)})
        if old is not None:
            shutil.rmtree(self.path / name / old.version, ignore_errors=True)


def digest_cache(data_root: Path) -> DigestCache:
    """The remembered hashes of the files from which a data root's stores are made."""
    return DigestCache(data_root / "file_digests.sqlite")


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

"""How arrays lie on disk, and when they count as stored: one group a partition in `<data root>/<asset>.zarr`.

A partition (`demo/spin_left`) is the group `demo/spin_left`, whose attributes hold the commit mark; its arrays lie in a
subgroup with a name of its own for every write, to which the mark points. The mark is one file, replaced whole and
last: readers see the old partition or the new one, and a killed writer leaves the old one or none. Every chunk carries
a checksum, the mark the hashes of the arrays' headers and a hash of itself, so that what is read is what was written.

A class whose name is no safe folder name everywhere (spaces, Unicode, capitals, `/`, hundreds of letters) lies in a
group with a shortened name and a hash; the true name is the attribute `key`. Nobody else builds a path below the data
root, but `file_stores`. What a release file holds inside belongs to `release`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import FsspecStore

from lvdd_assets.distill.commits import (
    Commit,
    DamagedError,
    ReplacedError,
    Stored,
    StoreError,
    is_done_already,
    judge_mark,
    look_until_settled,
    new_version,
)
from lvdd_assets.distill.digests import DigestCache
from lvdd_assets.distill.places import Place, cache_folder, read_bytes, remove_tree, size_of, sizes_below

# Bytes of one shard file before compression, and of the writer's buffer: 100 clips of 16 frames at 112 pixels are four
# files, 600 of 8 frames at 64 pixels as well.
_SHARD_BYTES = 2**24
_MAX_SHARD_ROWS = 1024
# The default level takes three times as long for films and makes them 7 % smaller.
_CODECS = [ZstdCodec(level=1), Crc32cCodec()]
# Chunks that are all zero are written, too: what is absent could not be told from what was lost.
_CONFIG: Any = {"write_empty_chunks": True}
# Names that mean the same folder on every file system, and only that one; all others are hashed.
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HEADER = "zarr.json"
# What zarr, its codecs and the file system raise on bytes that are not what was written.
_DAMAGE = (ValueError, RuntimeError, OSError, TypeError, KeyError, zarr.errors.BaseZarrError)


class Writer:
    """Arrays of one partition while they are written; nothing counts before the commit."""

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        self._growing: dict[str, _GrowingArray] = {}
        self.metrics: dict[str, Any] = {}

    def put(self, name: str, array: np.ndarray) -> None:
        """Stores a whole array in one chunk."""
        data = np.ascontiguousarray(array)
        chunks = tuple(max(1, n) for n in data.shape)
        self._group.create_array(name, data=data, chunks=chunks, compressors=_CODECS, config=_CONFIG)

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
            compressors=_CODECS,
            config=_CONFIG,
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

    store: "ZarrStore"
    key: str
    commit: Commit
    _group: zarr.Group

    @property
    def asset(self) -> str:
        """The asset whose partition it is."""
        return self.store.asset

    def num_rows(self, name: str) -> int:
        """Length of the first axis; 0 for an array that never got a row."""
        return int(self._array(name).shape[0]) if f"{name}/{_HEADER}" in self.commit.files else 0

    def read(self, name: str, rows: slice | np.ndarray | None = None) -> np.ndarray:
        """An array, whole or some of its rows.

        Raises:
            ReplacedError: another writer replaced the partition meanwhile.
            DamagedError: the bytes are not those that were written.
        """
        array = self._array(name)
        try:
            if rows is None:
                data = array[...]
            elif isinstance(rows, slice):
                data = array[rows]
            else:
                data = array.oindex[rows]
        except _DAMAGE as error:
            raise self._lost(self._find_damage(name) or f"array {name}: {error}") from error
        # A chunk that is not there is read as zeros: see whether all are.
        for file in self._chunks(name, rows, array):
            if size_of(self._folder / file) != self.commit.chunks[file]:
                raise self._lost(self._find_damage(name) or f"{file} was gone for a moment")
        return np.asarray(data)

    def read_json(self, name: str) -> Any:
        """A value that `put_json` stored."""
        return json.loads(self.read(name).tobytes())

    def batches(self, name: str, size: int) -> Iterator[np.ndarray]:
        """The array's rows in order, at most `size` at a time."""
        for start in range(0, self.num_rows(name), size):
            yield self.read(name, slice(start, start + size))

    def verify(self) -> None:
        """Reads every byte.

        Raises:
            DamagedError: some are not those that were written.
            ReplacedError: another writer replaced the partition meanwhile.
        """
        for header in self.commit.files:
            name = header.removesuffix(f"/{_HEADER}")
            self._array(name)
            damage = self._find_damage(name)
            if damage:
                raise self._lost(damage)

    @property
    def _folder(self) -> Place:
        return self.store.folder(self.key) / self.commit.version

    def _array(self, name: str) -> zarr.Array:
        header = f"{name}/{_HEADER}"
        if header not in self.commit.files:
            there = sorted(file.removesuffix(f"/{_HEADER}") for file in self.commit.files)
            raise StoreError(f"{self.asset} {self.key} has no array {name!r}; it has {there}")
        content = read_bytes(self._folder / header)
        if content is None or hashlib.sha256(content).hexdigest() != self.commit.files[header]:
            raise self._lost(f"{header} {'is gone' if content is None else 'is not what was written'}")
        try:
            found = self._group[name]
        except _DAMAGE as error:
            raise self._lost(f"{header}: {error}") from error
        assert isinstance(found, zarr.Array)
        return found

    def _chunks(self, name: str, rows: slice | np.ndarray | None, array: zarr.Array) -> list[str]:
        """Files of an array's chunks that hold some rows."""
        of_array = [file for file in self.commit.chunks if file.startswith(f"{name}/c")]
        if rows is None or not of_array:
            return of_array
        per_file = (array.shards or array.chunks)[0]
        wanted = set((np.arange(array.shape[0])[rows] // per_file).tolist())
        return [file for file in of_array if int(file.removeprefix(f"{name}/c/").split("/")[0]) in wanted]

    def _find_damage(self, name: str) -> str:
        """What is wrong with which file of an array; empty where nothing is."""
        for file, num_bytes in self.commit.chunks.items():
            if not file.startswith(f"{name}/c"):
                continue
            there = size_of(self._folder / file)
            if there is None:
                return f"{file} is gone"
            if there != num_bytes:
                return f"{file} has {there} B of {num_bytes} B"
        array = self._array(name)
        per_file = (array.shards or array.chunks)[0] if array.shape else 1
        for start in range(0, array.shape[0] if array.shape else 1, per_file):
            try:
                _ = array[start : start + per_file] if array.shape else array[...]
            except _DAMAGE as error:
                index = "/".join(["c", str(start // per_file), *["0"] * (array.ndim - 1)]) if array.shape else "c"
                return f"{name}/{index} is not what was written ({error})"
        return ""

    def _lost(self, damage: str) -> StoreError:
        now = self.store.state_of(self.key).commit
        if now is not None and now.version != self.commit.version:
            return ReplacedError(f"{self.asset} {self.key} was replaced while it was read; run the step again")
        return DamagedError(self.asset, self.key, damage)


@dataclass(frozen=True)
class ZarrStore:
    """The partitions of one asset as groups of `<data root>/<asset>.zarr`."""

    data_root: Place
    asset: str

    @property
    def path(self) -> Place:
        """Folder of the zarr hierarchy."""
        return self.data_root / f"{self.asset}.zarr"

    def folder(self, key: str) -> Place:
        """Folder of a partition."""
        return self.path / _group_name(key)

    def state_of(self, key: str) -> Stored:
        """What is stored of a partition, and what is wrong with it as far as names and sizes of files tell."""
        return look_until_settled(lambda: self._look_at(key))

    def _look_at(self, key: str) -> Stored:
        attributes = self._attributes(key)
        if attributes.get("key") != key or "commit" not in attributes:
            return Stored(damage=str(attributes["damage"])) if "damage" in attributes else Stored()
        stored = judge_mark(attributes["commit"])
        damage = str(attributes.get("damage", stored.damage))
        if stored.commit is not None and not damage:
            damage = self._missing(self.folder(key) / stored.version, stored.commit)
        return replace(stored, commit=None if damage else stored.commit, damage=damage)

    def commit_of(self, key: str) -> Commit | None:
        """The commit mark of a partition, or None where nothing complete is stored."""
        return self.state_of(key).commit

    def open(self, key: str) -> Partition:
        """A committed partition for reading.

        Raises:
            StoreError: nothing complete is stored under that key.
        """
        stored = self.state_of(key)
        if stored.commit is None and stored.damage:
            raise DamagedError(self.asset, key, stored.damage)
        if stored.commit is None:
            raise StoreError(f"{self.asset} has nothing stored for {key!r}")
        try:
            group = zarr.open_group(self._zarr(), path=f"{_group_name(key)}/{stored.commit.version}", mode="r")
        except _DAMAGE as error:  # swept by a writer that was quicker, or gone
            now = self.state_of(key)
            if now.commit is not None and now.commit.version != stored.commit.version:
                return self.open(key)
            raise DamagedError(self.asset, key, f"{stored.commit.version}/{_HEADER}: {error}") from error
        return Partition(self, key, stored.commit, group)

    def verify(self, key: str) -> int:
        """Reads every byte of a partition; how many there are, 0 or 1.

        Raises:
            DamagedError: some are not those that were written.
            ReplacedError: another writer replaced the partition meanwhile.
        """
        stored = self.state_of(key)
        if stored.commit is None and not stored.damage:
            return 0
        self.open(key).verify()
        return 1

    @contextmanager
    def write(
        self, key: str, fingerprint: str, *, settings: Mapping[str, Any], inputs: Mapping[str, str], code: str = ""
    ) -> Iterator[Writer]:
        """Writes a partition and commits it when the block ends without an error; on an error the old one stays.

        Where another run has committed the same fingerprint meanwhile, that one stays: both wrote the same data, and
        somebody may be reading it.
        """
        name = _group_name(key)
        parts = name.split("/")
        for depth in range(len(parts)):  # a group is created without its parents, which would then lack their metadata
            self._ensure_group("/".join(parts[:depth]))
        group = self._ensure_group(name)
        before, version = self.state_of(key), new_version()
        folder = self.folder(key) / version
        try:
            writer = Writer(group.create_group(version))
            yield writer
            writer.finish()
            commit = _describe(folder, fingerprint, settings, inputs, writer.metrics, code, version)
            now = self.state_of(key)
            if is_done_already(before, now, fingerprint):
                remove_tree(folder)
                return
            group.attrs.put({"key": key, "commit": commit.sealed()})
        except BaseException:
            remove_tree(folder)
            raise
        if now.version:
            remove_tree(self.folder(key) / now.version)

    def withdraw(self, key: str, damage: str) -> None:
        """Marks a partition as damaged: it counts as not stored, and its settings are kept for making it again."""
        attributes = self._attributes(key)
        if "commit" in attributes:
            group = self._ensure_group(_group_name(key))
            group.attrs.put({"key": key, "commit": attributes["commit"], "damage": damage})

    def _attributes(self, key: str) -> dict[str, Any]:
        """The attributes of a partition's group; empty where there is none or its file is no JSON.

        Read without zarr, which takes thirty times as long: thousands are looked at before anything is computed.
        """
        content = read_bytes(self.folder(key) / _HEADER)
        if content is None:
            return {}
        try:
            attributes = json.loads(content)["attributes"]
        except (ValueError, KeyError, TypeError):
            return {"damage": "its commit mark cannot be read"}
        return attributes if isinstance(attributes, dict) else {}

    def _missing(self, folder: Place, commit: Commit) -> str:
        """The first file that is not there or has another size; on an object store, only whether any is there."""
        if not isinstance(folder, Path):
            return "" if size_of(folder / _HEADER) is not None else f"{commit.version} is gone"
        for file in commit.files:
            if not (folder / file).exists():
                return f"{file} is gone"
        for file, num_bytes in commit.chunks.items():
            there = size_of(folder / file)
            if there != num_bytes:
                return f"{file} is gone" if there is None else f"{file} has {there} B of {num_bytes} B"
        return ""

    def _zarr(self) -> Any:
        """What zarr opens."""
        path = self.path
        return (
            path
            if isinstance(path, Path)
            else FsspecStore.from_url(str(path), storage_options=dict(path.storage_options))
        )

    def _ensure_group(self, path: str) -> zarr.Group:
        """The group, created unless it is there; several processes may do so at once."""
        while True:
            try:
                return zarr.open_group(self._zarr(), path=path, mode="r+")
            except (FileNotFoundError, zarr.errors.GroupNotFoundError):
                # Another process may be quicker, then this one opens what that one made.
                with suppress(zarr.errors.ContainsGroupError, FileExistsError):
                    zarr.create_group(self._zarr(), path=path)


def _describe(
    folder: Place,
    fingerprint: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    metrics: Mapping[str, Any],
    code: str,
    version: str,
) -> Commit:
    """The mark of what lies in a version's folder."""
    sizes = sizes_below(folder)
    headers = [name for name in sorted(sizes) if name.endswith(f"/{_HEADER}")]
    return Commit(
        fingerprint,
        dict(settings),
        dict(inputs),
        metrics,
        code,
        version,
        {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in headers},
        {name: sizes[name] for name in sorted(sizes) if name not in headers and name != _HEADER},
    )


def digest_cache(data_root: Place) -> DigestCache:
    """The remembered hashes of the files from which a data root's stores are made."""
    return DigestCache(cache_folder(data_root) / "file_digests.sqlite")

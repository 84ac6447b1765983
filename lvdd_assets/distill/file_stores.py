"""How plain files lie on disk, and when they count as stored: `<data root>/<asset>/`, for people and pipeline alike.

The files of a partition lie in a folder with a name of its own for every write, below `.versions`; the commit mark
`<key>.commit.json` points to it and is replaced whole and last. What people open, `<asset>/<name>`, are further names
of the same files (copies on an object store), set after the commit and mended when they are not what was committed. So
the pipeline's readers see the old files or the new ones, never a mixture.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lvdd_assets.distill.commits import (
    Commit,
    DamagedError,
    Stored,
    StoreError,
    is_done_already,
    judge_mark,
    look_until_settled,
    new_version,
)
from lvdd_assets.distill.places import (
    PARTIAL,
    Place,
    cache_folder,
    read_bytes,
    remove_tree,
    replace_bytes,
    size_of,
)

VERSIONS = ".versions"
_MARK = ".commit.json"


@dataclass(frozen=True)
class FileStore:
    """The partitions of one asset as files of `<data root>/<asset>/`."""

    data_root: Place
    asset: str

    def path(self, name: str = "") -> Place:
        """Where people find a stored file, or the asset's folder."""
        return self.data_root / self.asset / name if name else self.data_root / self.asset

    def folder(self, key: str) -> Place:
        """The folder of a partition's versions."""
        return self.path(VERSIONS) / key

    def state_of(self, key: str) -> Stored:
        """What is stored of a partition, and which of its files are not those that were committed."""
        return look_until_settled(lambda: self._look_at(key))

    def _look_at(self, key: str) -> Stored:
        content = read_bytes(self._mark(key))
        if content is None:
            return Stored()
        try:
            mark = json.loads(content)
        except ValueError:
            return Stored(damage="its commit mark cannot be read")
        stored = judge_mark(mark)
        for name, digest in stored.commit.files.items() if stored.commit is not None else ():
            data = read_bytes(self.folder(key) / stored.version / name)
            if data is None or hashlib.sha256(data).hexdigest() != digest:
                damage = f"{name} {'is gone' if data is None else 'is not what was written'}"
                return replace(stored, commit=None, damage=damage)
        return stored

    def marked_version(self, key: str) -> str:
        """The version that a partition's mark points to, whatever is wrong with it; empty where there is no mark."""
        return self.state_of(key).version

    def public_files(self, key: str) -> list[Place]:
        """What lies beside a partition's versions: its mark, and its files as people find them."""
        commit = self.commit_of(key)
        return [self._mark(key), *(self.path(name) for name in (commit.files if commit is not None else ()))]

    def commit_of(self, key: str) -> Commit | None:
        """The commit mark of a partition, or None where it is absent or a file is not the one that was committed."""
        return self.state_of(key).commit

    def read(self, key: str, name: str) -> bytes:
        """A committed file's content."""
        return self.fetch(key, name).read_bytes()

    def verify(self, key: str) -> int:
        """Compares a partition's files with what was committed; how many partitions there are, 0 or 1.

        Raises:
            DamagedError: one is not what was written, or gone.
        """
        stored = self.state_of(key)
        if stored.damage:
            raise DamagedError(self.asset, key, stored.damage)
        return int(stored.commit is not None)

    def fetch(self, key: str, name: str) -> Path:
        """A committed file on this machine: itself, or a copy where the store is an object store.

        Raises:
            StoreError: nothing complete is stored under that key, or it has no such file.
        """
        stored = self.state_of(key)
        if stored.commit is None and stored.damage:
            raise DamagedError(self.asset, key, stored.damage)
        if stored.commit is None or name not in stored.commit.files:
            named = f" named {name}" if stored.commit is not None else ""
            raise StoreError(f"{self.asset} has nothing stored for {key!r}{named}")
        return self._local(self._stored(key, stored.commit, name), stored.commit.files[name])

    def published(self, key: str, name: str) -> tuple[Path, bool]:
        """What people open under a name, whatever it is: a file on this machine, and whether it is the committed one.

        Raises:
            StoreError: there is no such file.
        """
        data, commit = read_bytes(self.path(name)), self.commit_of(key)
        if data is None:
            raise StoreError(f"{self.asset} has no file {name}")
        digest = hashlib.sha256(data).hexdigest()
        return self._local(self.path(name), digest), commit is not None and commit.files.get(name) == digest

    def publish(self, key: str) -> None:
        """Mends the files that people open, where they are not what was committed."""
        commit = self.commit_of(key)
        for name in commit.files if commit is not None else ():
            assert commit is not None
            stored, public = self._stored(key, commit, name), self.path(name)
            if isinstance(stored, Path) and isinstance(public, Path):
                if not (public.exists() and public.samefile(stored)):
                    _link(stored, public)
            elif size_of(public) != size_of(stored) or read_bytes(public) != read_bytes(stored):
                replace_bytes(public, stored.read_bytes())

    def write(
        self,
        key: str,
        fingerprint: str,
        *,
        files: Mapping[str, bytes],
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        metrics: Mapping[str, Any],
        code: str = "",
    ) -> None:
        """Replaces a partition's files. On an error the old ones stay.

        Where another run has committed the same fingerprint meanwhile, that one stays, as for `ZarrStore.write`.
        """
        before, version = self.state_of(key), new_version()
        folder = self.folder(key) / version
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        try:
            for name, data in files.items():
                replace_bytes(folder / name, data)
            now = self.state_of(key)
            if is_done_already(before, now, fingerprint):
                remove_tree(folder)
                return
            commit = Commit(fingerprint, dict(settings), dict(inputs), dict(metrics), code, version, digests)
            replace_bytes(self._mark(key), json.dumps(commit.sealed(), indent=1, sort_keys=True).encode())
        except BaseException:
            remove_tree(folder)
            raise
        self.publish(key)
        if now.version:
            remove_tree(self.folder(key) / now.version)
        for name in now.commit.files.keys() - files.keys() if now.commit is not None else ():
            with suppress(FileNotFoundError):
                self.path(name).unlink()

    def withdraw(self, key: str, damage: str) -> None:
        """Nothing to do: files are compared with the mark whenever they are looked at."""

    def _mark(self, key: str) -> Place:
        return self.path(f"{key}{_MARK}")

    def _local(self, place: Place, digest: str) -> Path:
        """A file itself, or where it lies on an object store a copy that is known by its content's hash."""
        if isinstance(place, Path):
            return place
        copy = cache_folder(self.data_root) / "files" / digest / place.name
        if size_of(copy) is None:
            replace_bytes(copy, place.read_bytes())
        return copy

    def _stored(self, key: str, commit: Commit, name: str) -> Place:
        return self.folder(key) / commit.version / name


def _link(stored: Path, public: Path) -> None:
    """Gives a file a second name, in place of whatever had it; a copy where the file system has no links."""
    public.parent.mkdir(parents=True, exist_ok=True)
    partial = public.with_name(f".{public.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    try:
        try:
            os.link(stored, partial)
        except OSError:
            shutil.copyfile(stored, partial)
        partial.replace(public)
    finally:
        partial.unlink(missing_ok=True)

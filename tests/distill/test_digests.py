"""A remembered digest is always that of the present content, whatever was done to the file."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import digests
from lvdd_assets.distill.digests import DigestCache, FileDigest


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test remember files that it has just written."""
    monkeypatch.setattr(digests, "_UNSETTLED_SECONDS", -1.0)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_sizes(cache: DigestCache, *paths: Path) -> list[int]:
    """Which sizes were really read from disk."""
    sizes: list[int] = []
    cache.digests(paths, progress=sizes.append)
    return sizes


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / name for name in ("a", "b", "folder", "nothing")]
    found = DigestCache(tmp_path / "cache" / "digests.sqlite").digests(paths, num_threads=2)
    assert list(found) == paths or set(found) == set(paths)
    assert found[paths[0]] == FileDigest(_sha256(b"one"), 3, paths[0].stat().st_mtime_ns)
    assert found[paths[1]].sha256 == _sha256(b"")
    assert found[paths[2]] is None
    assert found[paths[3]] is None


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_read_once_by_any_process(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    database = tmp_path / "digests.sqlite"
    assert _read_sizes(DigestCache(database), path) == [3]
    assert _read_sizes(DigestCache(database), path) == []
    code = (
        "import sys, pathlib; from lvdd_assets.distill.digests import DigestCache\n"
        "found = DigestCache(pathlib.Path(sys.argv[1])).digests([pathlib.Path(sys.argv[2])], progress=print)\n"
        "print(*[digest.sha256 for digest in found.values()])"
    )
    other = subprocess.run([sys.executable, "-c", code, database, path], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [_sha256(b"one")]


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """Two changes within the clock's grain leave the same size and times: only old files can be told apart by them."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    cache = DigestCache(tmp_path / "digests.sqlite")
    assert _read_sizes(cache, path) == [3]
    assert _read_sizes(cache, path) == [3]
    future = time.time() + 3600
    os.utime(path, (future, future))
    assert _read_sizes(cache, path) == [3]
    assert _read_sizes(cache, path) == [3]


@pytest.mark.usefixtures("settled")
def test_the_old_time_of_change_given_back_deceives_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    stat = path.stat()
    cache = DigestCache(tmp_path / "digests.sqlite")
    cache.digests([path])
    time.sleep(0.02)  # beyond the grain of the kernel's clock, which `settled` does not wait for
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert cache.digests([path])[path].sha256 == _sha256(b"two")


OPERATIONS = ("write", "write and restore time", "replace", "replace and restore time", "truncate", "delete", "touch")


@pytest.mark.usefixtures("settled")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 1), st.sampled_from([b"abc", b"abd", b"xyz"])), max_size=8
    )
)
def test_the_cache_is_right_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bytes]]
) -> None:
    """After each of many changes, the cache says the same as reading the files would."""
    folder = tmp_path_factory.mktemp("history")
    paths = [folder / "a", folder / "b"]
    cache = DigestCache(folder / "digests.sqlite")
    for operation, index, data in steps:
        _change(paths[index], operation, data)
        time.sleep(0.012)
        found = cache.digests(paths)
        for path in paths:
            expected = _sha256(path.read_bytes()) if path.exists() else None
            assert (found[path].sha256 if found[path] else None) == expected


def _change(path: Path, operation: str, data: bytes) -> None:
    old = path.stat() if path.exists() else None
    if operation == "delete":
        path.unlink(missing_ok=True)
    elif operation == "truncate":
        path.write_bytes(data[:1])
    elif operation == "touch":
        path.touch()
    elif operation.startswith("replace"):
        other = path.with_name("new")
        other.write_bytes(data)
        other.replace(path)
    else:
        path.write_bytes(data)
    if operation.endswith("restore time") and old is not None:
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


@pytest.mark.usefixtures("settled")
def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path: Path) -> None:
    path, database = tmp_path / "a", tmp_path / "digests.sqlite"
    path.write_bytes(b"one")
    for content in (b"this is no database at all" * 100, b""):
        database.write_bytes(content)
        assert DigestCache(database).digests([path])[path].sha256 == _sha256(b"one")
        assert _read_sizes(DigestCache(database), path) == []
    database.unlink()
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE digests (something TEXT)")
    assert DigestCache(database).digests([path])[path].sha256 == _sha256(b"one")


def test_a_digest_knows_whether_it_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    digest = DigestCache(tmp_path / "digests.sqlite").digests([path])[path]
    assert digest.still_holds(path)
    os.utime(path, ns=(1, 1))
    assert not digest.still_holds(path)
    path.unlink()
    assert not digest.still_holds(path)


def test_many_files_and_two_writers(tmp_path: Path) -> None:
    paths = []
    for index in range(1200):
        path = tmp_path / f"{index:04d}"
        path.write_bytes(str(index).encode())
        os.utime(path, ns=(1, 1))
        paths.append(path)
    code = (
        "import sys, pathlib; from lvdd_assets.distill import digests\n"
        "digests._UNSETTLED_SECONDS = -1\n"
        "paths = sorted(pathlib.Path(sys.argv[2]).glob('[0-9]*'))\n"
        "found = digests.DigestCache(pathlib.Path(sys.argv[1])).digests(paths, num_threads=2)\n"
        "print(len(found))"
    )
    command = [sys.executable, "-c", code, tmp_path / "digests.sqlite", tmp_path]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [writer.communicate(timeout=60)[0].strip() for writer in writers] == ["1200", "1200"]
    found = DigestCache(tmp_path / "digests.sqlite").digests(paths)
    assert all(found[path].sha256 == _sha256(path.name.lstrip("0").encode() or b"0") for path in paths)

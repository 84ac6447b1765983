"""Plain files are stored whole or not at all, and people find them under stable names."""

import os
import threading
from pathlib import Path

import pytest

from lvdd_assets.distill.commits import DamagedError, StoreError
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.places import read_bytes

NOTHING = {"settings": {}, "inputs": {}, "metrics": {}}


def test_files_are_committed_with_their_hashes(tmp_path: Path) -> None:
    store = FileStore(tmp_path, "release")
    store.write("demo", "f1", files={"demo.zip": b"one"}, settings={"s": 1}, inputs={}, metrics={"m": [1]}, code="c")
    commit = store.commit_of("demo")
    assert (commit.fingerprint, commit.settings, commit.metrics, commit.code) == ("f1", {"s": 1}, {"m": [1]}, "c")
    assert store.path("demo.zip").read_bytes() == b"one" == store.read("demo", "demo.zip")
    with pytest.raises(StoreError, match=r"nothing stored for 'demo' named other\.zip"):
        store.read("demo", "other.zip")
    with pytest.raises(StoreError, match="nothing stored for 'else'"):
        store.read("else", "demo.zip")


def test_a_file_that_somebody_changed_is_named_and_never_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path, "release")
    store.write("demo", "f1", files={"demo.zip": b"one"}, **NOTHING)
    store.path("demo.zip").write_bytes(b"other")
    assert store.state_of("demo").damage == "demo.zip is not what was written"
    with pytest.raises(DamagedError, match=r"release demo is damaged: demo\.zip is not what was written"):
        store.read("demo", "demo.zip")
    store.write("demo", "f1", files={"demo.zip": b"one"}, **NOTHING)
    assert store.commit_of("demo").fingerprint == "f1"
    next(store.folder("demo").iterdir()).joinpath("demo.zip").unlink()
    assert store.state_of("demo").damage == "demo.zip is gone"


def test_what_people_open_is_mended(tmp_path: Path) -> None:
    """Deleted or replaced under its public name, it is still stored."""
    store = FileStore(tmp_path, "release")
    store.write("demo", "f1", files={"demo/a": b"1", "demo/b": b"2"}, **NOTHING)
    store.path("demo/a").unlink()
    store.path("demo/b").unlink()
    store.path("demo/b").write_bytes(b"a stranger's")
    assert store.read("demo", "demo/b") == b"2"
    store.publish("demo")
    assert [store.path(f"demo/{name}").read_bytes() for name in "ab"] == [b"1", b"2"]


def test_new_files_replace_the_old_and_leave_nothing_of_them(tmp_path: Path) -> None:
    store = FileStore(tmp_path, "eval_report")
    store.write("demo", "f1", files={"demo/a": b"1", "demo/old": b"1"}, **NOTHING)
    store.write("demo", "f2", files={"demo/a": b"2"}, **NOTHING)
    assert store.path("demo/a").read_bytes() == b"2"
    assert not store.path("demo/old").exists()
    assert len(list(store.folder("demo").iterdir())) == 1
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_an_error_at_any_file_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    store = FileStore(tmp_path, "eval_report")
    store.write("demo", "f1", files={"demo/a": b"1", "demo/b": b"1"}, **NOTHING)
    replaced: list[Path] = []
    original = Path.replace

    def dying(self: Path, target: Path) -> Path:
        if len(replaced) == fails_at:
            raise OSError("disk full")
        replaced.append(Path(target))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(OSError, match="disk full"):
        store.write("demo", "f2", files={"demo/a": b"2", "demo/b": b"2"}, **NOTHING)
    monkeypatch.undo()
    assert store.commit_of("demo").fingerprint == "f1"
    assert [store.path(f"demo/{name}").read_bytes() for name in "ab"] == [b"1", b"1"]
    assert [store.read("demo", f"demo/{name}") for name in "ab"] == [b"1", b"1"]
    assert len(list(store.folder("demo").iterdir())) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_that_died_before_publishing_is_published_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path, "release")
    store.write("demo", "f1", files={"demo.zip": b"one"}, **NOTHING)
    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.write("demo", "f2", files={"demo.zip": b"two"}, **NOTHING)
    assert store.read("demo", "demo.zip") == b"two"
    assert store.path("demo.zip").read_bytes() == b"one"
    store.publish("demo")
    assert store.path("demo.zip").read_bytes() == b"two"


def test_a_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    """Two files that must agree, replaced a hundred times while they are read."""
    store = FileStore(tmp_path, "eval_report")
    store.write("demo", "0", files={"demo/a": b"0", "demo/b": b"0"}, **NOTHING)
    stop = threading.Event()

    def write() -> None:
        for turn in range(1, 101):
            data = str(turn).encode()
            store.write("demo", str(turn), files={"demo/a": data, "demo/b": data}, **NOTHING)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    num_read = 0
    while not stop.is_set() or num_read == 0:
        commit = store.commit_of("demo")
        assert commit is not None
        folder = store.folder("demo") / commit.version
        try:
            pair = [(folder / f"demo/{name}").read_bytes() for name in "ab"]
        except FileNotFoundError:
            continue
        assert pair == [commit.fingerprint.encode()] * 2
        num_read += 1
    writer.join()
    assert store.read("demo", "demo/a") == b"100"


def test_what_a_writer_sweeps_between_mark_and_files_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, waiting = FileStore(tmp_path, "release"), ["f2"]
    store.write("demo", "f1", files={"demo.zip": b"f1"}, **NOTHING)

    def after_a_writer(place: Path) -> bytes | None:
        if place.name == "demo.zip" and waiting:
            store.write("demo", waiting.pop(), files={"demo.zip": b"f2"}, **NOTHING)
        return read_bytes(place)

    monkeypatch.setattr("lvdd_assets.distill.file_stores.read_bytes", after_a_writer)
    stored = store.state_of("demo")
    assert (stored.damage, stored.commit.fingerprint) == ("", "f2")


def test_without_links_people_find_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    store = FileStore(tmp_path, "release")
    store.write("demo", "f1", files={"demo.zip": b"one"}, **NOTHING)
    assert store.path("demo.zip").read_bytes() == b"one"


def test_a_damaged_mark_counts_as_nothing_stored(tmp_path: Path) -> None:
    store = FileStore(tmp_path, "release")
    store.write("demo", "f1", files={"demo.zip": b"one"}, **NOTHING)
    mark = store.path("demo.commit.json")
    good = mark.read_text()
    for text in ("", "{", "[]", '{"surprise": 1}', good.replace('"f1"', '"f2"'), good.replace("seal", "sea1")):
        mark.write_text(text)
        assert store.commit_of("demo") is None
        assert store.state_of("demo").damage.startswith("its commit mark")
    mark.write_text(good)
    assert store.commit_of("demo").fingerprint == "f1"

"""What dead runs have left is found and can go; what is stored or being written never goes."""

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from lvdd_assets.distill.commits import new_version
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.leftovers import Leftover, find_leftovers
from lvdd_assets.distill.stores import ZarrStore

KEYS = {"demo", "demo/run", "demo/jump"}
DAY = 86400.0


def _write(store: ZarrStore | FileStore, key: str, fingerprint: str = "f") -> None:
    arguments = {"settings": {}, "inputs": {}}
    if isinstance(store, FileStore):
        store.write(key, fingerprint, files={f"{key}/a": b"1"}, metrics={}, **arguments)
        return
    with store.write(key, fingerprint, **arguments) as out:
        out.append("clips", np.ones((3, 4), np.uint8))


def _find(store: ZarrStore | FileStore, **options: float) -> list[Leftover]:
    return list(find_leftovers(store, KEYS.__contains__, **{"older_than": DAY, **options}))


@pytest.fixture(params=[ZarrStore, FileStore])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ZarrStore | FileStore:
    store = request.param(tmp_path, "latents")
    _write(store, "demo")
    return store


def _killed_writer(store: ZarrStore | FileStore, key: str) -> None:
    """A process that dies in the middle of writing."""
    code = f"""
    import os, signal
    from pathlib import Path
    from lvdd_assets.distill import commits, places
    from lvdd_assets.distill.{type(store).__module__.rpartition(".")[2]} import {type(store).__name__}
    store = {type(store).__name__}(Path({str(store.data_root)!r}), "latents")
    places.replace_bytes(store.folder({key!r}) / commits.new_version() / "half", b"123456")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == -9


def test_a_clean_store_has_none(store: ZarrStore | FileStore) -> None:
    _write(store, "demo", "g")
    assert _find(store) == []


def test_what_a_killed_writer_left_goes_and_nothing_else(store: ZarrStore | FileStore) -> None:
    _killed_writer(store, "demo")
    found = _find(store)
    assert [(one.kind, one.num_bytes, one.why) for one in found] == [("unfinished", 6, "its writer has ended")]
    assert store.commit_of("demo") is not None
    for one in found:
        one.remove()
        one.remove()  # gone already
    assert _find(store) == []
    assert store.verify("demo") == 1


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    with store.write("demo/run", "f", settings={}, inputs={}) as out:
        out.append("clips", np.ones((3, 4), np.uint8))
        assert _find(store, older_than=0.0, now=time.time() + 10 * DAY) == []
    assert store.verify("demo/run") == 1


def test_what_another_machine_began_stays_until_it_is_old(store: ZarrStore | FileStore) -> None:
    parts = new_version().split("-")
    folder = store.folder("demo") / "-".join([parts[0], "0" * 8, *parts[2:]])
    folder.mkdir()
    (folder / "chunk").write_bytes(b"12")
    assert _find(store) == []
    found = _find(store, now=time.time() + 2 * DAY)
    assert [(one.place, one.num_bytes) for one in found] == [(folder, 2)]
    assert "begun elsewhere, unchanged for 2.0 days" in found[0].why
    # Under a clock that was set back it looks younger, and stays.
    assert _find(store, now=time.time() - 10 * DAY) == []


def test_a_writer_that_committed_and_ended_meanwhile_is_none(
    store: ZarrStore | FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is looked at after the writer was found dead, not before."""
    from lvdd_assets.distill import leftovers

    _killed_writer(store, "demo")

    def commits_and_ends(version: str) -> bool:
        """Between the listing of versions and the look at the mark, this very version is committed."""
        mark = replace(store.commit_of("demo"), version=version, files={}, chunks={}).sealed()
        if isinstance(store, FileStore):
            store.path("demo.commit.json").write_text(json.dumps(mark))
        else:
            zarr.open_group(store.path, path="demo", mode="r+").attrs.put({"key": "demo", "commit": mark})
        return False

    monkeypatch.setattr(leftovers, "writer_lives", commits_and_ends)
    (half,) = Path(store.folder("demo")).glob("*/half")
    assert half.parent not in [one.place for one in _find(store)]


def test_half_a_file_goes_after_an_hour(tmp_path: Path) -> None:
    store = FileStore(tmp_path, "release")
    _write(store, "demo")
    half = store.path(".demo.commit.json.0123456789ab.partial")
    half.write_bytes(b"12345")
    assert _find(store) == []
    os.utime(half, (time.time() - 2 * 3600,) * 2)
    (found,) = _find(store)
    assert (found.place, found.num_bytes) == (half, 5)
    found.remove()
    assert not half.exists()
    assert store.verify("demo") == 1


def test_partitions_that_no_registry_has_are_told_apart(store: ZarrStore | FileStore) -> None:
    _write(store, "other")
    found = _find(store)
    assert [(one.kind, one.why) for one in found] == [("unregistered", "latents other is in no registry")]
    found[0].remove()
    assert store.verify("demo") == 1
    assert store.verify("other") == 0


def test_a_class_that_is_gone_takes_no_other_with_it(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    for key in ("demo", "demo/run", "demo/An odd NAME"):
        _write(store, key)
    (found,) = _find(store)
    assert found.why == "latents demo/An odd NAME is in no registry"
    found.remove()
    assert [store.verify(key) for key in ("demo", "demo/run", "demo/An odd NAME")] == [1, 1, 0]

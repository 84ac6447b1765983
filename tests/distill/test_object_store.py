"""The stores on a server that speaks S3: commits, readers, concurrent writers, caches, leftovers."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill.commits import DamagedError
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.leftovers import find_leftovers
from lvdd_assets.distill.places import Place, folders_in, parse_place, replace_bytes, sizes_below
from lvdd_assets.distill.stores import ZarrStore
from tests.s3_server import s3_server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a bucket on a server of its own process, and the environment that names it."""
    with s3_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def root(bucket: str, tmp_path: Path) -> Place:
    return parse_place(f"{bucket}/{tmp_path.name}/root")


def _write(store: ZarrStore, key: str, value: int) -> None:
    with store.write(key, f"print-{value}", settings={"a": value}, inputs={}) as out:
        out.append("clips", np.full((5, 2, 3), value, dtype=np.uint8))
        out.put("items", np.arange(value))


def test_arrays_are_committed_replaced_and_verified(root: Place) -> None:
    store = ZarrStore(root, "latents")
    assert store.commit_of("demo/A class") is None
    _write(store, "demo/A class", 7)
    _write(store, "demo/A class", 8)
    partition = store.open("demo/A class")
    assert (partition.read("clips") == 8).all()
    assert partition.read("clips", np.array([4, 0])).shape == (2, 2, 3)
    assert store.verify("demo/A class") == 1
    assert folders_in(store.folder("demo/A class")) == [partition.commit.version]


def test_damage_is_named(root: Place) -> None:
    store = ZarrStore(root, "latents")
    _write(store, "demo/run", 7)
    folder = store.folder("demo/run") / store.commit_of("demo/run").version
    chunk = folder / "clips/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[3] ^= 4
    replace_bytes(chunk, bytes(data))
    with pytest.raises(DamagedError, match="clips/c/0/0/0 is not what was written"):
        store.verify("demo/run")
    chunk.unlink()
    with pytest.raises(DamagedError, match="clips/c/0/0/0 is gone"):
        store.open("demo/run").read("clips")


def test_a_reader_beside_a_writer_sees_the_old_or_the_new(root: Place) -> None:
    from lvdd_assets.distill.commits import ReplacedError

    store, stop = ZarrStore(root, "latents"), threading.Event()
    _write(store, "demo/run", 1)

    def write() -> None:
        for value in range(2, 12):
            _write(store, "demo/run", value)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    num_read = 0
    while not stop.is_set():
        try:
            partition = store.open("demo/run")
            data = partition.read("clips")
        except ReplacedError:
            continue
        assert (data == int(partition.commit.fingerprint.removeprefix("print-"))).all()
        num_read += 1
    writer.join()
    assert num_read > 0
    assert (store.open("demo/run").read("clips") == 11).all()


def test_files_are_committed_published_and_fetched(root: Place) -> None:
    store = FileStore(root, "release")
    store.write("demo", "f1", files={"demo.zip": b"one"}, settings={}, inputs={}, metrics={})
    store.write("demo", "f2", files={"demo.zip": b"three"}, settings={}, inputs={}, metrics={})
    assert store.path("demo.zip").read_bytes() == b"three"
    local = store.fetch("demo", "demo.zip")
    assert isinstance(local, Path)
    assert local.read_bytes() == b"three"
    assert store.fetch("demo", "demo.zip") == local
    store.path("demo.zip").unlink()
    store.publish("demo")
    assert store.path("demo.zip").read_bytes() == b"three"
    assert store.verify("demo") == 1


def test_what_another_process_stored_is_seen_at_once(root: Place) -> None:
    """No listing is remembered."""
    store = ZarrStore(root, "latents")
    _write(store, "demo/run", 1)
    assert store.verify("demo/run") == 1
    code = (
        "import numpy as np\n"
        "from lvdd_assets.distill.places import parse_place\n"
        "from lvdd_assets.distill.stores import ZarrStore\n"
        f"store = ZarrStore(parse_place({str(root)!r}), 'latents')\n"
        "for key in ('demo/run', 'demo/jump'):\n"
        "    with store.write(key, 'theirs', settings={}, inputs={}) as out:\n"
        "        out.append('clips', np.full((5, 2, 3), 9, dtype=np.uint8))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
    for key in ("demo/run", "demo/jump"):
        assert (store.open(key).read("clips") == 9).all()
        assert store.commit_of(key).fingerprint == "theirs"


def test_a_dead_writer_s_version_is_found(root: Place) -> None:
    store = ZarrStore(root, "latents")
    _write(store, "demo/run", 1)
    code = "from lvdd_assets.distill.commits import new_version; print(new_version())"
    version = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    replace_bytes(store.folder("demo/run") / version / "clips/c/0/0/0", b"123")
    (found,) = find_leftovers(store, lambda _: True, older_than=86400.0)
    assert (found.place.name, found.num_bytes, found.why) == (version, 3, "its writer has ended")
    found.remove()
    assert version not in " ".join(sizes_below(store.path))
    assert store.verify("demo/run") == 1

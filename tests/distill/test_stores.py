"""A partition is stored whole or not at all."""

import multiprocessing
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import stores
from lvdd_assets.distill.commits import Commit, DamagedError, ReplacedError, StoreError
from lvdd_assets.distill.places import folders_in, parse_place
from lvdd_assets.distill.stores import ZarrStore


def _write(store: ZarrStore, key: str, value: int, rows: int = 5) -> None:
    with store.write(key, f"print-{value}", settings={"a": value}, inputs={"up": "x"}) as out:
        out.append("clips", np.full((rows, 2, 3), value, dtype=np.uint8))
        out.put("items", np.arange(value))
        out.metrics = {"num_clips": rows}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/run", 7)
    partition = store.open("demo/run")
    assert partition.commit.fingerprint == "print-7"
    assert (partition.commit.settings, partition.commit.inputs) == ({"a": 7}, {"up": "x"})
    assert partition.commit.metrics == {"num_clips": 5}
    assert (partition.read("clips") == 7).all()
    assert partition.read("items").tolist() == list(range(7))
    assert partition.read("clips", slice(1, 3)).shape == (2, 2, 3)
    assert partition.read("clips", np.array([4, 0])).shape == (2, 2, 3)
    assert partition.num_rows("clips") == 5
    assert partition.num_rows("absent") == 0


def test_appending_in_any_portions_gives_the_same_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_SHARD_BYTES", 64 * 4)
    rows = np.random.default_rng(0).integers(0, 255, size=(150, 2, 2)).astype(np.uint8)
    store = ZarrStore(tmp_path, "raw_clips")
    for key, size in [("demo/a", 1), ("demo/b", 64), ("demo/c", 149)]:
        with store.write(key, "f", settings={}, inputs={}) as out:
            for start in range(0, 150, size):
                out.append("train", rows[start : start + size])
        np.testing.assert_array_equal(store.open(key).read("train"), rows)
        assert sum(len(part) for part in store.open(key).batches("train", 40)) == 150
    files = [
        path for path in (tmp_path / "raw_clips.zarr/demo/a").rglob("*") if "train/c/" in str(path) and path.is_file()
    ]
    assert len(files) == 3  # 150 clips of 4 bytes in shards of 64


@pytest.mark.parametrize("row", [np.zeros((2, 1), np.uint8), np.zeros((1, 2), np.float32), np.zeros(2, np.uint8)])
def test_rows_of_another_shape_or_type_are_refused(tmp_path: Path, row: np.ndarray) -> None:
    """None is stretched or rounded to fit."""
    store = ZarrStore(tmp_path, "raw_clips")
    with store.write("demo/a", "f", settings={}, inputs={}) as out:
        out.append("train", np.zeros((1, 1, 2), np.uint8))
        with pytest.raises(ValueError, match=r"expected uint8 \(1, 2\) as the rows before"):
            out.append("train", row[None])
    assert store.open("demo/a").num_rows("train") == 1


def test_a_class_is_a_handful_of_files(tmp_path: Path) -> None:
    """As many clips as a class of UCF101 has, of 16 frames at 112 pixels."""
    clip = np.zeros((1, 16, 3, 112, 112), np.uint8)
    store = ZarrStore(tmp_path, "raw_clips")
    with store.write("demo/a", "f", settings={}, inputs={}) as out:
        for index in range(140):
            out.append("train" if index < 100 else "test", clip)
    assert store.open("demo/a").num_rows("train") == 100
    assert sum(path.is_file() for path in (tmp_path / "raw_clips.zarr/demo/a").rglob("*")) <= 10


ODD_NAMES = [
    "jump",
    "Jump",
    "JUMP",
    "jump ",
    "a b",
    "a_b",
    "a/b",
    "a\\b",
    "..",
    ".",
    "../../outside",
    "/etc/passwd",
    "~",
    "100 %",
    "%2e%2e",
    "x, y",
    "tying knot (not on a tie)",
    "Pretending or trying and failing to twist something",
    "Crème brûlée",
    "Cre\u0300me bru\u0302le\u0301e",
    "日本語",
    "x" * 900,
    "x" * 899 + "y",
    "zarr.json",
    "__init__",
    "c",
    "v-000000000000",
]


def test_class_names_are_data_and_never_paths(tmp_path: Path) -> None:
    """Every name has a partition of its own, below its dataset's folder and on file systems that ignore case too."""
    root = tmp_path / "deep" / "data"
    store = ZarrStore(root, "latents")
    for index, name in enumerate(ODD_NAMES):
        _write(store, f"demo/{name}", index + 1)
    for index, name in enumerate(ODD_NAMES):
        assert store.open(f"demo/{name}").commit.fingerprint == f"print-{index + 1}"
        assert (store.open(f"demo/{name}").read("clips") == index + 1).all()
    folders = [path for path in (root / "latents.zarr/demo").iterdir() if path.is_dir()]
    assert len({path.name.lower() for path in folders}) == len(folders) == len(ODD_NAMES)
    assert all(len(path.name) <= 64 and path.name.isascii() for path in folders)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "latents.zarr/demo" not in path.as_posix()]
    assert sorted(path.name for path in outside) == ["zarr.json"]  # the store's own root
    assert sorted(zarr.open_group(path, mode="r").attrs["key"] for path in folders) == sorted(
        f"demo/{name}" for name in ODD_NAMES
    )


@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300), unique=True, max_size=20
    )
)
def test_no_two_names_share_a_group(names: list[str]) -> None:
    groups = [stores._group_name(f"demo/{name}") for name in names]
    assert len({group.lower() for group in groups}) == len(names)
    for group in groups:
        assert re.fullmatch(r"demo/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", group)
        assert ".." not in group


def test_a_group_of_another_key_is_nobody_s_partition(tmp_path: Path) -> None:
    """Should two names ever have one hash, neither is taken for the other."""
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/Run", 3)
    group = zarr.open_group(tmp_path / "latents.zarr", path=stores._group_name("demo/Run"), mode="r+")
    group.attrs["key"] = "demo/Other"
    assert store.commit_of("demo/Run") is None


def test_long_values_are_kept_beside_the_arrays(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "raw_clips")
    value = {"train": [{"file": "é/…", "start": 3}] * 1000, "missing": []}
    with store.write("demo/a", "f", settings={}, inputs={}) as out:
        out.put_json("files", value)
    assert store.open("demo/a").read_json("files") == value


def test_a_plain_zarr_reader_finds_everything_below_one_root(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/run", 3)
    _write(store, "demo/jump", 4)
    root = zarr.open_group(tmp_path / "latents.zarr", mode="r")
    assert sorted(root["demo"].keys()) == ["jump", "run"]
    version = root["demo/run"].attrs["commit"]["version"]
    assert (root[f"demo/run/{version}/clips"][...] == 3).all()


def test_nothing_is_stored_before_the_first_write(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    assert store.commit_of("demo/run") is None
    _write(store, "demo/jump", 1)
    assert store.commit_of("demo/run") is None
    assert store.commit_of("demo") is None
    with pytest.raises(StoreError, match="latents has nothing stored for 'demo/run'"):
        store.open("demo/run")


def test_an_error_leaves_the_old_partition_and_no_rubbish(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/run", 1)

    def fail() -> None:
        with store.write("demo/run", "new", settings={}, inputs={}) as out:
            out.append("clips", np.zeros((100, 2, 3), dtype=np.uint8))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert (store.open("demo/run").read("clips") == 1).all()
    assert len([path for path in (tmp_path / "latents.zarr/demo/run").iterdir() if path.is_dir()]) == 1


def test_a_rewrite_replaces_and_frees_the_old(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/run", 1)
    reader = store.open("demo/run")
    _write(store, "demo/run", 2)
    assert (store.open("demo/run").read("clips") == 2).all()
    assert len([path for path in (tmp_path / "latents.zarr/demo/run").iterdir() if path.is_dir()]) == 1
    # A reader from before gets an error, never zeros for what is gone.
    with pytest.raises(StoreError, match=r"replaced while it was read|no array"):
        reader.read("clips")


def test_a_killed_writer_leaves_the_old_partition(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/run", 1)
    script = textwrap.dedent(f"""
        import numpy as np, time
        from pathlib import Path
        from lvdd_assets.distill.stores import ZarrStore
        with ZarrStore(Path({str(tmp_path)!r}), "latents").write("demo/run", "new", settings={{}}, inputs={{}}) as out:
            out.append("clips", np.zeros((100, 2, 3), dtype=np.uint8))
            print("written", flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"written"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.commit_of("demo/run").fingerprint == "print-1"
    assert (store.open("demo/run").read("clips") == 1).all()
    _write(store, "demo/run", 2)
    assert (store.open("demo/run").read("clips") == 2).all()


def _write_one(folder: Path, class_name: str) -> None:
    _write(ZarrStore(folder, "latents"), f"demo/{class_name}", 3)


def test_classes_may_be_written_by_many_processes_at_once(tmp_path: Path) -> None:
    """All of them find neither the root nor the dataset's group at first."""
    names = [f"class_{index}" for index in range(4)]
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        with ProcessPoolExecutor(len(names), mp_context=multiprocessing.get_context("forkserver")) as pool:
            list(pool.map(_write_one, [folder] * len(names), names))
        store = ZarrStore(folder, "latents")
        assert all((store.open(f"demo/{name}").read("clips") == 3).all() for name in names)
        root = zarr.open_group(folder / "latents.zarr", mode="r")
        assert sorted(root["demo"].keys()) == names


def _files(store: ZarrStore, key: str) -> list[Path]:
    folder = store.folder(key) / store.commit_of(key).version
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partition of an array in several shards, one that compresses to next to nothing, a small one, an empty one."""
    root = tmp_path_factory.mktemp("stored")
    rows = np.random.default_rng(0).integers(0, 255, size=(9, 4, 5)).astype(np.uint8)
    with (
        pytest.MonkeyPatch.context() as patched,
        ZarrStore(root, "raw_clips").write("demo/a", "f", settings={}, inputs={}) as out,
    ):
        patched.setattr(stores, "_SHARD_BYTES", 4 * 20)
        out.append("train", rows)
        out.append("test", np.zeros((5, 4, 5), np.uint8))
        out.put("items", np.arange(7))
        out.put("none", np.arange(0))
        out.put("scalar", np.float64(0.5))
    return root


ARRAYS = ("train", "test", "items", "none", "scalar")


@settings(deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_named_or_changes_nothing(stored: Path, data: st.DataObject) -> None:
    store = ZarrStore(stored, "raw_clips")
    before = {name: store.open("demo/a").read(name) for name in ARRAYS}
    path = data.draw(st.sampled_from(_files(store, "demo/a")))
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        for name in ARRAYS:
            try:
                np.testing.assert_array_equal(store.open("demo/a").read(name), before[name])
            except DamagedError as error:
                assert error.damage.startswith((name, store.commit_of("demo/a").version)), error  # noqa: PT017
        if path.name != "zarr.json" or path.parent.name in ARRAYS:
            with pytest.raises(DamagedError, match=f"{path.parent.name if path.name == 'zarr.json' else 'c'}"):
                store.verify("demo/a")
    finally:
        path.write_bytes(good)
    assert store.verify("demo/a") == 1


@pytest.mark.parametrize("damage", ["gone", "cut", "grown"])
def test_a_file_that_is_gone_or_of_another_size_is_seen_before_anything_is_read(
    stored: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(stored, tmp_path / "root")
    store = ZarrStore(tmp_path / "root", "raw_clips")
    for path in _files(store, "demo/a"):
        if path.name == "zarr.json" and damage != "gone":
            continue  # headers are compared with their hash when they are read
        good = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(good[:-1] if damage == "cut" else good + b"\0")
        reads_group = path.parent.name == store.state_of("demo/a").version
        assert reads_group or store.commit_of("demo/a") is None
        with pytest.raises(DamagedError):
            store.open("demo/a")
        path.write_bytes(good)
    assert store.verify("demo/a") == 1


def test_a_chunk_that_goes_while_it_is_read_is_never_read_as_zeros(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "root")
    store = ZarrStore(tmp_path / "root", "raw_clips")
    partition = store.open("demo/a")
    first = next(path for path in _files(store, "demo/a") if "train/c/0" in path.as_posix())
    first.unlink()
    with pytest.raises(DamagedError, match=r"raw_clips demo/a is damaged: train/c/0/0/0 is gone"):
        partition.read("train")
    with pytest.raises(DamagedError):
        partition.read("train", np.array([8, 0]))
    assert partition.read("train", slice(4, 9)).shape == (5, 4, 5)  # other shards are whole


def test_a_withdrawn_partition_is_not_stored_and_keeps_its_settings(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    _write(store, "demo/run", 7)
    store.withdraw("demo/run", "a chunk is not what was written")
    state = store.state_of("demo/run")
    assert (state.commit, state.damage, state.settings) == (None, "a chunk is not what was written", {"a": 7})
    with pytest.raises(DamagedError, match="a chunk is not what was written"):
        store.open("demo/run")
    _write(store, "demo/run", 7)
    assert store.verify("demo/run") == 1
    assert len([path for path in (tmp_path / "latents.zarr/demo/run").iterdir() if path.is_dir()]) == 1
    store.withdraw("demo/jump", "never there")
    assert store.state_of("demo/jump").damage == ""


def test_of_two_writers_of_the_same_the_first_stays(tmp_path: Path) -> None:
    """Its reader reads on; the second leaves nothing behind."""
    store = ZarrStore(tmp_path, "latents")
    with store.write("demo/run", "print-5", settings={}, inputs={}) as slow:
        slow.append("clips", np.full((5, 2, 3), 5, dtype=np.uint8))
        _write(store, "demo/run", 5)
        reader = store.open("demo/run")
    assert (reader.read("clips") == 5).all()
    assert store.commit_of("demo/run").version == reader.commit.version
    assert len([path for path in (tmp_path / "latents.zarr/demo/run").iterdir() if path.is_dir()]) == 1


def test_of_two_writers_of_different_data_the_last_stays(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, "latents")
    with store.write("demo/run", "print-6", settings={}, inputs={}) as slow:
        slow.append("clips", np.full((5, 2, 3), 6, dtype=np.uint8))
        _write(store, "demo/run", 5)
        reader = store.open("demo/run")
    assert (store.open("demo/run").read("clips") == 6).all()
    with pytest.raises(ReplacedError, match="latents demo/run was replaced while it was read"):
        reader.read("clips")


def test_readers_see_the_old_or_the_new_while_a_writer_works(tmp_path: Path) -> None:
    store, stop = ZarrStore(tmp_path, "latents"), threading.Event()
    _write(store, "demo/run", 1)

    def write() -> None:
        for value in range(2, 40):
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
    assert (store.open("demo/run").read("clips") == 39).all()


def test_what_a_writer_sweeps_between_mark_and_files_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, waiting, look = ZarrStore(tmp_path, "latents"), [2], ZarrStore._missing
    _write(store, "demo/run", 1)

    def after_a_writer(self: ZarrStore, folder: Path, commit: Commit) -> str:
        if waiting:
            _write(store, "demo/run", waiting.pop())
        return look(self, folder, commit)

    monkeypatch.setattr(ZarrStore, "_missing", after_a_writer)
    assert (store.open("demo/run").read("clips") == 2).all()


def test_an_object_store_holds_the_same(tmp_path: Path) -> None:
    """The in-memory one; a server that speaks S3 is asked in test_object_store."""
    store = ZarrStore(parse_place(f"memory://{tmp_path.name}"), "latents")
    assert store.commit_of("demo/An odd name") is None
    _write(store, "demo/An odd name", 7)
    _write(store, "demo/An odd name", 8)
    assert (store.open("demo/An odd name").read("clips") == 8).all()
    assert store.verify("demo/An odd name") == 1
    versions = folders_in(store.folder("demo/An odd name"))
    assert versions == [store.commit_of("demo/An odd name").version]

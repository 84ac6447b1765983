"""Clips are read from real files, bad files are named, and a touched class is the only one recomputed."""

import shutil

import numpy as np

from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.video import read_clip
from tests.conftest import MakeChain, failure, metadata


def test_clips_of_both_splits_are_stored(make_chain: MakeChain) -> None:
    chain = make_chain()
    result = chain.materialize("raw_clips")
    assert chain.computed(result) == {"raw_clips tiny/grow", "raw_clips tiny/move_left"}
    partition = ZarrStore(chain.workspace.data_root, "raw_clips").open("tiny/grow")
    train, test = partition.read("train"), partition.read("test")
    assert (train.dtype, train.shape, test.shape) == (np.uint8, (5, 8, 3, 48, 48), (2, 8, 3, 48, 48))
    expected = read_clip(chain.videos / "train/grow/grow_003.mp4", ClipShape(8, 3, 48)).frames_TCHW
    np.testing.assert_array_equal(train[3], expected)
    shown = metadata(result, "raw_clips", "tiny/grow")
    assert (shown["num_train"], shown["num_test"], shown["num_excluded"], shown["cached"]) == (5, 2, 0, False)
    assert shown["train_file_bytes"] == sum(p.stat().st_size for p in (chain.videos / "train/grow").iterdir())
    assert shown["preview"].startswith("![preview](data:image/png;base64,")


def test_one_partition_alone(make_chain: MakeChain) -> None:
    chain = make_chain()
    assert chain.computed(chain.materialize("raw_clips", partition="tiny/grow")) == {"raw_clips tiny/grow"}


def test_a_second_run_computes_nothing(finished: MakeChain) -> None:
    chain = finished()
    result = chain.materialize("raw_clips")
    assert chain.computed(result) == set()
    assert metadata(result, "raw_clips", "tiny/grow")["cached"] is True


def test_bad_files_are_left_out_by_name(make_chain: MakeChain) -> None:
    chain = make_chain()
    folder = chain.videos / "train/grow"
    (folder / "grow_000.mp4").write_bytes(b"")
    (folder / "grow_001.mp4").write_text("<html>not found</html>")
    (folder / "directory.avi").mkdir()
    result = chain.materialize("raw_clips")
    assert result.success
    shown = metadata(result, "raw_clips", "tiny/grow")
    assert (shown["num_train"], shown["num_excluded"]) == (3, 2)
    assert "train/grow/grow_000.mp4" in shown["excluded"]
    assert "train/grow/grow_001.mp4" in shown["excluded"]


def test_a_class_without_usable_clips_is_an_error_and_costs_no_other(make_chain: MakeChain) -> None:
    chain = make_chain()
    for path in (chain.videos / "train/grow").iterdir():
        path.write_bytes(b"")
    result = chain.materialize("raw_clips")
    assert not result.success
    message = failure(result)
    assert "class 'grow' has no usable train clip: 5 files excluded" in message
    assert "1 finished and stored" in message
    store = ZarrStore(chain.workspace.data_root, "raw_clips")
    assert store.commit_of("tiny/grow") is None
    assert store.commit_of("tiny/move_left") is not None


def test_moving_a_clip_to_the_other_side_makes_the_class_stale(finished: MakeChain) -> None:
    chain = finished()
    shutil.move(chain.videos / "train/grow/grow_000.mp4", chain.videos / "test/grow/grow_009.mp4")
    assert chain.computed(chain.materialize("raw_clips")) == {"raw_clips tiny/grow"}


def test_a_missing_folder_says_what_to_do(make_chain: MakeChain) -> None:
    chain = make_chain(root="elsewhere")
    message = failure(chain.materialize("raw_clips"))
    assert "dataset 'tiny': no folder" in message
    assert "root" in message

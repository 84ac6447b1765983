"""Clips are read from real files, bad files are named, and a touched class is the only one recomputed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.assets.latents import LatentsConfig
from lvdd_assets.definitions import build_pipeline
from lvdd_assets.distill import digests
from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.video import read_clips
from lvdd_assets.resources import Workspace
from tests.conftest import MakeChain, failure, metadata


def test_clips_of_both_splits_are_stored(make_chain: MakeChain) -> None:
    chain = make_chain()
    result = chain.materialize("raw_clips")
    assert chain.computed(result) == {"raw_clips tiny/grow", "raw_clips tiny/move_left"}
    partition = ZarrStore(chain.workspace.data_root, "raw_clips").open("tiny/grow")
    train, test = partition.read("train"), partition.read("test")
    assert (train.dtype, train.shape, test.shape) == (np.uint8, (5, 8, 3, 48, 48), (2, 8, 3, 48, 48))
    expected = read_clips(chain.videos / "train/grow/grow_003.mp4", ClipShape(8, 3, 48), Sampling())[0].frames_TCHW
    np.testing.assert_array_equal(train[3], expected)
    shown = metadata(result, "raw_clips", "tiny/grow")
    assert (shown["num_train"], shown["num_test"], shown["num_excluded"], shown["cached"]) == (5, 2, 0, False)
    assert shown["train_file_bytes"] == sum(p.stat().st_size for p in (chain.videos / "train/grow").iterdir())
    assert shown["preview"].startswith("![preview](data:image/jpeg;base64,")


def test_one_partition_alone(make_chain: MakeChain) -> None:
    chain = make_chain()
    assert chain.computed(chain.materialize("raw_clips", partition="tiny/grow")) == {"raw_clips tiny/grow"}


def test_a_second_run_computes_nothing(finished: MakeChain) -> None:
    chain = finished()
    result = chain.materialize("raw_clips")
    assert chain.computed(result) == set()
    assert metadata(result, "raw_clips", "tiny/grow")["cached"] is True


def test_bad_files_are_left_out_by_name(make_chain: MakeChain) -> None:
    chain = make_chain(more="max_lost_share: 1")
    folder = chain.videos / "train/grow"
    (folder / "grow_000.mp4").write_bytes(b"")
    (folder / "grow_001.mp4").write_text("<html>not found</html>")
    (folder / "directory.avi").mkdir()
    result = chain.materialize("raw_clips")
    assert result.success
    shown = metadata(result, "raw_clips", "tiny/grow")
    assert (shown["num_train"], shown["num_excluded"]) == (3, 3)
    assert "| train/grow/directory.avi | a folder, not a file |" in shown["excluded"]
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


def test_the_sampling_is_the_registry_s(make_chain: MakeChain) -> None:
    chain = make_chain(more="sampling: random\nseed: 3\nclips_per_video: 2")
    result = chain.materialize("raw_clips")
    shown = metadata(result, "raw_clips", "tiny/grow")
    assert (shown["num_train"], shown["num_train_videos"], shown["num_test"]) == (10, 5, 2)
    partition = ZarrStore(chain.workspace.data_root, "raw_clips").open("tiny/grow")
    rows = partition.read_json("files")["train"]
    path = chain.videos / rows[2]["file"]
    expected = read_clips(path, ClipShape(8, 3, 48), Sampling("random", 3, 2), name=rows[2]["file"])
    assert [rows[2]["start"], rows[3]["start"]] == [clip.window.start for clip in expected]
    np.testing.assert_array_equal(partition.read("train", slice(2, 4)), [clip.frames_TCHW for clip in expected])
    # Another seed is another dataset.
    again = make_chain(more="sampling: random\nseed: 4\nclips_per_video: 2")
    assert chain.computed(again.materialize("raw_clips")) == {"raw_clips tiny/grow", "raw_clips tiny/move_left"}


def test_a_replaced_file_is_seen_and_an_unchanged_one_not_read_again(
    make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain()
    monkeypatch.setattr(digests, "_UNSETTLED_SECONDS", -1.0)
    assert chain.materialize("raw_clips").success
    read: list[str] = []
    original = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: read.append(path.name) or original(path))
    assert chain.computed(chain.materialize("raw_clips")) == set()
    assert read == []
    target = chain.videos / "train/grow/grow_002.mp4"
    target.write_bytes((chain.videos / "test/grow/grow_000.mp4").read_bytes())
    assert chain.computed(chain.materialize("raw_clips")) == {"raw_clips tiny/grow"}
    assert read == ["grow_002.mp4"]


UCF101 = """
datasets:
  ucf:
    root: UCF-101
    layout: ucf101
    split: official-1
    clip: 8x64
    stride: 3
    budget: {ipc: 1}
"""


def test_a_published_dataset_goes_through_the_first_two_assets(rendered_videos: Path, tmp_path: Path) -> None:
    """UCF101 as it is shipped, on its official split; a listed file that is absent is counted and stops nothing."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    names = {"grow": "HandStandPushups", "move_left": "Diving"}
    (lists / "classInd.txt").write_text("1 Diving\n2 HandstandPushups\n")
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for split, some in lines.items():
        for source, name in names.items():
            folder = tmp_path / "UCF-101" / name.replace("HandStand", "Handstand")
            folder.mkdir(parents=True, exist_ok=True)
            for index, path in enumerate(sorted((rendered_videos / split / source).iterdir())):
                clip = f"v_{name}_g{'08' if split == 'train' else '01'}_c{index + 1:02d}.avi"
                label = {"Diving": 1}.get(name, 2)
                some.append(f"{name}/{clip}" + (f" {label}" if split == "train" else ""))
                shutil.copy(path, folder / clip)
    lines["train"].append("Diving/v_Diving_g09_c01.avi 1")
    for split, some in lines.items():
        (lists / f"{split}list01.txt").write_text("\r\n".join(some) + "\r\n")
    (tmp_path / "datasets.yaml").write_text(UCF101)
    pipeline = build_pipeline(Workspace(tmp_path / "datasets.yaml", tmp_path / "data"))
    keys = ["ucf/Diving", "ucf/HandstandPushups"]
    metrics = [outcome.commit.metrics for outcome in pipeline.bring_up_to_date("raw_clips", keys, {})]
    assert [(item["num_train"], item["num_test"], item["num_missing"]) for item in metrics] == [(5, 2, 1), (5, 2, 0)]
    assert metrics[0]["missing"] == ["v_Diving_g09_c01.avi"]
    outcomes = pipeline.bring_up_to_date("latents", keys, LatentsConfig().model_dump())
    assert [outcome.cached for outcome in outcomes] == [False, False]
    for key in keys:
        clips = ZarrStore(tmp_path / "data", "raw_clips").open(key)
        assert clips.read("train").shape == (5, 8, 3, 64, 64)
        assert ZarrStore(tmp_path / "data", "latents").open(key).read("latents").shape == (5, 8, 4, 8, 8)

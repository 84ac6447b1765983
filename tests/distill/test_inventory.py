"""What is counted is what lies there."""

from pathlib import Path

from lvdd_assets.distill.inventory import take_inventory
from lvdd_assets.distill.registry import load_catalog
from tests.conftest import MakeChain

ENTRY = """
datasets:
  videos:
    root: videos
    layout: folders
    split: folders
    clip: 8x64
    budget: {ipc: 1}
"""


def test_an_absent_dataset_is_a_line_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "datasets.yaml").write_text(ENTRY)
    counts = take_inventory(load_catalog(tmp_path / "datasets.yaml").dataset("videos"), tmp_path / "data")
    assert counts.name == "videos"
    assert "no folder" in counts.problem
    assert counts.num_train == counts.num_classes == 0


def test_files_are_counted_by_side(tmp_path: Path) -> None:
    (tmp_path / "datasets.yaml").write_text(ENTRY)
    for name in ("train/run/a.mp4", "train/run/b.mp4", "train/jump/a.mp4", "test/run/c.mp4", "test/run/notes.txt"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "videos/train/run/folder.avi").mkdir()
    counts = take_inventory(load_catalog(tmp_path / "datasets.yaml").dataset("videos"), tmp_path / "data")
    assert (counts.num_classes, counts.num_train, counts.num_test) == (2, 3, 1)
    assert (counts.num_refused, counts.num_missing, counts.num_decoded) == (1, 0, 0)
    assert counts.published is None


def test_excluded_files_are_known_once_decoded(make_chain: MakeChain) -> None:
    chain = make_chain(more="max_lost_share: 1")
    (chain.videos / "train/grow/grow_000.mp4").write_bytes(b"")
    spec = chain.workspace.catalog().dataset("tiny")
    assert take_inventory(spec, chain.workspace.data_root).num_decoded == 0
    assert chain.materialize("raw_clips").success
    counts = take_inventory(spec, chain.workspace.data_root)
    assert (counts.num_decoded, counts.num_excluded, counts.num_train, counts.num_test) == (2, 1, 10, 4)

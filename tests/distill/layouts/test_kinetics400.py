"""Kinetics-400: rows of a table, files of which some are always missing."""

from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import CatalogError, Sampling
from lvdd_assets.distill.layouts import kinetics400
from lvdd_assets.distill.video import read_clips
from tests.distill.layouts.conftest import MakeSpec, MakeVideo

HEAD = "label,youtube_id,time_start,time_end,split\n"
TRAIN = (
    "playing ping pong,-a_b-C_d123,5,15,train\n"
    '"catching, or throwing",bbbbbbbbbbb,120,130,train\n'
    "playing ping pong,gone4ever00,0,10,train\n"
)
TEST = "playing ping pong,ccccccccccc,1000,1010,validate\n"


def _lists(folder: Path, train: str = HEAD + TRAIN, test: str = HEAD + TEST, test_name: str = "validate.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text(train)
    (folder / test_name).write_text(test)


def test_missing_files_are_counted(tmp_path: Path, make_spec: MakeSpec, make_video: MakeVideo) -> None:
    _lists(tmp_path / "videos/annotations")
    make_video(tmp_path / "videos/playing ping pong/-a_b-C_d123_000005_000015.mp4")
    make_video(tmp_path / "videos/playing ping pong/ccccccccccc_001000_001010.mp4")
    spec = make_spec("kinetics400")
    assert kinetics400.class_names(spec) == ("catching, or throwing", "playing ping pong")
    listing = kinetics400.list_class(spec, "playing ping pong")
    assert [(Path(clip.name).name, clip.is_test) for clip in listing.clips] == [
        ("-a_b-C_d123_000005_000015.mp4", False),
        ("ccccccccccc_001000_001010.mp4", True),
    ]
    assert listing.missing == ("gone4ever00_000000_000010.mp4",)
    assert kinetics400.list_class(spec, "catching, or throwing").missing == ("bbbbbbbbbbb_000120_000130.mp4",)
    assert read_clips(spec.root / listing.clips[0].name, spec.shape, Sampling())[0].num_source_frames == 10


@pytest.mark.parametrize("folder", ["playing ping pong", "playing_ping_pong", "train/playing ping pong", "train", ""])
def test_the_forms_in_which_copies_come(tmp_path: Path, make_spec: MakeSpec, folder: str) -> None:
    _lists(tmp_path, test_name="val.csv")
    path = tmp_path / "videos" / folder / "-a_b-C_d123_000005_000015.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    listing = kinetics400.list_class(make_spec("kinetics400"), "playing ping pong")
    assert [tmp_path / "videos" / clip.name for clip in listing.clips] == [path]


def test_tables_as_they_are_found(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / "videos").mkdir()
    train = "\ufeff" + (HEAD.strip() + ",is_cc\n" + TRAIN.replace("train\n", "train,0\n") + "\n").replace("\n", "\r\n")
    _lists(tmp_path, train=train)
    assert len(kinetics400.list_class(make_spec("kinetics400"), "playing ping pong").missing) == 3


def test_a_video_on_both_sides_is_a_test_clip_only(tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / "videos").mkdir()
    _lists(tmp_path, train=HEAD + TRAIN + "playing ping pong,ccccccccccc,50,60,train\n")
    path = tmp_path / "videos" / "ccccccccccc_001000_001010.mp4"
    path.touch()
    (tmp_path / "videos" / "ccccccccccc_000050_000060.mp4").touch()
    listing = kinetics400.list_class(make_spec("kinetics400"), "playing ping pong")
    assert [(clip.name, clip.is_test) for clip in listing.clips] == [("ccccccccccc_001000_001010.mp4", True)]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("id,start\n", "train.csv, line 1.*expected the columns label, youtube_id"),
        (HEAD + "x,y,1\n", "train.csv, line 2"),
        (HEAD + "x,yyyyyyyyyyy,soon,later,train\n", "line 2: got 'soon', expected a time"),
    ],
)
def test_malformed_tables_name_the_line(tmp_path: Path, make_spec: MakeSpec, train: str, message: str) -> None:
    (tmp_path / "videos").mkdir()
    _lists(tmp_path, train=train)
    with pytest.raises(CatalogError, match=message):
        kinetics400.list_class(make_spec("kinetics400"), "x")


def test_a_large_table_gives_its_labels_quickly(tmp_path: Path, make_spec: MakeSpec) -> None:
    """240,000 rows of 400 labels are read once, not once a class."""
    (tmp_path / "videos").mkdir()
    rows = "".join(f"label {row % 400:03d},{row:011d},{row % 300},{row % 300 + 10},train\n" for row in range(240_000))
    _lists(tmp_path, train=HEAD + rows)
    spec = make_spec("kinetics400")
    names = kinetics400.class_names(spec)
    assert len(names) == 401
    assert sum(len(kinetics400.list_class(spec, name).missing) for name in names) == 240_001

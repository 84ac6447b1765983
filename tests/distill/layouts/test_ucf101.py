"""UCF101 as it is distributed: its lists, its spelling, its splits."""

from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import CatalogError, Sampling
from lvdd_assets.distill.layouts import ucf101
from lvdd_assets.distill.video import read_clips
from tests.distill.layouts.conftest import MakeSpec, MakeVideo

CLASSES = "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n"
TRAIN = [
    ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", 1),
    ("ApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01.avi", 1),
    ("HandstandPushups/v_HandStandPushups_g08_c01.avi", 2),
]
TEST = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"]


def _lists(folder: Path, *, train: str | None = None, number: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classInd.txt").write_text(CLASSES)
    lines = "".join(f"{name} {label}\r\n" for name, label in TRAIN)
    (folder / f"trainlist0{number}.txt").write_text(lines if train is None else train)
    (folder / f"testlist0{number}.txt").write_text("".join(f"{name}\r\n" for name in TEST))


def test_the_official_split(tmp_path: Path, make_spec: MakeSpec, make_video: MakeVideo) -> None:
    _lists(tmp_path / "ucfTrainTestlist")
    for name in [*(name for name, _ in TRAIN), *TEST]:
        make_video(tmp_path / "videos" / name)
    spec = make_spec("ucf101", "official-1")
    assert ucf101.class_names(spec) == ("ApplyEyeMakeup", "HandstandPushups")
    listing = ucf101.list_class(spec, "ApplyEyeMakeup")
    assert {clip.name: (clip.is_test, clip.group) for clip in listing.clips} == {
        TEST[0]: (True, "v_ApplyEyeMakeup_g01"),
        TRAIN[0][0]: (False, "v_ApplyEyeMakeup_g08"),
        TRAIN[1][0]: (False, "v_ApplyEyeMakeup_g09"),
    }
    assert listing.missing == listing.unused == listing.refused == ()
    clip = read_clips(spec.root / listing.clips[0].name, spec.shape, Sampling())[0]
    assert clip.frames_TCHW.shape == (8, 3, 16, 16)


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups"])
@pytest.mark.parametrize("file", ["v_HandStandPushups", "v_HandstandPushups"])
def test_the_spelling_clash(tmp_path: Path, make_spec: MakeSpec, folder: str, file: str) -> None:
    """Copies differ in which of folder and files is spelt with a capital S."""
    _lists(tmp_path / "videos/ucfTrainTestlist")
    for part in ("g08_c01", "g01_c01"):
        path = tmp_path / "videos" / folder / f"{file}_{part}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listing = ucf101.list_class(make_spec("ucf101", "official-1"), "HandstandPushups")
    assert [(clip.name, clip.is_test) for clip in listing.clips] == [
        (f"{folder}/{file}_g01_c01.avi", True),
        (f"{folder}/{file}_g08_c01.avi", False),
    ]
    assert listing.missing == ()


def test_each_split_has_its_lists(tmp_path: Path, make_spec: MakeSpec) -> None:
    _lists(tmp_path / "lists", number=3)
    (tmp_path / "videos").mkdir()
    spec = make_spec("ucf101", "official-3", annotations=tmp_path / "lists")
    assert len(ucf101.list_class(spec, "ApplyEyeMakeup").missing) == 3
    with pytest.raises(CatalogError, match=r"trainlist02.txt; looked in .*`lvdd fetch ucf101`"):
        ucf101.list_class(make_spec("ucf101", "official-2", annotations=tmp_path / "lists"), "ApplyEyeMakeup")


def test_what_is_missing_refused_and_in_no_list(tmp_path: Path, make_spec: MakeSpec) -> None:
    _lists(tmp_path / "ucfTrainTestlist")
    folder = tmp_path / "videos/ApplyEyeMakeup"
    (folder / "v_ApplyEyeMakeup_g08_c01.avi").mkdir(parents=True)
    (folder / "v_ApplyEyeMakeup_g99_c01.avi").touch()
    (folder / "v_ApplyEyeMakeup_g01_c01.avi").touch()
    listing = ucf101.list_class(make_spec("ucf101", "official-1"), "ApplyEyeMakeup")
    assert [clip.name for clip in listing.clips] == [TEST[0]]
    assert listing.unused == ("ApplyEyeMakeup/v_ApplyEyeMakeup_g99_c01.avi",)
    assert listing.missing == ("v_ApplyEyeMakeup_g09_c01.avi",)
    assert [(item.file, item.reason) for item in listing.refused] == [(TRAIN[0][0], "a folder, not a file")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../etc/x.avi 1", "line 1: got '../../etc/x.avi 1', expected `<Class>/<file>`"),
        ("Nothing/x.avi 1", "expected a class of"),
        ("ApplyEyeMakeup/x.avi 2", "expected label 1"),
    ],
)
def test_lines_that_cannot_be(tmp_path: Path, make_spec: MakeSpec, line: str, message: str) -> None:
    _lists(tmp_path / "ucfTrainTestlist", train=line)
    (tmp_path / "videos").mkdir()
    with pytest.raises(CatalogError, match=message):
        ucf101.list_class(make_spec("ucf101", "official-1"), "ApplyEyeMakeup")


def test_an_absent_dataset_has_no_classes(make_spec: MakeSpec) -> None:
    assert ucf101.class_names(make_spec("ucf101", "official-1")) == ()

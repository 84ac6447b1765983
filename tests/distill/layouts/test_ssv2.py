"""Something-Something V2: templates in brackets, ids of files."""

import json
from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import CatalogError, Sampling
from lvdd_assets.distill.layouts import ssv2
from lvdd_assets.distill.video import read_clips
from tests.distill.layouts.conftest import MakeSpec, MakeVideo

LABELS = {"Holding something next to something": "0", "Putting something, something and something on the table": "1"}
TRAIN = [
    {"id": "7", "label": "holding a pen next to a cup", "template": "Holding [something] next to [something]"},
    {"id": "8", "label": "…", "template": "Putting [something], [something] and [something] on the table"},
]
TEST = [{"id": "9", "label": "…", "template": "Holding [something] next to [something]"}]
HOLDING, PUTTING = LABELS


def _lists(folder: Path, prefix: str = "", train: object = TRAIN) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("labels", LABELS), ("train", train), ("validation", TEST)):
        (folder / f"{prefix}{name}.json").write_text(json.dumps(value))


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
@pytest.mark.parametrize("folder", ["", "20bn-something-something-v2/"])
def test_the_official_split(
    tmp_path: Path, make_spec: MakeSpec, make_video: MakeVideo, prefix: str, folder: str
) -> None:
    _lists(tmp_path / "labels", prefix)
    for name in ("7", "9", "1000"):
        make_video(tmp_path / "videos" / f"{folder}{name}.webm")
    spec = make_spec("ssv2")
    assert ssv2.class_names(spec) == (HOLDING, PUTTING)
    listing = ssv2.list_class(spec, HOLDING)
    assert [(clip.name, clip.is_test) for clip in listing.clips] == [
        (f"{folder}7.webm", False),
        (f"{folder}9.webm", True),
    ]
    assert ssv2.list_class(spec, PUTTING).missing == ("8.webm",)
    assert read_clips(spec.root / listing.clips[0].name, spec.shape, Sampling())[0].num_source_frames == 10


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([{"id": "7", "template": "Eating [something]"}], "entry 1 .*'Eating \\[something\\]' is not in"),
        ([{"template": "x"}], "entry 1: got .*expected an `id` and a `template`"),
        ({"a": 1}, "expected a list of entries"),
    ],
)
def test_mistakes_name_the_entry(tmp_path: Path, make_spec: MakeSpec, train: object, message: str) -> None:
    _lists(tmp_path, train=train)
    (tmp_path / "videos").mkdir()
    with pytest.raises(CatalogError, match=message):
        ssv2.list_class(make_spec("ssv2"), HOLDING)


def test_a_file_that_is_no_json(tmp_path: Path, make_spec: MakeSpec) -> None:
    _lists(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "train.json").write_text("<html>")
    with pytest.raises(CatalogError, match=r"train.json is not JSON"):
        ssv2.list_class(make_spec("ssv2"), HOLDING)


@pytest.mark.parametrize("video", ["../../secret", "/etc/passwd", "a/b", "..", "nul\0", "x" * 5000])
def test_ids_are_data_and_never_paths(tmp_path: Path, make_spec: MakeSpec, video: str) -> None:
    (tmp_path / "secret.webm").touch()
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "b.webm").touch()
    _lists(tmp_path, train=[{"id": video, "template": "Holding [something] next to [something]"}])
    listing = ssv2.list_class(make_spec("ssv2"), HOLDING)
    assert listing.clips == ()
    assert f"{video}.webm" in listing.missing

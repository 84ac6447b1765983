"""HMDB51: three flags, two ways to use them."""

from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import CatalogError, Sampling
from lvdd_assets.distill.layouts import hmdb51
from lvdd_assets.distill.video import read_clips
from tests.distill.layouts.conftest import MakeSpec, MakeVideo

FILES = {
    "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi": 1,
    "Let's_go!_(1)_clap_u_cm_np1_fr_med_3.avi": 2,
    "A_[b]_&_c;d_clap_f_nm_np2_le_bad_1.avi": 0,
    "plain_clap_f_nm_np2_le_bad_1.avi": 1,
}


@pytest.fixture
def hmdb(tmp_path: Path, make_video: MakeVideo) -> Path:
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for number in (1, 2, 3):
        text = "".join(f"{name} {(flag + number - 1) % 3} \r\n" for name, flag in FILES.items())
        (lists / f"clap_test_split{number}.txt").write_text(text)
    for name in FILES:
        make_video(tmp_path / "videos" / "clap" / name)
    return tmp_path


@pytest.mark.usefixtures("hmdb")
def test_flags_are_train_test_and_unused(make_spec: MakeSpec) -> None:
    spec = make_spec("hmdb51", "official-1")
    assert hmdb51.class_names(spec) == ("clap",)
    listing = hmdb51.list_class(spec, "clap")
    sides = {clip.name.removeprefix("clap/"): clip.is_test for clip in listing.clips}
    assert sides == {name: flag == 2 for name, flag in FILES.items() if flag}
    assert listing.unused == ("clap/A_[b]_&_c;d_clap_f_nm_np2_le_bad_1.avi",)
    assert read_clips(spec.root / listing.clips[0].name, spec.shape, Sampling())[0].num_source_frames == 10


@pytest.mark.usefixtures("hmdb")
def test_the_benchmark_trains_on_all_that_is_not_test(make_spec: MakeSpec) -> None:
    listing = hmdb51.list_class(make_spec("hmdb51", "all-but-test-1"), "clap")
    assert {clip.name.removeprefix("clap/"): clip.is_test for clip in listing.clips} == {
        name: flag == 2 for name, flag in FILES.items()
    }
    assert listing.unused == ()
    official = hmdb51.list_class(make_spec("hmdb51", "official-1"), "clap")
    assert {clip for clip in official.clips if clip.is_test} == {clip for clip in listing.clips if clip.is_test}


@pytest.mark.usefixtures("hmdb")
def test_each_split_has_its_flags(make_spec: MakeSpec) -> None:
    sides = [
        {clip.name: clip.is_test for clip in hmdb51.list_class(make_spec("hmdb51", f"official-{number}"), "clap").clips}
        for number in (1, 2, 3)
    ]
    assert sides[0] != sides[1] != sides[2]


def test_mistakes(hmdb: Path, make_spec: MakeSpec) -> None:
    path = hmdb / "testTrainMulti_7030_splits/clap_test_split1.txt"
    path.write_text("a.avi 3\n")
    with pytest.raises(CatalogError, match=r"clap_test_split1.txt, line 1"):
        hmdb51.list_class(make_spec("hmdb51", "official-1"), "clap")
    path.write_text("../../x.avi 1\n")
    with pytest.raises(CatalogError, match=r"line 1"):
        hmdb51.list_class(make_spec("hmdb51", "official-1"), "clap")
    with pytest.raises(CatalogError, match="class 'wave' has no list"):
        hmdb51.list_class(make_spec("hmdb51", "official-1"), "wave")


def test_published_counts() -> None:
    assert hmdb51.EXPECTED["official-1"] == (3570, 1530)
    assert hmdb51.EXPECTED["all-but-test-1"] == (5236, 1530)

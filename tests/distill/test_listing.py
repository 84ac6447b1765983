"""What must hold for every layout, and what may be said of a dataset without opening a video."""

import builtins
import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import listing
from lvdd_assets.distill.catalog import VIDEO_SUFFIXES, CatalogError, DatasetSpec
from lvdd_assets.distill.listing import LAYOUTS, class_names, list_dataset
from lvdd_assets.distill.registry import load_catalog

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
BY_HALF = "{test_fraction: 0.5}"


def _spec(folder: Path, *, layout: str = "folders", split: str = BY_HALF, more: str = "") -> DatasetSpec:
    lines = [
        f"layout: {layout}",
        f"split: {split}",
        "root: videos",
        "clip: 8x64",
        "budget: {ipc: 1}",
        *more.splitlines(),
    ]
    path = folder / "datasets.yaml"
    path.write_text("datasets:\n  set:\n" + "".join(f"    {line}\n" for line in lines))
    return load_catalog(path).dataset("set")


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_what_is_asked_of_it(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    assert layout.SPLITS
    assert set(layout.EXPECTED) <= set(layout.SPLITS)
    assert layout.BY_GROUP is (name == "folders")
    for split in layout.SPLITS:
        spec = _spec(tmp_path, layout=name, split=split)
        # Of a dataset that is not there, nothing is known and nothing fails; asked for, it says what to do.
        assert layout.class_names(spec) == ()
        assert layout.why_none(spec)
        with pytest.raises(CatalogError, match=r"no folder .*videos.*Mend `root`"):
            list_dataset(spec)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"folders"}))
def test_without_lists_the_error_says_where_to_get_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "videos").mkdir()
    spec = _spec(tmp_path, layout=name, split=LAYOUTS[name].SPLITS[0])
    with pytest.raises(CatalogError, match=f"`lvdd fetch {name}` prints where"):
        list_dataset(spec)


def test_folders_without_classes(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "a.mp4")
    with pytest.raises(CatalogError, match="has no class folders; expected <root>/<class>/<clip>"):
        list_dataset(_spec(tmp_path))


def test_the_demo_is_told_to_be_rendered(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"dataset 'demo': no folder .*videos\. Run `make demo`"):
        list_dataset(replace(_spec(tmp_path), name="demo"))


def test_a_class_of_the_registry_that_has_no_folder(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "run/a.mp4", "jump/b.mp4")
    assert list(list_dataset(_spec(tmp_path, more="classes: [run]"))) == ["run"]
    with pytest.raises(CatalogError, match="class 'swim': no folder"):
        list_dataset(_spec(tmp_path, more="classes: [run, swim]"))


def test_a_root_that_has_none_of_the_listed_files(tmp_path: Path) -> None:
    """One wrong path is more likely than a copy that lost everything."""
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "clap_test_split1.txt").write_text("a.avi 1\nb.avi 2\n")
    _touch(tmp_path / "videos", "other/a.avi")
    with pytest.raises(CatalogError, match=r"of 2 listed files, none is below .*, e.g. 'a.avi'. Mend `root`"):
        list_dataset(_spec(tmp_path, layout="hmdb51", split="official-1"))
    _touch(tmp_path / "videos", "clap/a.avi")
    assert list_dataset(_spec(tmp_path, layout="hmdb51", split="official-1"))["clap"].missing == ("b.avi",)


def test_a_test_group_that_nothing_belongs_to_is_a_slip(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "run/a.mp4")
    with pytest.raises(CatalogError, match=r"test_groups \['b'\] match no file; groups found: a"):
        list_dataset(_spec(tmp_path, split="{test_groups: [b]}"))


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "train/run/g01_a.mp4", "test/run/g01_b.mp4", "test/run/g02_b.mp4")
    with pytest.raises(CatalogError, match="1 groups have train and test clips: g01"):
        list_dataset(_spec(tmp_path, split="folders", more=r"group_pattern: '^(g\d+)_'"))
    # Without a pattern a group is a file's name, which may well come twice.
    _touch(tmp_path / "videos", "train/run/same.mp4", "test/run/same.mp4")
    assert len(list_dataset(_spec(tmp_path, split="folders"))["run"].clips) == 5


def test_a_group_may_span_classes_but_not_sides(tmp_path: Path) -> None:
    names = [f"{name}/g{group}_x.mp4" for name in ("run", "jump") for group in range(20)]
    _touch(tmp_path / "videos", *names)
    listings = list_dataset(_spec(tmp_path, more=r"group_pattern: '^(g\d+)_'"))
    sides = [{clip.group: clip.is_test for clip in listings[name].clips} for name in ("run", "jump")]
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {True, False}


@pytest.mark.parametrize("name", ["a...b", "tab\there", "   "])
def test_folders_that_cannot_be_partition_keys(tmp_path: Path, name: str) -> None:
    _touch(tmp_path / "videos", f"{name}/a.mp4")
    with pytest.raises(CatalogError, match="cannot be a partition key"):
        class_names(_spec(tmp_path))


def test_names_that_nobody_can_tell_apart(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "é/a.mp4", "e\u0301/a.mp4")
    if len(list((tmp_path / "videos").iterdir())) == 1:
        pytest.skip("this file system holds the two for one")
    with pytest.raises(CatalogError, match="differ only in how Unicode writes them"):
        class_names(_spec(tmp_path))


def test_names_of_the_registry_that_nobody_can_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="differ only in how Unicode writes them"):
        class_names(_spec(tmp_path, more='classes: ["\u00e9", "e\u0301"]'))


def test_a_class_folder_that_is_not_utf_8_is_not_left_out_in_silence(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "run/a.mp4")
    try:
        _touch(tmp_path / "videos", os.fsdecode(b"caf\xe9") + "/a.mp4")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    with pytest.raises(CatalogError, match="UTF-8"):
        list_dataset(_spec(tmp_path))


def _dataset(root: Path) -> None:
    for index in range(4):
        for number in range(30):
            _touch(root, f"class {index}/{number}.mp4")


@pytest.mark.parametrize("layout", ["folders", "hmdb51"])
def test_listing_opens_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    _dataset(tmp_path / "videos")
    for index in range(4):
        lines = "".join(f"{number}.mp4 {1 + number % 2}\n" for number in range(30))
        (tmp_path / "videos" / f"class {index}_test_split1.txt").write_text(lines)
    spec = _spec(tmp_path, layout=layout, split=BY_HALF if layout == "folders" else "official-1")
    opened: list[str] = []
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        original = getattr(module, name)

        def spy(path: object, *rest: object, original: object = original, **named: object) -> object:
            opened.append(os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "")
            return original(path, *rest, **named)  # type: ignore[operator]

        monkeypatch.setattr(module, name, spy)
    (tmp_path / "canary.mp4").open("w").close()
    assert [path for path in opened if path.endswith("canary.mp4")]  # the spies are where they should be
    opened.clear()
    assert sum(len(item.clips) for item in list_dataset(spec).values()) == 120
    assert [path for path in opened if Path(path).suffix in VIDEO_SUFFIXES] == []


LIST_FILES = {
    "ucf101": ("classInd.txt", "trainlist01.txt", "testlist01.txt"),
    "hmdb51": ("a_test_split1.txt",),
    "kinetics400": ("train.csv", "validate.csv"),
    "ssv2": ("labels.json", "train.json", "validation.json"),
}
SCRAPS = {
    "ucf101": ["1 a", "a/v_a_g01_c01.avi 1", "a/v_a_g01_c02.avi", "../x 1", "2 b", "\n", " ", "\r\n", "a/\0 1"],
    "hmdb51": ["x.avi 1", "x.avi 2", "y.avi 0", "../z.avi 1", "\n", " ", "3"],
    "kinetics400": [
        "label,youtube_id,time_start,time_end,split\n",
        "a,x,1,2,train\n",
        "a,y,1,2,val\n",
        '"',
        ",",
        "nan",
        "\n",
    ],
    "ssv2": ["[", "]", "{", "}", '{"id": "1", "template": "a"}', ",", '"a": "0"', "1e999", "null", '"\\ud800"'],
}


@pytest.mark.parametrize("layout", LIST_FILES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lists_of_any_content_give_a_listing_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, layout: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"lists-{layout}"
    root = folder / "videos"
    _touch(root, "a/v_a_g01_c01.avi", "a/x.avi", "a/x_000001_000002.mp4", "1.webm")
    scraps = st.lists(st.sampled_from(SCRAPS[layout]) | st.text(max_size=5), max_size=8).map("".join)
    for name in LIST_FILES[layout]:
        content = data.draw(scraps.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=30))
        (root / name).write_bytes(content)
    try:
        listings = list_dataset(_spec(folder, layout=layout, split=LAYOUTS[layout].SPLITS[0]))
    except CatalogError:
        return
    for item in listings.values():
        for clip in item.clips:
            assert (root / clip.name).resolve().is_relative_to(root.resolve())
            assert (root / clip.name).is_file()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
@pytest.mark.parametrize(
    ("name", "num_classes", "num_train", "num_test"),
    [("ut_interaction", 6, 83, 37), ("surv_fight", 2, 200, 100), ("ucf101_sample", 3, 9, 6)],
)
def test_the_development_registry(name: str, num_classes: int, num_train: int, num_test: int) -> None:
    listings = list_dataset(load_catalog(REPOSITORY / "benchmarks" / "development.yaml").dataset(name))
    sides = [clip.is_test for item in listings.values() for clip in item.clips]
    assert (len(listings), sides.count(False), sides.count(True)) == (num_classes, num_train, num_test)


def test_every_layout_is_known_by_its_module_s_name() -> None:
    assert {name: layout.__name__.rpartition(".")[2] for name, layout in listing.LAYOUTS.items()} == {  # type: ignore[attr-defined]
        name: name for name in LAYOUTS
    }


def test_the_documentation_has_the_counts_that_are_compared_with() -> None:
    text = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name, layout in LAYOUTS.items():
        assert f"| `{name}` |" in text
        for num_train, num_test in layout.EXPECTED.values():
            assert f"{num_train:,} + {num_test:,}" in text

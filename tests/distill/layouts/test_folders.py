"""Anybody's folders: classes are folders, clips are files, and no group is on both sides of the split."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvdd_assets.distill.catalog import CatalogError, Split
from lvdd_assets.distill.layouts import folders
from lvdd_assets.distill.layouts.tree import FOLDER_LINK, NOT_A_FILE
from tests.distill.layouts.conftest import MakeSpec

HALF = Split(test_fraction=0.5)


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_become_classes_and_other_files_are_left_alone(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", HALF)
    names = ["run/a.mp4", "run/deep/er/b.AVI", "jump/c.webm", "run/notes.txt", "run/.d.mp4", "run/.e/f.mp4"]
    _touch(spec.root, *names, "README.md", ".git/x.mp4")
    assert folders.class_names(spec) == ("jump", "run")
    assert [clip.name for clip in folders.list_class(spec, "run").clips] == ["run/a.mp4", "run/deep/er/b.AVI"]


def test_split_by_folder(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", "folders")
    _touch(spec.root, "train/run/a.mp4", "test/run/a.mp4", "train/run/b.mp4", "test/jump/c.mp4")
    assert folders.class_names(spec) == ("jump", "run")
    assert {clip.name: clip.is_test for clip in folders.list_class(spec, "run").clips} == {
        "train/run/a.mp4": False,
        "train/run/b.mp4": False,
        "test/run/a.mp4": True,
    }


GROUPS = st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), min_size=1, max_size=30, unique=True)


@given(groups=GROUPS, fraction=st.floats(0.01, 0.99), new=st.from_regex(r"[A-Z]{1,6}", fullmatch=True))
def test_a_group_is_on_one_side_and_a_new_one_moves_no_other(groups: list[str], fraction: float, new: str) -> None:
    split = Split(test_fraction=fraction)
    before = {group: split.is_test(group) for group in groups}
    split.is_test(new)
    assert {group: Split(test_fraction=fraction).is_test(group) for group in reversed(groups)} == before
    wider = Split(test_fraction=min(1.0, fraction + 0.1))
    assert all(wider.is_test(group) for group in groups if before[group])  # a larger share keeps the test clips


@pytest.mark.parametrize(
    "split", [Split(test_groups=frozenset({"set1_seq01", "set1_seq04"})), Split(test_fraction=0.4)]
)
def test_groups_never_stand_on_both_sides(make_spec: MakeSpec, split: Split) -> None:
    spec = make_spec("folders", split, group_pattern=r"^(set\d_seq\d+)_")
    classes = ("run", "jump")
    _touch(
        spec.root,
        *[f"{name}/set1_seq{seq:02d}_{clip}.mp4" for name in classes for seq in range(8) for clip in range(3)],
    )
    clips = [clip for name in classes for clip in folders.list_class(spec, name).clips]
    sides = {group: {clip.is_test for clip in clips if clip.group == group} for group in {c.group for c in clips}}
    assert len(clips) == 48
    assert len(sides) == 8
    assert all(len(side) == 1 for side in sides.values())
    assert {True} in sides.values()
    assert {False} in sides.values()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=GROUPS, fraction=st.floats(0.05, 0.95), new=st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True))
def test_files_of_a_group_share_its_side_before_and_after_a_new_one(
    make_spec: MakeSpec, groups: list[str], fraction: float, new: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = make_spec("folders", Split(test_fraction=fraction), group_pattern="^([a-z0-9]+)_")
        spec = replace(spec, root=Path(folder))
        names = [f"{name}/{group}_{clip}.mp4" for group in groups for name in ("run", "jump") for clip in range(2)]
        _touch(spec.root, *names)
        before = [clip for name in ("run", "jump") for clip in folders.list_class(spec, name).clips]
        assert sorted(clip.name for clip in before) == sorted(names)
        assert len({(clip.group, clip.is_test) for clip in before}) == len({clip.group for clip in before})
        assert {clip.group for clip in before} == set(groups)
        _touch(spec.root, f"run/{new}_9.mp4")
        after = [clip for name in ("run", "jump") for clip in folders.list_class(spec, name).clips]
        assert set(before) < set(after)
        assert len({(clip.group, clip.is_test) for clip in after}) == len({clip.group for clip in after})


def test_the_drawn_groups_are_the_same_on_every_machine() -> None:
    """Never to change in silence: test clips would become train clips."""
    assert [group for group in range(20) if HALF.is_test(f"g{group:02d}")] == DRAWN


DRAWN = [0, 1, 3, 5, 8, 11, 12, 14, 16, 17, 19]


def test_the_named_groups_are_the_test_groups(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", Split(test_groups=frozenset({"g2", "g10"})), group_pattern=r"(g\d+)_")
    _touch(spec.root, *[f"run/v_g{group}_c1.mp4" for group in range(1, 21)])
    assert {clip.group for clip in folders.list_class(spec, "run").clips if clip.is_test} == {"g2", "g10"}


def test_a_new_clip_moves_no_other(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", HALF)
    _touch(spec.root, *[f"run/{index:03d}.mp4" for index in range(40)])
    before = {clip.name: clip.is_test for clip in folders.list_class(spec, "run").clips}
    _touch(spec.root, "run/0005.mp4")
    after = {clip.name: clip.is_test for clip in folders.list_class(spec, "run").clips}
    assert len(after) == 41
    assert {name: after[name] for name in before} == before
    assert 10 <= sum(before.values()) <= 30


def test_a_file_without_a_group_is_an_error(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", HALF, group_pattern="(seq)")
    _touch(spec.root, "run/a.mp4")
    with pytest.raises(CatalogError, match=r"'a.mp4' does not match group_pattern '\(seq\)'.*Mend the pattern"):
        folders.list_class(spec, "run")


def test_a_class_without_a_folder(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", HALF)
    assert folders.class_names(spec) == ()
    _touch(spec.root, "run/a.mp4")
    with pytest.raises(CatalogError, match=r"class 'swim': no folder .*swim"):
        folders.list_class(spec, "swim")
    with pytest.raises(CatalogError, match=r"class '../run': no folder"):
        folders.list_class(spec, "../run")
    assert "<root>/<class>/<clip>" in folders.why_none(spec)
    assert "<root>/train/<class>/<clip>" in folders.why_none(make_spec("folders", "folders"))


def test_links_and_folders_that_look_like_videos_are_named(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec("folders", HALF)
    _touch(spec.root, "run/a.mp4", "run/directory.avi/inside.mp4")
    _touch(tmp_path, "outside/b.mp4")
    (spec.root / "linked").symlink_to("run")
    (spec.root / "run" / "more").symlink_to(tmp_path / "outside")
    assert folders.class_names(spec) == ("linked", "run")
    listing = folders.list_class(spec, "run")
    assert [clip.name for clip in listing.clips] == ["run/a.mp4"]
    refused = {item.file: item.reason for item in listing.refused}
    assert refused["run/directory.avi"] == NOT_A_FILE
    assert "out of the dataset's root" in refused["run/more"]
    linked = folders.list_class(spec, "linked")
    assert linked.clips == ()
    assert [(item.file, item.reason) for item in linked.refused] == [("linked", FOLDER_LINK)]


def test_a_linked_class_beside_a_real_one_is_named(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", "folders")
    _touch(spec.root, "train/run/a.mp4", "test/jump/b.mp4")
    (spec.root / "test" / "run").symlink_to("jump")
    listing = folders.list_class(spec, "run")
    assert [(clip.name, clip.is_test) for clip in listing.clips] == [("train/run/a.mp4", False)]
    assert [(item.file, item.reason) for item in listing.refused] == [("test/run", FOLDER_LINK)]


@pytest.mark.parametrize("name", [b"deep\xe9", b"a\\b"], ids=["not UTF-8", "backslash"])
def test_a_folder_that_is_not_looked_into_is_named(make_spec: MakeSpec, name: bytes) -> None:
    """Its videos are part of what the user laid out, so that they are listed or somebody is told."""
    spec = make_spec("folders", HALF)
    _touch(spec.root, "run/a.mp4")
    try:
        _touch(spec.root, f"run/{os.fsdecode(name)}/b.mp4")
    except OSError:
        pytest.skip("this file system has no such names")
    listing = folders.list_class(spec, "run")
    assert len(listing.clips) + len(listing.refused) == 2


def test_a_class_with_a_backslash_has_its_clips_or_a_reason(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", HALF)
    _touch(spec.root, "AC\\DC/a.mp4")
    (name,) = folders.class_names(spec)
    listing = folders.list_class(spec, name)
    assert listing.clips or listing.refused


ODD = [
    "100 %",
    "a, b",
    "it's",
    '"quoted"',
    "Ünï çødé",
    "日本語",
    "[a]*?",
    "$(touch x)",
    "-rf",
    "Jump",
    "jump",
    "x" * 200,
]


def test_classes_of_any_name(make_spec: MakeSpec) -> None:
    spec = make_spec("folders", HALF)
    _touch(spec.root, *[f"{name}/clip.mp4" for name in ODD])
    if not (spec.root / "Jump").samefile(spec.root / "jump"):
        assert folders.class_names(spec) == tuple(sorted(ODD))
    for name in ODD:
        assert [clip.name for clip in folders.list_class(spec, name).clips] == [f"{name}/clip.mp4"]

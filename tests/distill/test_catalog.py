"""The registry says what is meant or an error says what to mend; splits never leak."""

import os
from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import (
    Budget,
    CatalogError,
    ClipShape,
    class_names,
    content_hash,
    list_class,
    list_clips,
    load_catalog,
    parse_bytes,
)

ENTRY = """
default: {default}
datasets:
  videos:
    root: {root}
    layout: folders
    split: {split}
    frames: 8
    stride: 4
    size: 64
    budget: {{bytes: 200kB}}
{more}
"""


def _registry(
    folder: Path, *, root: str = "videos", split: str = "{test_fraction: 0.5}", more: str = "", default: str = "videos"
) -> Path:
    path = folder / "datasets.yaml"
    lines = "\n".join(f"    {line}" for line in more.splitlines())
    path.write_text(ENTRY.format(root=root, split=split, more=lines, default=default))
    return path


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_an_entry_is_read_with_its_defaults(tmp_path: Path) -> None:
    catalog = load_catalog(_registry(tmp_path))
    spec = catalog.dataset("videos")
    assert catalog.dataset("default") is spec
    assert spec.root == tmp_path / "videos"  # relative to the registry, not to the current folder
    assert spec.shape == ClipShape(8, 4, 64)
    assert spec.shape.window == 29
    assert spec.budget == Budget(num_bytes=200_000)
    assert (spec.vae, spec.recipe, spec.clips_per_class) == ("embedded-2d", "tight", None)


def test_the_shipped_registry_is_valid() -> None:
    catalog = load_catalog(Path(__file__).parents[2] / "data" / "datasets.yaml")
    assert catalog.default == "demo"
    assert len(class_names(catalog.dataset("demo"))) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": "colour: red"}, "unknown key colour; known keys: budget"),
        ({"more": "recipe: best"}, "unknown recipe 'best'; known: tight, paper"),
        ({"more": "clips_per_class: 0"}, "clips_per_class must be"),
        ({"more": "group_pattern: 'set.*'"}, r"has no \(group\)"),
        ({"more": "group_pattern: '(set'"}, "not a regular expression"),
        ({"more": "classes: ['a/b']"}, "class name 'a/b' cannot be"),
        ({"split": "{test_fraction: 2.0}"}, "between 0 and 1"),
        ({"split": "thirds"}, "split is 'thirds'; expected `folders`"),
        ({"default": "other"}, "unknown dataset 'other'; .* has: videos"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_in_the_registry(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_catalog(_registry(tmp_path, **changes))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layout: folders", "layout: tar", "unknown layout 'tar'; known: folders"),
        ("bytes: 200kB", "bytes: many", "'many' is not a size"),
        ("bytes: 200kB", "ipc: 1, bytes: 2kB", "exactly one of ipc and bytes"),
        ("bytes: 200kB", "ipc: 0", "at least 1, got 0"),
        ("frames: 8", "frames: eight", "frames must be a whole number"),
        ("    size: 64\n", "", "missing key size"),
        ("  videos:", "  'my videos':", "name is 1 to 64 letters"),
        ("default: videos", "defaults: videos", "unknown key defaults"),
        ("datasets:", "- datasets:", "not YAML"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = _registry(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CatalogError, match=message):
        load_catalog(path)


def test_no_registry_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"no registry of datasets at .*nothing.yaml.*LVDD_DATASETS"):
        load_catalog(tmp_path / "nothing.yaml")


def test_folders_become_classes_and_other_files_are_left_alone(tmp_path: Path) -> None:
    _touch(
        tmp_path / "videos",
        "run/a.mp4",
        "run/deep/b.AVI",
        "jump/c.webm",
        "run/notes.txt",
        "run/.d.mp4",
        "README.md",
        ".git/x.mp4",
    )
    spec = load_catalog(_registry(tmp_path)).dataset("videos")
    assert class_names(spec) == ("jump", "run")
    assert [clip.name for clip in list_clips(spec)["run"]] == ["run/a.mp4", "run/deep/b.AVI"]


def test_split_by_folder(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", "train/run/a.mp4", "test/run/a.mp4", "train/run/b.mp4")
    spec = load_catalog(_registry(tmp_path, split="folders")).dataset("videos")
    assert class_names(spec) == ("run",)
    assert {clip.name: clip.is_test for clip in list_clips(spec)["run"]} == {
        "train/run/a.mp4": False,
        "train/run/b.mp4": False,
        "test/run/a.mp4": True,
    }


def test_groups_never_stand_on_both_sides(tmp_path: Path) -> None:
    files = [
        f"{name}/set1_seq{seq:02d}_{clip}.mp4" for name in ("run", "jump") for seq in range(6) for clip in range(3)
    ]
    _touch(tmp_path / "videos", *files)
    more = r"group_pattern: '^(set\d_seq\d+)_'"
    for split in ("{test_groups: [set1_seq01, set1_seq04]}", "{test_fraction: 0.4}"):
        spec = load_catalog(_registry(tmp_path, split=split, more=more)).dataset("videos")
        clips = [clip for some in list_clips(spec).values() for clip in some]
        sides = {group: {clip.is_test for clip in clips if clip.group == group} for group in {c.group for c in clips}}
        assert len(sides) == 6
        assert all(len(side) == 1 for side in sides.values())
        assert {True} in sides.values()
        assert {False} in sides.values()


def test_a_new_clip_moves_no_other(tmp_path: Path) -> None:
    _touch(tmp_path / "videos", *[f"run/{index:03d}.mp4" for index in range(40)])
    spec = load_catalog(_registry(tmp_path)).dataset("videos")
    before = {clip.name: clip.is_test for clip in list_class(spec, "run")}
    _touch(tmp_path / "videos", "run/0005.mp4")
    after = {clip.name: clip.is_test for clip in list_class(spec, "run")}
    assert {name: after[name] for name in before} == before
    assert 10 <= sum(before.values()) <= 30


def test_mistakes_in_the_folders(tmp_path: Path) -> None:
    spec = load_catalog(_registry(tmp_path)).dataset("videos")
    with pytest.raises(CatalogError, match=r"no folder .*videos"):
        list_clips(spec)
    (tmp_path / "videos").mkdir()
    with pytest.raises(CatalogError, match="no class folders"):
        list_clips(spec)
    _touch(tmp_path / "videos", "run/a.mp4")
    wrong = load_catalog(_registry(tmp_path, split="{test_groups: [b]}")).dataset("videos")
    with pytest.raises(CatalogError, match=r"test_groups \['b'\] match no file; groups found: a"):
        list_clips(wrong)
    wrong = load_catalog(_registry(tmp_path, more="group_pattern: '(seq)'")).dataset("videos")
    with pytest.raises(CatalogError, match=r"'a.mp4' does not match group_pattern"):
        list_clips(wrong)
    wrong = load_catalog(_registry(tmp_path, more="classes: [run, swim]")).dataset("videos")
    with pytest.raises(CatalogError, match="class 'swim': no folder"):
        list_clips(wrong)


@pytest.mark.parametrize("name", ["...", "a...b", "__x", "tab\there"])
def test_class_names_that_cannot_be_keys(tmp_path: Path, name: str) -> None:
    _touch(tmp_path / "videos", f"{name}/a.mp4")
    spec = load_catalog(_registry(tmp_path)).dataset("videos")
    if name == "...":  # a folder that starts with a dot is hidden, not a class
        assert class_names(spec) == ()
        return
    with pytest.raises(CatalogError, match="cannot be a partition key"):
        class_names(spec)


@pytest.mark.parametrize(
    ("text", "size"), [("200kB", 200_000), ("1.5 MB", 1_500_000), ("64KiB", 65_536), (12, 12), ("12", 12), ("3b", 3)]
)
def test_parse_bytes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


def test_content_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    first = content_hash(path)
    assert content_hash(path) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert content_hash(path) != first

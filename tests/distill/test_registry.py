"""The registry says what is meant, or an error says what to mend."""

from pathlib import Path

import pytest

from lvdd_assets.distill.catalog import Budget, CatalogError, ClipShape, Sampling, Split
from lvdd_assets.distill.listing import class_names
from lvdd_assets.distill.registry import load_catalog

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
        ({"more": "colour: red"}, "unknown key colour; known keys: annotations, budget"),
        ({"more": "recipe: best"}, "unknown recipe 'best'; known: tight, paper, codec, auto"),
        ({"more": "clips_per_class: 0"}, "clips_per_class must be"),
        ({"more": "clips_per_class: most"}, "clips_per_class must be a whole number of at least 1, or all; got 'most'"),
        ({"more": "group_pattern: 'set.*'"}, r"has no \(group\)"),
        ({"more": "group_pattern: '(set'"}, "not a regular expression"),
        ({"more": "classes: ['a...b']"}, r"class name 'a\.\.\.b' cannot be"),
        ({"more": "classes: []"}, "classes must be a list of class names"),
        ({"more": "clip: 9x9"}, "unknown clip '9x9'; known: 16x112, 8x64"),
        ({"more": "sampling: first"}, "unknown sampling 'first'; known: center, random"),
        ({"more": "seed: 1"}, "seed is given, but sampling is not `random`"),
        ({"more": "sampling: random\nseed: -1"}, "seed must be a whole number of at least 0"),
        ({"more": "clips_per_video: 0"}, "clips_per_video must be a whole number of at least 1"),
        ({"more": "max_lost_share: 2"}, "max_lost_share must be a number from 0 to 1"),
        ({"more": "license: [mit]"}, "license must be text of 1 to 200 characters"),
        ({"more": "license: ' '"}, "license must be text of 1 to 200 characters"),
        ({"split": "official-1"}, "layout folders has `folders`, {test_groups"),
        ({"split": "{test_groups: []}"}, "split is"),
        ({"split": "{test_fraction: 2.0}"}, "between 0 and 1"),
        ({"split": "thirds"}, "split is 'thirds'; layout folders has `folders`"),
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
        ("layout: folders", "layout: ucf101", "layout ucf101 has `official-1`, `official-2` or `official-3`"),
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


def test_a_preset_names_the_shape_and_one_value_may_differ(tmp_path: Path) -> None:
    path = _registry(tmp_path)
    text = path.read_text()
    lines = "    frames: 8\n    stride: 4\n    size: 64\n"
    for new, shape in [
        ("    clip: 16x112\n", ClipShape(16, 4, 112)),
        ("    clip: 8x64\n", ClipShape(8, 4, 64)),
        ("    clip: 16x112\n    stride: 2\n", ClipShape(16, 2, 112)),
    ]:
        path.write_text(text.replace(lines, new))
        assert load_catalog(path).dataset("videos").shape == shape


def test_sampling_and_lists(tmp_path: Path) -> None:
    more = "sampling: random\nseed: 7\nclips_per_video: 3\nannotations: lists\nmax_lost_share: 0\nlicense: cc-by-4.0"
    spec = load_catalog(_registry(tmp_path, more=more)).dataset("videos")
    assert spec.sampling == Sampling("random", 7, 3)
    assert spec.annotations == tmp_path / "lists"
    assert spec.max_lost_share == 0.0
    assert spec.license == "cc-by-4.0"
    plain = load_catalog(_registry(tmp_path)).dataset("videos")
    assert plain.sampling == Sampling("center", 0, 1)
    assert plain.annotations is None
    assert plain.license is None


@pytest.mark.parametrize(
    ("layout", "split"),
    [
        ("ucf101", "official-3"),
        ("miniucf", "official-1"),
        ("hmdb51", "official-2"),
        ("hmdb51", "all-but-test-1"),
        ("kinetics400", "official"),
        ("ssv2", "official"),
        ("folders", "folders"),
    ],
)
def test_named_splits(tmp_path: Path, layout: str, split: str) -> None:
    path = _registry(tmp_path, split=split)
    path.write_text(path.read_text().replace("layout: folders", f"layout: {layout}"))
    catalog = load_catalog(path)  # that the dataset is absent is no mistake of the registry
    assert catalog.dataset("videos").split == Split(named=split)
    assert class_names(catalog.dataset("videos")) == () or layout == "miniucf"


def test_datasets_whose_names_differ_only_in_case(tmp_path: Path) -> None:
    """Their stores would be the same folder on some file systems."""
    path = _registry(tmp_path)
    text = path.read_text()
    entry = text[text.index("  videos:") :]
    path.write_text(text + entry.replace("videos:", "Videos:", 1))
    with pytest.raises(CatalogError, match="'videos' and 'Videos' differ only in case"):
        load_catalog(path)


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "Crème brûlée", "100 %", "x, y", "..", ".", "日本語", "'quoted'", "e" * 900, "con", "A", "a"]
)
def test_almost_any_text_is_a_class(tmp_path: Path, name: str) -> None:
    quoted = name.replace("'", "''")
    spec = load_catalog(_registry(tmp_path, more=f"classes: ['{quoted}']")).dataset("videos")
    assert spec.classes == (name,)

"""Keys, aliases and the mapping; what Dagster is told about a range."""

import json
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from lvdd_assets.distill.catalog import Catalog
from lvdd_assets.distill.registry import load_catalog
from lvdd_assets.partitions import build_partitions, class_keys_of_run, datasets_of_run, split_key

START, END, ONE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    entries = []
    for name, classes in (("zoo", "[b, a]"), ("ape", "[a, c, d]"), ("solo", "[x]"), ("gone", "")):
        listed = f"    classes: {classes}\n" if classes else ""
        entries.append(
            f"  {name}:\n    root: nowhere\n    layout: folders\n    split: folders\n    frames: 2\n    stride: 1\n"
            f"    size: 8\n    budget: {{ipc: 1}}\n{listed}"
        )
    path = tmp_path / "datasets.yaml"
    path.write_text("default: ape\ndatasets:\n" + "".join(entries))
    return load_catalog(path)


def test_keys_stand_in_the_registrys_order_with_classes_sorted(catalog: Catalog) -> None:
    by_class, by_dataset, mapping = build_partitions(catalog)
    assert list(by_class.get_partition_keys()) == ["zoo/a", "zoo/b", "ape/a", "ape/c", "ape/d", "solo/x"]
    assert list(by_dataset.get_partition_keys()) == ["zoo", "ape", "solo", "gone"]
    assert mapping.downstream_partition_keys_by_upstream_partition_key["ape/c"] == "ape"
    assert split_key("ape/c") == ("ape", "c")
    assert split_key("ape") == ("ape", "")


def test_a_datasets_name_stands_for_the_range_of_its_classes(catalog: Catalog) -> None:
    by_class, by_dataset, _ = build_partitions(catalog)
    assert by_class.get_tags_for_partition_key("ape") == {START: "ape/a", END: "ape/d"}
    assert by_class.get_tags_for_partition_key("default") == {START: "ape/a", END: "ape/d"}
    assert by_class.get_tags_for_partition_key("zoo/b") == {ONE: "zoo/b"}
    assert by_class.get_tags_for_partition_key("solo") == {ONE: "solo/x"}
    assert by_dataset.get_tags_for_partition_key("default") == {ONE: "ape"}
    assert by_dataset.get_tags_for_partition_key("zoo") == {ONE: "zoo"}


def test_aliases_are_accepted_but_are_no_partitions(catalog: Catalog) -> None:
    by_class, _, _ = build_partitions(catalog)
    for key in ("ape", "default", "zoo/a"):
        by_class.validate_partition_key(key, None)
    assert not by_class.has_partition_key("ape")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ape/b", r"unknown partition 'ape/b'; possible are: ape/a, ape/c, ape/d"),
        ("cat", r"unknown partition 'cat'; possible are: zoo, ape, solo, default"),
        ("gone", r"dataset 'gone' has no classes: no class folders below .*nowhere. Mend `root`"),
    ],
)
def test_unknown_keys_say_what_there_is(catalog: Catalog, key: str, message: str) -> None:
    by_class, by_dataset, _ = build_partitions(catalog)
    with pytest.raises(ValueError, match=message):
        by_class.validate_partition_key(key, None)
    with pytest.raises(ValueError, match="unknown partition 'cat'; possible are: zoo, ape, solo, gone, default"):
        by_dataset.validate_partition_key("cat", None)


def test_the_definitions_survive_dagsters_serialisation(catalog: Catalog) -> None:
    from dagster._core.definitions.partitions.snap import PartitionsSnap

    by_class, _, _ = build_partitions(catalog)
    again = PartitionsSnap.from_def(by_class).get_partitions_definition()
    assert isinstance(again, dg.StaticPartitionsDefinition)
    assert list(again.get_partition_keys()) == list(by_class.get_partition_keys())


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({ONE: "ape/a"}, ["ape"]),
        ({ONE: "zoo"}, ["zoo"]),
        ({START: "zoo/b", END: "ape/c"}, ["zoo", "ape"]),
        ({}, ["zoo", "ape", "solo", "gone"]),
    ],
)
def test_datasets_of_run(catalog: Catalog, tags: dict[str, str], expected: list[str]) -> None:
    context = SimpleNamespace(run=SimpleNamespace(tags=tags))
    assert [spec.name for spec in datasets_of_run(context, catalog)] == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({ONE: "ape/c"}, ["ape/c"]),
        ({ONE: "zoo"}, ["zoo/a", "zoo/b"]),
        ({START: "zoo/b", END: "ape/c"}, ["zoo/b", "ape/a", "ape/c"]),
        ({}, ["zoo/a", "zoo/b", "ape/a", "ape/c", "ape/d", "solo/x"]),
    ],
)
def test_class_keys_of_run(catalog: Catalog, tags: dict[str, str], expected: list[str]) -> None:
    context = SimpleNamespace(run=SimpleNamespace(tags=tags))
    assert class_keys_of_run(context, catalog) == expected


ODD = ["100 %", "A", "a", "a, b", "it's", "x/y", "Ünï çødé", "日本語", '"quoted"', "[a]", "l" * 800]


def test_classes_of_any_name_have_a_partition(tmp_path: Path) -> None:
    """Every name comes back from its key, alone and as an end of a range."""
    path = tmp_path / "datasets.yaml"
    entry = "root: nowhere\n    layout: folders\n    split: folders\n    clip: 8x64\n    budget: {ipc: 1}"
    path.write_text(f"datasets:\n  odd:\n    {entry}\n    classes: {json.dumps(ODD)}\n")
    by_class, _, mapping = build_partitions(load_catalog(path))
    keys = list(by_class.get_partition_keys())
    assert sorted(split_key(key)[1] for key in keys) == sorted(ODD)
    assert {split_key(key)[0] for key in keys} == {"odd"}
    assert by_class.get_tags_for_partition_key("odd") == {START: keys[0], END: keys[-1]}
    assert list(by_class.get_partition_keys_in_range(dg.PartitionKeyRange(keys[0], keys[-1]))) == keys
    assert set(mapping.downstream_partition_keys_by_upstream_partition_key.values()) == {"odd"}


def test_many_classes_load_quickly(tmp_path: Path) -> None:
    """4 datasets of 400 folders: the keys are there, and no folder of a class was looked into."""
    entry = "layout: folders\n    split: {test_fraction: 0.5}\n    clip: 8x64\n    budget: {ipc: 1}\n"
    text = "datasets:\n"
    for dataset in range(4):
        for index in range(400):
            (tmp_path / f"d{dataset}" / f"class {index:03d}").mkdir(parents=True)
        text += f"  d{dataset}:\n    root: d{dataset}\n    {entry}"
    path = tmp_path / "datasets.yaml"
    path.write_text(text)
    by_class, _, _ = build_partitions(load_catalog(path))
    assert len(by_class.get_partition_keys()) == 1600

"""Types of the catalog refuse what cannot be; names and sizes are read as written."""

import pytest

from lvdd_assets.distill.catalog import (
    CLIP_PRESETS,
    CatalogError,
    ClipShape,
    Sampling,
    Split,
    checked_class,
    parse_bytes,
)
from lvdd_assets.distill.paper import BENCHMARKS, SAMPLING_INTERVAL


def test_presets_are_the_benchmark_s_shapes() -> None:
    for name in ("MiniUCF", "HMDB51"):
        benchmark = BENCHMARKS[name]
        assert CLIP_PRESETS["16x112"] == ClipShape(benchmark.frames, SAMPLING_INTERVAL, benchmark.size)
    assert (CLIP_PRESETS["8x64"].frames, CLIP_PRESETS["8x64"].size) == (
        BENCHMARKS["K400"].frames,
        BENCHMARKS["K400"].size,
    )


def test_the_window_counts_both_ends() -> None:
    assert ClipShape(16, 4, 112).window == 61
    assert ClipShape(1, 9, 8).window == 1


@pytest.mark.parametrize("values", [(0, 1, 1), (1, -1, 1), (1, 1, True), (1.0, 1, 1)])
def test_shapes_are_whole_numbers(values: tuple[int, int, int]) -> None:
    with pytest.raises(CatalogError, match="must be a whole number of at least 1"):
        ClipShape(*values)


def test_samplings_that_cannot_be() -> None:
    for changes in ({"protocol": "last"}, {"seed": -1}, {"clips_per_video": 0}, {"clips_per_video": True}):
        with pytest.raises(CatalogError):
            Sampling(**changes)


def test_a_named_split_does_not_go_by_group() -> None:
    with pytest.raises(CatalogError, match="does not go by group"):
        Split(named="official-1").is_test("g01")
    assert Split(test_groups=frozenset({"g01"})).is_test("g01")
    assert not Split(test_groups=frozenset({"g01"})).is_test("g02")


def test_a_fraction_of_the_groups_is_drawn() -> None:
    drawn = [Split(test_fraction=0.25).is_test(f"group {index}") for index in range(4000)]
    assert 850 < sum(drawn) < 1150  # six standard deviations


def test_splits_are_named_in_words() -> None:
    assert str(Split(named="official-1")) == "official-1"
    assert str(Split(test_fraction=0.25)) == "25% of groups test"
    assert str(Split(test_groups=frozenset({"a", "b"}))) == "2 test groups"


@pytest.mark.parametrize("name", ["", "  ", "a...b", "tab\there", "nul\0", "x" * 1001, "\udcff", "del\x7f"])
def test_class_names_that_cannot_be_keys(name: str) -> None:
    with pytest.raises(CatalogError, match="class name"):
        checked_class(name)


@pytest.mark.parametrize(
    ("text", "size"), [("200kB", 200_000), ("1.5 MB", 1_500_000), ("64KiB", 65_536), (12, 12), ("12", 12), ("3b", 3)]
)
def test_parse_bytes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size

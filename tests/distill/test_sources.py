"""What is said of publishers is complete, and fits the layouts."""

import re
from pathlib import Path

import pytest
import yaml

from lvdd_assets.distill.listing import LAYOUTS
from lvdd_assets.distill.registry import load_catalog
from lvdd_assets.distill.sources import SOURCES, Archive, Source


def test_every_published_layout_has_a_source() -> None:
    assert set(SOURCES) == set(LAYOUTS) - {"folders"}


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_a_source_says_terms_steps_and_an_entry_that_loads(source: Source, tmp_path: Path) -> None:
    assert source.homepage.startswith("https://")
    assert len(source.terms) > 80
    assert source.steps
    for step in source.steps:
        assert "{folder}" in step or "page above" in step or "git" in step or "follow" in step
        step.format(folder="x")
    assert all(re.fullmatch(r"(sha256|md5):[0-9a-f]+", item.known_hash) for item in source.archives if item.known_hash)
    registry = tmp_path / "datasets.yaml"
    registry.write_text("datasets:\n" + source.registry_entry("videos") + "\n")
    spec = load_catalog(registry).dataset(source.name)
    assert spec.layout == source.name
    assert spec.root.is_relative_to(tmp_path / "videos")
    assert yaml.safe_load(registry.read_text())["datasets"][source.name]["clip"] in ("16x112", "8x64")


def test_ssv2_needs_an_account() -> None:
    assert SOURCES["ssv2"].archives == ()
    assert "account" in SOURCES["ssv2"].terms


@pytest.mark.parametrize(("name", "url"), [("../x", "https://a/b"), (".x", "https://a/b"), ("x", "file:///etc/passwd")])
def test_archives_are_plain_names_on_web_servers(name: str, url: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        Archive(name, url)

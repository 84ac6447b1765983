"""What people wrote stays as they wrote it; what a command wrote it may change."""

from pathlib import Path
from typing import Any

import pytest

from lvdd_assets.distill.catalog import CatalogError
from lvdd_assets.distill.registration import register
from lvdd_assets.distill.registry import load_catalog

ENTRY: dict[str, Any] = {
    "root": "/videos/it's: {odd} # 日本",
    "layout": "folders",
    "split": {"test_fraction": 0.25},
    "clip": "8x64",
    "budget": {"bytes": "2MB"},
}
WRITTEN = """# mine
default: own
datasets:
  own:      # by hand
    root: own
    layout: folders
    split: folders
    clip: 8x64
    budget: {ipc: 1}
"""


def test_a_registry_is_made_where_there_is_none(tmp_path: Path) -> None:
    registry = tmp_path / "new" / "datasets.yaml"
    registry.parent.mkdir()
    assert register(registry, "mine", ENTRY)
    spec = load_catalog(registry).dataset("default")
    assert (spec.name, spec.root) == ("mine", Path(ENTRY["root"]))
    assert spec.budget.num_bytes == 2_000_000
    assert not register(registry, "mine", ENTRY)


def test_all_that_was_written_stays(tmp_path: Path) -> None:
    registry = tmp_path / "datasets.yaml"
    registry.write_text(WRITTEN)
    assert register(registry, "mine", ENTRY)
    assert registry.read_text().startswith(WRITTEN)
    assert load_catalog(registry).default == "own"
    first = registry.read_text()
    assert register(registry, "mine", ENTRY | {"budget": {"bytes": "3MB"}})
    changed = registry.read_text()
    assert changed.startswith(WRITTEN)
    assert changed == first.replace("2MB", "3MB")
    assert register(registry, "other", ENTRY)
    assert [spec.name for spec in load_catalog(registry).datasets] == ["own", "mine", "other"]


def test_an_entry_that_somebody_wrote_is_never_rewritten(tmp_path: Path) -> None:
    registry = tmp_path / "datasets.yaml"
    registry.write_text(WRITTEN)
    same = {"root": "own", "layout": "folders", "split": "folders", "clip": "8x64", "budget": {"ipc": 1}}
    assert not register(registry, "own", same)
    with pytest.raises(CatalogError, match="has an entry 'own' already, with other budget, root, split"):
        register(registry, "own", ENTRY)
    assert registry.read_text() == WRITTEN


def test_what_is_not_understood_changes_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "datasets.yaml"
    registry.write_text(WRITTEN)
    for name, entry in (("mine", ENTRY | {"clip": "9x9"}), ("no name!", ENTRY), ("OWN", ENTRY)):
        with pytest.raises(CatalogError, match=r"datasets\.yaml"):
            register(registry, name, entry)
        assert registry.read_text() == WRITTEN
    assert [path.name for path in tmp_path.iterdir()] == ["datasets.yaml"]

"""Which folder commands work in."""

import os
from pathlib import Path

import pytest

from lvdd_assets.cli.project import enter_project

NAMES = ("LVDD_DATASETS", "LVDD_DATA_ROOT", "DAGSTER_HOME")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.setenv(name, "restored when the test ends")
        monkeypatch.delenv(name)
    return tmp_path


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def test_a_project_s_folder_and_the_environment_come_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    (folder / "data/datasets.yaml").touch()
    assert enter_project(make=True) == Path("data/datasets.yaml")
    assert _environment() == {}
    monkeypatch.setenv("LVDD_DATASETS", "elsewhere.yaml")
    assert enter_project(make=True) == Path("elsewhere.yaml")
    assert not (folder / "lvdd").exists()


def test_elsewhere_nothing_is_made_unasked(folder: Path) -> None:
    assert enter_project() == Path("data/datasets.yaml")
    assert list(folder.iterdir()) == []
    assert _environment() == {}


def test_a_folder_is_made_once_and_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert enter_project(make=True) == Path("lvdd/datasets.yaml")
    found = {
        "LVDD_DATASETS": str(folder / "lvdd/datasets.yaml"),
        "LVDD_DATA_ROOT": str(folder / "lvdd/data"),
        "DAGSTER_HOME": str(folder / "lvdd"),
    }
    assert _environment() == found
    (folder / "lvdd/dagster.yaml").write_text("# mine\n")
    (folder / "lvdd/datasets.yaml").touch()
    for name in NAMES:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LVDD_DATA_ROOT", "/another/disk")
    assert enter_project() == Path("lvdd/datasets.yaml")
    assert _environment() == found | {"LVDD_DATA_ROOT": "/another/disk"}
    enter_project(make=True)
    assert (folder / "lvdd/dagster.yaml").read_text() == "# mine\n"

"""The environment is read in one place, and says what is wrong with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from lvdd_assets.resources import Workspace, workspace_from_environment

VARIABLES = ("LVDD_DATASETS", "LVDD_DATA_ROOT", "LVDD_WORKERS", "LVDD_DASK_SCHEDULER", "LVDD_DEVICE")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = workspace_from_environment()
    assert workspace.registry == Path("data/datasets.yaml")
    assert workspace.data_root == tmp_path / "data"
    assert workspace.num_workers >= 1
    assert workspace.scheduler == ""
    assert workspace.device == "auto"


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("/r/sets.yaml", "/r/out", "3", "tcp://host:1", "cpu"), strict=True):
        monkeypatch.setenv(name, value)
    assert workspace_from_environment() == Workspace(Path("/r/sets.yaml"), Path("/r/out"), 3, "tcp://host:1", "cpu")


@pytest.mark.parametrize("value", ["0", "two", "-1"])
def test_bad_number_of_workers(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LVDD_WORKERS", value)
    with pytest.raises(ValueError, match=f"LVDD_WORKERS must be .*at least 1, got .?{value}"):
        workspace_from_environment()


def test_the_registry_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "datasets.yaml"
    entry = "{root: a, layout: folders, split: folders, frames: 2, stride: 1, size: 8, budget: {ipc: 1}}"
    workspace = Workspace(path, tmp_path)
    for name in ("one", "two"):
        path.write_text(f"default: {name}\ndatasets:\n  {name}: {entry}\n")
        assert workspace.catalog().default == name


def test_a_relative_data_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have other current folders."""
    monkeypatch.chdir(tmp_path)
    assert Workspace(tmp_path / "datasets.yaml", Path("data")).data_root == tmp_path / "data"


def test_a_process_that_only_computes_needs_no_registry(tmp_path: Path) -> None:
    code = (
        "from lvdd_assets.resources import do_without_registry; do_without_registry(); "
        "from lvdd_assets.partitions import BY_CLASS; assert list(BY_CLASS.get_partition_keys()) == []"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

"""--config of `lvdd run` and `lvdd stale`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main
from lvdd_assets.cli.run_config import read_config


def _file(folder: Path, content: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(content)
    return file


def test_no_file_is_an_empty_config() -> None:
    assert read_config(None) == ({}, frozenset())


def test_config_by_step_as_dagster_nests_it(tmp_path: Path) -> None:
    file = _file(tmp_path, "ops: {release: {config: {recipe: codec, force: true}}, latents: {}}\nloggers: {}")
    assert read_config(file) == ({"release": {"recipe": "codec"}, "latents": {}}, {"release"})


@pytest.mark.parametrize("content", ["3", "", "ops: 3", "ops: {release: 3}", "ops: {release: {config: 3}}", "a: b: c"])
def test_what_is_no_run_config_is_said(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"config\.yaml is no run config: expected `ops: \{STEP: \{config: "):
        read_config(_file(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ops: {eval_raport: {config: {epochs: 1}}}", "config for unknown steps eval_raport; there are raw_clips, "),
        ("ops: {eval_report: {config: {epoch: 1}}}", "eval_report has no config epoch; it has "),
    ],
)
def test_a_step_or_field_that_is_unknown_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.setenv("LVDD_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("LVDD_DATASETS", raising=False)
    (tmp_path / "dagster.yaml").touch()
    result = CliRunner().invoke(main, ["run", "demo", "--config", str(_file(tmp_path, content))])
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "root").exists()

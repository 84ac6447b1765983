"""The commands as typed in a shell: `lvdd` and `dagster asset materialize` over real files, each in its own process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main
from tests.conftest import Chain, MakeChain

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def _shell(chain: Chain, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder like the project's, after `. ./env.sh`."""
    project = chain.workspace.registry.parent / "project"
    if not project.exists():
        project.mkdir()
        for name in ("dagster.yaml", "workspace.yaml", "env.sh", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, project)
        (project / "lvdd_assets").mkdir()  # env.sh looks for it; the installed package is the one that is imported
        (project / ".venv").mkdir()
        (project / ".venv/bin").symlink_to(BIN)
    environment = {
        **os.environ,
        "LVDD_DATASETS": str(chain.workspace.registry),
        "LVDD_DATA_ROOT": str(chain.workspace.data_root),
        "LVDD_WORKERS": "1",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONSAFEPATH": "1",
    }
    script = f"export DAGSTER_HOME=; unset DAGSTER_HOME; . ./env.sh; {command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def _said(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


@pytest.mark.slow
def test_select_hosvd_cores_as_typed_recomputes_just_the_touched_class(finished: MakeChain) -> None:
    chain = finished()
    (chain.videos / "train/grow/grow_001.mp4").write_bytes((chain.videos / "test/grow/grow_000.mp4").read_bytes())
    result = _shell(chain, "dagster asset materialize --select hosvd_cores")
    assert result.returncode == 0, _said(result)
    assert "hosvd_cores: computed 1 of 2 partitions (tiny/grow), 1 fresh; refreshed above" in _said(result)
    again = _shell(chain, "dagster asset materialize --select hosvd_cores --partition tiny/grow")
    assert again.returncode == 0, _said(again)
    assert "hosvd_cores: computed 0 of 1 partitions, 1 fresh" in _said(again)


@pytest.mark.slow
def test_select_release_takes_the_dataset_as_partition(finished: MakeChain) -> None:
    chain = finished()
    explicit = _shell(chain, "dagster asset materialize --select release --partition tiny")
    assert explicit.returncode == 0, _said(explicit)
    assert "release: computed 0 of 1 partitions, 1 fresh" in _said(explicit)


@pytest.mark.slow
def test_mistakes_end_with_a_message_and_an_exit_code(make_chain: MakeChain) -> None:
    chain = make_chain()
    result = _shell(chain, "dagster asset materialize --select hosvd_cores")
    assert result.returncode != 0
    assert "dagster asset materialize --select '*dpp_subsets' --partition 'tiny'" in _said(result)
    result = _shell(chain, "dagster asset materialize --select hosvd_cores --partition tiny/jump")
    assert result.returncode != 0
    assert "unknown partition 'tiny/jump'; possible are: tiny/grow, tiny/move_left" in _said(result)


@pytest.mark.slow
def test_lvdd_run_does_the_whole_chain_and_then_nothing(finished: MakeChain) -> None:
    chain = finished()
    # The finished chain was evaluated by one epoch; the command uses the defaults, so the report alone is made again.
    store = chain.workspace.data_root / "eval_report" / "tiny.commit.json"
    assert store.exists()
    first = _shell(chain, "lvdd run tiny")
    assert first.returncode == 0, _said(first)
    assert "raw_clips      0 computed, 2 fresh" in first.stdout
    assert "eval_report    1 computed, 0 fresh" in first.stdout
    assert "this release" in first.stdout
    assert "tiny.zarr.zip" in first.stdout
    assert "report.html" in first.stdout
    second = _shell(chain, "lvdd run")
    assert second.returncode == 0, _said(second)
    assert "eval_report    0 computed, 1 fresh" in second.stdout
    assert "this release" in second.stdout


@pytest.mark.slow
def test_lvdd_run_says_what_failed(finished: MakeChain) -> None:
    chain = finished(budget="{bytes: 10kB}")
    result = _shell(chain, "lvdd run tiny")
    assert result.returncode == 1
    assert "release failed: release failed for 1 of 1 partitions:" in result.stderr
    assert "the budget of 10000 B is too small" in result.stderr
    chain = finished(recipe="paper", budget="{bytes: 20kB}")
    result = _shell(chain, "lvdd run tiny")
    assert result.returncode == 1
    assert "check release_fits_its_budget failed" in result.stderr


def test_lvdd_inspect_accounts_for_every_byte(finished: MakeChain) -> None:
    path = finished().workspace.data_root / "release" / "tiny.zarr.zip"
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 0, result.output
    sizes = [int(line.split()[-2]) for line in result.output.splitlines() if line.strip().endswith("%")]
    assert sum(sizes) == path.stat().st_size
    assert "hosvd_cores tiny/grow" in result.output


def test_lvdd_inspect_refuses_what_is_no_release(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip")
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 1
    assert "is no release" in result.output


@pytest.mark.parametrize("command", [[], ["demo"], ["run"], ["inspect"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 150


def test_an_unknown_dataset_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["run", "nothing"])
    assert result.exit_code == 1
    assert "unknown dataset 'nothing'" in result.output
    assert "Traceback" not in result.output

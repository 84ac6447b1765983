"""The commands as typed in a shell: `lvdd` and `dagster asset materialize` over real files, each in its own process."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Chain, MakeChain

REPOSITORY = Path(__file__).parents[2]
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
        **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
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
    assert "dagster asset materialize --select '*dpp_subsets' --partition tiny" in _said(result)
    result = _shell(chain, "dagster asset materialize --select hosvd_cores --partition tiny/jump")
    assert result.returncode != 0
    assert "unknown partition 'tiny/jump'; possible are: tiny/grow, tiny/move_left" in _said(result)


@pytest.mark.slow
def test_lvdd_run_does_the_whole_chain_and_then_nothing(finished: MakeChain) -> None:
    chain = finished()
    # The finished chain was evaluated with a rival; with none the report alone is made again.
    config = chain.workspace.data_root.parent / "quick.yaml"
    config.write_text("ops: {eval_report: {config: {epochs: 1, batch_size: 4, rivals: [random]}}}")
    first = _shell(chain, f"lvdd run tiny --config {config}")
    assert first.returncode == 0, _said(first)
    assert "raw_clips      0 computed, 2 fresh" in first.stdout
    assert "eval_report    1 computed, 0 fresh" in first.stdout
    assert "this release" in first.stdout
    assert "tiny.zarr.zip" in first.stdout
    assert "report.html" in first.stdout
    second = _shell(chain, f"lvdd run --config {config}")
    assert second.returncode == 0, _said(second)
    assert "eval_report    0 computed, 1 fresh" in second.stdout
    assert "this release" in second.stdout
    # The first run told Dagster of what it did not know; the second had nothing to tell.
    runs = _shell(chain, "DAGSTER_HOME=$PWD dagster run list")
    assert runs.stdout.count("Run: ") == 2, _said(runs)
    config.write_text(config.read_text().replace("ops: {", "ops: {quantized_vae: {config: {force: true}}, "))
    forced = _shell(chain, f"lvdd run --config {config}")
    assert "quantized_vae  1 computed, 0 fresh" in forced.stdout
    assert "eval_report    0 computed, 1 fresh" in forced.stdout
    public = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    data = public.read_bytes()
    public.unlink()
    assert _shell(chain, f"lvdd run --config {config}").returncode == 0
    assert public.read_bytes() == data


@pytest.mark.slow
def test_lvdd_run_refuses_a_config_that_a_step_cannot_use(finished: MakeChain) -> None:
    chain = finished()
    config = chain.workspace.data_root.parent / "wrong.yaml"
    config.write_text("ops: {dpp_subsets: {config: {kernel: cubic}}}")
    result = _shell(chain, f"lvdd run tiny --config {config}")
    assert result.returncode == 1
    assert "cubic" in result.stderr
    assert "Traceback" not in result.stderr


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


def test_odd_class_names_go_through_the_whole_of_the_class_assets(make_chain: MakeChain) -> None:
    """Names with blanks, commas, percent signs, quotes and letters of any script, and two that differ only in case."""
    chain = make_chain()
    names = ["100 %, it's", "Grow", "grow", "Ünï çødé 日本"]
    for name in names:
        for side in ("train", "test"):
            if not (chain.videos / side / name).exists():
                shutil.copytree(chain.videos / side / "move_left", chain.videos / side / name)
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("[grow, move_left]", json.dumps(names)))
    result = _shell(chain, "dagster asset materialize --select '*hosvd_cores'")
    assert result.returncode == 0, _said(result)
    assert "hosvd_cores: computed 4 of 4 partitions" in _said(result)
    again = _shell(
        chain, f"dagster asset materialize --select hosvd_cores --partition {shlex.quote('tiny/' + names[0])}"
    )
    assert "hosvd_cores: computed 0 of 1 partitions, 1 fresh" in _said(again)


def test_the_ui_says_when_its_port_is_taken(finished: MakeChain) -> None:
    chain = finished()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = _shell(chain, f"lvdd ui --port {port}")
    assert result.returncode == 1
    assert f"port {port} cannot be used (Address already in use): choose another by --port" in result.stderr

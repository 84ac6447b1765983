"""The commands as typed in a shell: `lvdd` and `dagster asset materialize` over real files, each in its own process."""

import dataclasses
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
    assert "dagster asset materialize --select '*dpp_subsets' --partition tiny" in _said(result)
    result = _shell(chain, "dagster asset materialize --select hosvd_cores --partition tiny/jump")
    assert result.returncode != 0
    assert "unknown partition 'tiny/jump'; possible are: tiny/grow, tiny/move_left" in _said(result)


@pytest.mark.slow
@pytest.mark.timeout(900)  # trains three networks with the default protocol
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


@pytest.mark.parametrize("command", [[], ["demo"], ["run"], ["inspect"], ["plan"]])
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 150


def test_an_unknown_dataset_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["run", "nothing"])
    assert result.exit_code == 1
    assert "unknown dataset 'nothing'" in result.output
    assert "Traceback" not in result.output


def _enter(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a chain's workspace the one that commands in this process find."""
    monkeypatch.setenv("LVDD_DATASETS", str(chain.workspace.registry))
    monkeypatch.setenv("LVDD_DATA_ROOT", str(chain.workspace.data_root))
    monkeypatch.setenv("LVDD_WORKERS", "1")


def _datasets(chain: Chain, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    _enter(chain, monkeypatch)
    result = CliRunner().invoke(main, ["datasets", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_lvdd_datasets_counts_what_is_found_missing_and_excluded(
    make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain(more="max_lost_share: 1")
    (chain.videos / "train/grow/grow_000.mp4").write_bytes(b"")
    line = _datasets(chain, monkeypatch).splitlines()[1]
    assert line.split() == ["tiny", "*", "folders", "folders", "2", "10", "+", "4", "–", "0", "0", "–"]
    assert chain.materialize("raw_clips", partition="tiny/grow").success
    assert _datasets(chain, monkeypatch).splitlines()[1].endswith(" 1 (of 1 classes)")
    (row,) = json.loads(_datasets(chain, monkeypatch, "--json"))
    assert (row["num_train"], row["num_test"], row["num_excluded"], row["num_decoded"]) == (10, 4, 1, 1)


def test_lvdd_datasets_says_what_is_absent(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = make_chain(root="nowhere")
    monkeypatch.setenv("LVDD_DATASETS", str(chain.workspace.registry))
    result = CliRunner().invoke(main, ["datasets"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:4] == ["tiny", "*", "folders", "folders"]
    assert "no folder" in result.stderr


@pytest.mark.slow
def test_lvdd_plan_says_what_a_budget_buys(finished: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = finished()
    _enter(chain, monkeypatch)
    result = CliRunner().invoke(main, ["plan", "tiny", "--budget", "48kB"])
    assert result.exit_code == 0, result.output
    assert "tiny: 48.0 kB allowed, 2 classes" in result.output
    for recipe in ("tight", "paper", "codec"):
        assert f"  {recipe}  " in result.output
    assert "* picked: " in result.output
    assert "To use it, give tiny in the registry:  recipe: " in result.output
    parsed = json.loads(CliRunner().invoke(main, ["plan", "tiny", "--budget", "4kB", "--json"]).output)
    assert parsed["picked"] == "codec"
    assert {plan["recipe"] for plan in parsed["plans"]} == {"tight", "paper", "codec"}
    for budget, message in (("4 apples", "4 apples"), ("100", "too small")):
        refused = CliRunner().invoke(main, ["plan", "tiny", "--budget", budget])
        assert refused.exit_code == 1
        assert message in refused.output


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


def test_lvdd_fetch_says_terms_and_steps(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fetch", "ssv2", "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for said in ("licensed by Qualcomm", "accept the licence", f"{tmp_path}", "layout: ssv2"):
        assert said in result.output


def test_lvdd_fetch_downloads_nothing_before_the_terms_are_accepted(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fetch", "hmdb51", "--to", str(tmp_path)])
    assert result.exit_code == 2
    assert "CC BY 4.0" in result.output
    assert "pass --yes" in result.output
    assert list(tmp_path.iterdir()) == []
    unknown = CliRunner().invoke(main, ["fetch", "hmdb52"])
    assert unknown.exit_code == 2
    assert "'hmdb52' is none of ucf101, miniucf, hmdb51" in unknown.output


def test_lvdd_fetch_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lvdd_assets.distill import sources

    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "lists.csv").write_text("label,youtube_id\n")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        archive = sources.Archive("lists.csv", f"http://127.0.0.1:{server.server_port}/lists.csv")
        source = dataclasses.replace(sources.SOURCES["kinetics400"], archives=(archive,))
        monkeypatch.setitem(sources.SOURCES, "kinetics400", source)
        result = CliRunner().invoke(main, ["fetch", "kinetics400", "--yes", "--to", str(tmp_path / "k400")])
        server.shutdown()
    assert result.exit_code == 0, result.output
    assert (tmp_path / "k400" / "lists.csv").read_text() == "label,youtube_id\n"
    assert "the publisher gives no checksum" in result.output
    assert "layout: kinetics400" in result.output


def test_lvdd_train_vae_adapts_and_says_how_to_use_it(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = make_chain()
    _enter(chain, monkeypatch)
    result = CliRunner().invoke(main, ["train-vae", "tiny", "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert "2 updates on 9 train clips of tiny" in result.output
    assert "PSNR on 1 train clips kept apart" in result.output
    assert "vae: data/autoencoders/tiny" in result.output
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("vae: embedded-2d", "vae: data/autoencoders/tiny"))
    assert chain.materialize("latents", partition="tiny/grow").success


def test_lvdd_train_vae_takes_one_length(make_chain: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVDD_DATASETS", str(make_chain().workspace.registry))
    result = CliRunner().invoke(main, ["train-vae", "tiny", "--steps", "2", "--minutes", "1"])
    assert result.exit_code == 2
    assert "--minutes and --steps exclude each other" in result.output


def test_lvdd_fetch_takes_an_autoencoder_by_its_hub_id(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_args, **_options: str(tiny))
    result = CliRunner().invoke(main, ["fetch", "someone/tiny@v1"])
    assert result.exit_code == 0, result.output
    assert "AutoencoderTiny; its terms: https://huggingface.co/someone/tiny" in result.output
    assert "vae: someone/tiny@v1" in result.output


def test_lvdd_fetch_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    result = CliRunner().invoke(main, ["fetch", "someone/tiny"])
    assert result.exit_code == 1
    assert "Error: the autoencoder 'someone/tiny' could not be had from the hub" in result.output

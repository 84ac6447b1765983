from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from lvdd_assets.cli import main
from lvdd_assets.distill import training
from tests.cli.entering import enter
from tests.conftest import MakeChain


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


def test_lvdd_evaluate_trains_on_any_release_and_goes_on_where_it_was_cut(
    finished: MakeChain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain = finished()
    enter(chain, monkeypatch)
    stored = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    path = tmp_path / "mine.zarr.zip"
    path.write_bytes(stored.read_bytes())
    command = ["evaluate", str(path), "--epochs", "1", "--rival", "random"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(tmp_path / "mine.zarr.zip.report" / "scores.csv")
    assert scores["row"].tolist()[:2] == ["full data", "this release"]
    page = (tmp_path / "mine.zarr.zip.report" / "report.html").read_text()
    # 48 kB of pixels: no clip of each class as float32, so it says so and has no figure.
    assert "random, float32" in page
    assert "random, float32" not in scores["row"].tolist()

    def train(*_arguments: object) -> None:
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(training, "train", train)
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert again.output == result.output


def test_lvdd_evaluate_refuses_another_dataset_and_names_both(
    finished: MakeChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = finished()
    enter(chain, monkeypatch)
    path = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("[grow, move_left]", "[grow]"))
    result = CliRunner().invoke(main, ["evaluate", str(path), "--epochs", "1"])
    assert result.exit_code == 1
    assert "the release 'tiny' has 2 classes (grow, move_left, …)" in result.output
    assert "dataset 'tiny' has 1 classes (grow, …)" in result.output
    unknown = CliRunner().invoke(main, ["evaluate", str(path), "--dataset", "nothing"])
    assert unknown.exit_code == 1
    assert "unknown dataset 'nothing'" in unknown.output


def test_lvdd_tables_measures_and_says_what_is_absent(
    finished: MakeChain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain = finished()
    enter(chain, monkeypatch)
    out = tmp_path / "tables.md"
    result = CliRunner().invoke(
        main, ["tables", "tiny", "--only", "runtime", "--only", "rank-ratio", "--epochs", "1", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "tiny" in out.read_text()
    assert "Not run, dataset absent: MiniUCF" in out.read_text()
    assert "hosvd_cores" in out.read_text()
    unknown = CliRunner().invoke(main, ["tables", "tiny", "--only", "figure 9"])
    assert unknown.exit_code == 1
    assert "unknown tables figure 9; known: " in unknown.output

"""`lvdd evaluate` and `lvdd tables` on a finished chain."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from lvdd_assets.cli import evaluating, main
from lvdd_assets.distill import training
from tests.cli.entering import enter
from tests.conftest import MakeChain


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
    document = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert [row["name"] for row in document["rows"]] == scores["row"].tolist()
    assert document["rows"][1]["mean_top1"] == pytest.approx(scores["top1"][1])
    assert "random, float32" in [one["name"] for one in document["not_run"]]
    assert json.loads((tmp_path / "mine.zarr.zip.report" / "evaluation.json").read_text()) == {
        name: value for name, value in document.items() if name != "files"
    }
    compared = json.loads(CliRunner().invoke(main, ["compare", str(path), str(stored), "--json"]).stdout)
    mine, chains = (one["scores"] for one in compared["releases"])
    assert mine["top1"] == [document["rows"][1]["scores"][0]["top1"]]
    assert chains["found_in"] == "eval_report"


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
    command = ["tables", "tiny", "--only", "runtime", "--json"]
    (table,) = json.loads(CliRunner().invoke(main, command).stdout)["tables"]
    assert table["name"] == "runtime"
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    for wrong, said in ((["--only", "figure 9"], "'figure 9' is not one of"), (["--ipc", "1/0"], "expected a number")):
        unknown = CliRunner().invoke(main, ["tables", "tiny", *wrong])
        assert unknown.exit_code == 2
        assert said in unknown.output


def test_choices_are_those_of_the_method() -> None:
    from lvdd_assets.distill.comparison import RIVALS
    from lvdd_assets.distill.paper_tables import UNTRAINED

    assert tuple(RIVALS) == evaluating.RIVALS
    text = " ".join(CliRunner().invoke(main, ["tables", "--help"]).output.split())
    assert all(name in text.partition("train nothing")[0].rpartition("on a CPU;")[2] for name in UNTRAINED)

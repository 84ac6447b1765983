"""The report trains on what ships, stores its figures, and stops at a broken budget."""

import shutil

import pandas as pd
import pytest

from lvdd_assets.assets import eval_report
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.evaluating import SCORES, protocol_of
from tests.conftest import QUICK, MakeChain, failure, metadata


def test_report_and_scores_are_written(finished: MakeChain) -> None:
    chain = finished()
    folder = chain.workspace.data_root / "eval_report" / "tiny"
    page = (folder / "report.html").read_text()
    assert "tiny" in page
    assert "data:image/png;base64," in page
    scores = pd.read_csv(folder / "scores.csv")
    assert scores["row"].tolist() == ["full data", "this release", "the same bytes as AV1"]
    assert scores["num_updates"].nunique() == 1
    assert scores["train_clips"].tolist()[:2] == [10, 6]
    assert scores["top1"].between(0, 1).all()
    release = (chain.workspace.data_root / "release" / "tiny.zarr.zip").stat().st_size
    assert scores["stored_bytes"].tolist()[1] == release
    assert scores["stored_bytes"].tolist()[2] <= release


def test_metadata_and_cache(finished: MakeChain) -> None:
    chain = finished()
    result = chain.materialize("eval_report", config=QUICK)
    assert chain.computed(result) == set()
    shown = metadata(result, "eval_report", "tiny")
    assert shown["num_test_clips"] == 4
    assert "this release" in shown["summary"]
    assert shown["preview"].startswith("![preview](data:image/png")


def test_same_seed_same_scores(finished: MakeChain) -> None:
    chain = finished()
    store = FileStore(chain.workspace.data_root, "eval_report")
    before = pd.read_csv(store.path("tiny/scores.csv")).drop(columns="seconds")
    shutil.rmtree(chain.workspace.data_root / SCORES)  # trained again, not remembered
    again = {"eval_report": {**QUICK["eval_report"], "force": True}}
    assert chain.computed(chain.materialize("eval_report", config=again)) == {"eval_report tiny"}
    pd.testing.assert_frame_equal(pd.read_csv(store.path("tiny/scores.csv")).drop(columns="seconds"), before)


def test_a_release_over_budget_is_not_evaluated(finished: MakeChain) -> None:
    chain = finished(recipe="paper", budget="{bytes: 5kB}")
    result = chain.materialize("quantized_vae", "release", "eval_report", config=QUICK)
    assert not result.success
    assert not result.get_asset_check_evaluations()[-1].passed
    assert not [e for e in result.get_asset_materialization_events() if e.asset_key.to_user_string() == "eval_report"]
    # Asked for alone, without the check in the same run, it refuses by itself.
    alone = chain.materialize("eval_report", config=QUICK)
    assert not alone.success
    assert "is not evaluated" in failure(alone)
    assert "over the allowance of 5000 B" in failure(alone)


@pytest.mark.parametrize("epochs", [0, -1])
def test_bad_settings_are_refused_by_the_config(finished: MakeChain, epochs: int) -> None:
    result = finished().materialize("eval_report", config={"eval_report": {"epochs": epochs}})
    assert not result.success
    assert "greater than or equal to 1" in failure(result)


def test_settings_of_a_run_change_the_preset() -> None:
    config = eval_report.EvalReportConfig(protocol="literature", seeds=[1, 2], augmentation=["crop"]).model_dump()
    protocol = protocol_of(config, 100)
    assert (protocol.epochs, protocol.batch_size) == (500, 256)
    assert (protocol.seeds, protocol.augmentation) == ((1, 2), ("crop",))

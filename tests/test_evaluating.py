"""What a report says beside its figures. The way from stores to figures is tested with the asset and the command."""

from dataclasses import replace

import numpy as np

from lvdd_assets.assets.eval_report import EvalReportConfig
from lvdd_assets.distill import paper
from lvdd_assets.distill.comparison import Compared
from lvdd_assets.distill.report_data import ReportRow
from lvdd_assets.distill.scores import Row, Score
from lvdd_assets.evaluating import _failures, protocol_of
from tests.conftest import MakeChain


def test_a_config_changes_what_it_names_and_nothing_else() -> None:
    plain = protocol_of(EvalReportConfig().model_dump(), 1000)
    changed = protocol_of(EvalReportConfig(network="c3d", seeds=[4], epochs=2).model_dump(), 1000)
    assert changed == replace(plain, network="c3d", seeds=(4,), epochs=2)
    literature = protocol_of(EvalReportConfig(protocol="literature").model_dump(), 1000)
    assert literature.epochs == paper.TRAINING_EPOCHS


def test_a_diverged_seed_is_said() -> None:
    score = Score(0.5, 1.0, 0, 10, np.eye(2, dtype=np.int64), 1.0)
    row = ReportRow(Row("full data", 4, (score,), ((1, "the loss is nan at step 3"),)), 10, "full")
    assert _failures(Compared((row,), (), ())) == ("full data: seed 1 is missing, the loss is nan at step 3",)


def test_the_report_has_time_and_memory_of_every_step(finished: MakeChain) -> None:
    page = (finished().workspace.data_root / "eval_report" / "tiny" / "report.html").read_text()
    for step in ("raw_clips", "latents", "dpp_subsets", "hosvd_cores", "quantized_vae", "release", "evaluation"):
        assert step in page

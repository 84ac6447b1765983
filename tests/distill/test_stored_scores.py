"""`stored_scores`: what was measured is found again for that very file, and for no other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvdd_assets.distill.release import Release, load_release, read_ledger
from lvdd_assets.distill.report_data import CurvePoint, NotRun, ReportData, ReportRow
from lvdd_assets.distill.scores import Row, Score
from lvdd_assets.distill.stored_scores import (
    FILE_NAME,
    evaluation_document,
    scores_of_chain,
    scores_of_evaluation,
    write_evaluation,
)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def release() -> Release:
    return load_release(GOLDEN / "release-v4.zarr.zip")


def _row(name: str, role: str, stored_bytes: int, *correct: int) -> ReportRow:
    """Of ten test clips of each of three classes, so many of the first are right and all others."""
    scores = tuple(
        Score((count + 20) / 30, 1.0, seed, 7, np.array([[count, 10 - count, 0], [0, 10, 0], [0, 0, 10]]), 0.5)
        for seed, count in enumerate(correct)
    )
    return ReportRow(Row(name, 6, scores), stored_bytes, role)  # type: ignore[arg-type]


@pytest.fixture
def document(release: Release) -> dict[str, Any]:
    report = ReportData(
        dataset=release.name,
        class_names=release.class_names,
        rows=(
            _row("full data", "full", 10_000, 10, 10),
            _row("this release", "release", release.stored_bytes, 4, 7),
            _row("the same bytes as AV1", "video", 3000, 1, 1),
        ),
        allowed_bytes=4000,
        ledger=read_ledger(release.path).table(),
        settings={"clip": "4 frames", "seeds": (0, 1)},
        provenance=release.provenance,
        versions={},
        not_run=(NotRun("random, float32", "no clip fits"),),
        curve=(CurvePoint("tight", 3000, (0.5, 0.6)),),
    )
    return evaluation_document(report, release)


def test_an_evaluation_holds_every_figure(document: dict[str, Any], release: Release) -> None:
    parsed = json.loads(json.dumps(document, allow_nan=False))
    assert (parsed["sha256"], parsed["bytes"]) == (release.sha256, release.stored_bytes)
    assert [row["role"] for row in parsed["rows"]] == ["full", "release", "video"]
    assert [score["top1"] for score in parsed["rows"][1]["scores"]] == pytest.approx([24 / 30, 27 / 30])
    assert parsed["rows"][1]["mean_top1"] == pytest.approx(0.85)
    assert parsed["class_top1"] == pytest.approx({"own": 0.55, "shared": 1.0, "av1": 1.0})
    assert parsed["num_test_clips"] == 30
    assert parsed["chance"]["top1"] == pytest.approx(1 / 3)
    assert parsed["not_run"] == [{"name": "random, float32", "reason": "no clip fits"}]
    assert parsed["curve"] == [{"recipe": "tight", "stored_bytes": 3000, "accuracies": [0.5, 0.6]}]


def test_scores_are_found_for_that_file_and_no_other(
    document: dict[str, Any], release: Release, tmp_path: Path
) -> None:
    assert scores_of_evaluation(tmp_path, release) is None
    path = write_evaluation(tmp_path, document)
    assert [one.name for one in tmp_path.iterdir()] == [FILE_NAME]
    found = scores_of_evaluation(tmp_path, release)
    assert found is not None
    assert found.top1 == pytest.approx((0.8, 0.9))
    assert (found.num_updates, found.num_test_clips, found.found_in) == (7, 30, str(path))
    assert found.mean_top1 == pytest.approx(0.85)
    assert found.std_top1 == pytest.approx(0.0707, abs=1e-4)
    assert scores_of_evaluation(tmp_path, replace(release, sha256="0" * 64)) is None
    for damaged in ("", "{}", "[]", path.read_text()[:-30]):
        path.write_text(damaged)
        assert scores_of_evaluation(tmp_path, release) is None


def test_the_chain_s_scores_belong_to_the_release_that_it_made(release: Release) -> None:
    fingerprint = "0123456789abcdef" * 4
    row = {"row": "this release", "seed": 0, "top1": 0.5, "top5": 1.0, "num_updates": 3}
    metrics = {"scores": [{**row, "row": "full data", "top1": 0.9}, row], "num_test_clips": 12}
    inputs = {f"release {release.name}": fingerprint}
    made = replace(release, provenance={"release": fingerprint[:16]})
    found = scores_of_chain(inputs, metrics, made)
    assert found is not None
    assert (found.top1, found.num_updates, found.num_test_clips, found.std_top1) == ((0.5,), 3, 12, 0.0)
    for other in ({"release": "f" * 16}, {"release": ""}, {"release": 3}, {}):
        assert scores_of_chain(inputs, metrics, replace(release, provenance=other)) is None
    assert scores_of_chain({}, metrics, made) is None

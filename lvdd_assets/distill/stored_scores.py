"""What a release was found to be worth, kept so that it is found again for that very file: by `lvdd evaluate` in
`evaluation.json`, known by the file's hash; by the chain in the mark of `eval_report`, known by the release's
fingerprint.

A release that was made anew has other scores or none; those of before are never shown beside it. What must NOT come
here: training (`evaluation`), the report (`report`).
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvdd_assets.distill.release import Release

if TYPE_CHECKING:  # pandas, which the base install leaves out
    from lvdd_assets.distill.report_data import ReportData

FILE_NAME = "evaluation.json"
"""The file of an evaluation, beside its `report.html`."""

_RELEASE = "this release"


@dataclass(frozen=True)
class StoredScores:
    """Accuracies of networks trained on a release and tested on real clips.

    Attributes:
        top1: by seed, in [0, 1].
        top5: by seed, in [0, 1].
        num_updates: optimiser steps of each network.
        num_test_clips: that they were tested on.
        found_in: where the scores are kept.
    """

    top1: tuple[float, ...]
    top5: tuple[float, ...]
    num_updates: int
    num_test_clips: int
    found_in: str

    @property
    def mean_top1(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return statistics.fmean(self.top1)

    @property
    def std_top1(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "mean_top1": self.mean_top1, "std_top1": self.std_top1}


def evaluation_document(report: "ReportData", release: Release) -> dict[str, Any]:
    """An evaluation as plain values: whose, how, and every figure of the comparison and of the curve."""
    return {
        "dataset": report.dataset,
        "sha256": release.sha256,
        "bytes": report.used_bytes,
        "allowed_bytes": report.allowed_bytes,
        "num_test_clips": report.num_test_clips,
        "metric": report.metric,
        "chance": {"top1": report.chance_of("top1"), "top5": report.chance_of("top5")},
        "settings": {name: _plain(value) for name, value in report.settings.items()},
        "rows": [
            {
                "name": row.name,
                "role": row.role,
                "num_clips": row.result.num_clips,
                "bytes": row.stored_bytes,
                "mean_top1": row.result.mean_top1,
                "std_top1": row.result.std_top1,
                "mean_top5": row.result.mean_top5,
                "std_top5": row.result.std_top5,
                "scores": [
                    {"seed": one.seed, "top1": one.top1, "top5": one.top5, "num_updates": one.num_updates}
                    for one in row.result.scores
                ],
            }
            for row in report.rows
        ],
        "not_run": [asdict(one) for one in report.not_run],
        "curve": [asdict(point) for point in report.curve],
        "class_top1": dict(zip(report.class_names, report.release.result.class_accuracy.tolist(), strict=True)),
    }


def write_evaluation(folder: Path, document: Mapping[str, Any]) -> Path:
    """Writes an evaluation beside its report; a reader never sees half of one."""
    path = folder / FILE_NAME
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
    partial.replace(path)
    return path


def scores_of_evaluation(folder: Path, release: Release) -> StoredScores | None:
    """Scores that `lvdd evaluate` left in a folder, or None where there are none of this very file."""
    try:
        document = json.loads((folder / FILE_NAME).read_bytes())
        if document["sha256"] != release.sha256:
            return None
        (row,) = (row for row in document["rows"] if row["role"] == "release" and row["name"] == _RELEASE)
        return _scores(row["scores"], document["num_test_clips"], str(folder / FILE_NAME))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def scores_of_chain(inputs: Mapping[str, str], metrics: Mapping[str, Any], release: Release) -> StoredScores | None:
    """Scores in the mark of `eval_report`, or None where it was made of another release.

    Args:
        inputs: the mark's fingerprints of what it was made from.
        metrics: the mark's figures.
        release: the release, which may be a copy: its provenance has the beginning of its fingerprint.
    """
    name = release.provenance.get("release")
    if not isinstance(name, str) or not name or not inputs.get(f"release {release.name}", "").startswith(name):
        return None
    rows = [row for row in metrics.get("scores", ()) if row.get("row") == _RELEASE]
    return _scores(rows, metrics["num_test_clips"], "eval_report") if rows else None


def _scores(rows: Sequence[Mapping[str, Any]], num_test_clips: int, found_in: str) -> StoredScores:
    return StoredScores(
        tuple(float(row["top1"]) for row in rows),
        tuple(float(row["top5"]) for row in rows),
        int(rows[0]["num_updates"]),
        int(num_test_clips),
        found_in,
    )


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

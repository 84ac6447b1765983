"""Small reports with figures that can be counted by hand."""

import dataclasses

import numpy as np
import pandas as pd

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.report_data import ReportData, ReportRow

NAMES = ("move_left", "<b>spin</b> & co")


def make_row(name: str, hits: list[int], role: str, stored_bytes: int, *, per_class: int = 50) -> ReportRow:
    """A row with one seed per entry of `hits`: test clips of the first class that were guessed right; the second
    class is always right."""
    scores = []
    for seed, right in enumerate(hits):
        confusion = np.array([[right, per_class - right], [0, per_class]])
        scores.append(evaluation.Score((right + per_class) / (2 * per_class), 1.0, seed, 40, confusion, 1.5))
    return ReportRow(evaluation.Row(name, 20, tuple(scores)), stored_bytes, role, "a note")  # type: ignore[arg-type]


def make_ledger(**changes: int) -> pd.DataFrame:
    sizes = {"decoder": 100_000, "first": 30_000, "second": 20_000, "labels": 500, "metadata": 4_500, **changes}
    lines = [
        ("decoder", "", sizes["decoder"]),
        ("cores", NAMES[0], sizes["first"]),
        ("cores", NAMES[1], sizes["second"]),
        ("labels", "", sizes["labels"]),
        ("metadata", "", sizes["metadata"]),
    ]
    return pd.DataFrame(lines, columns=["part", "class", "bytes"])


def make_report(
    *, full: list[int], release: list[int], video: list[int] | None = None, **changes: object
) -> ReportData:
    rows = [make_row("full data", full, "full", 20_000_000), make_row("this release", release, "release", 155_000)]
    if video is not None:
        rows.append(make_row("plain video (AV1)", video, "video", 150_000))
    data = ReportData(
        dataset="demo",
        class_names=NAMES,
        rows=tuple(rows),
        allowed_bytes=200_000,
        ledger=make_ledger(),
        settings={"recipe": "tight", "learning rate": 0.01},
        provenance={"release": "0123abcd"},
        versions={"torch": "9.9.9"},
    )
    return dataclasses.replace(data, **changes)  # type: ignore[arg-type]


USUAL = make_report(full=[46, 44], release=[40, 36], video=[4, 2])

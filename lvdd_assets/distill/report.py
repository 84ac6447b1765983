"""One page and one table that say what a release costs in bytes and what it is worth in accuracy.

Here belong the HTML page (its template is package data) and the tables beside it.
What must NOT come here: training, counting bytes, reading releases: all figures come in as `ReportData`. Words belong
to `report_text`, pictures to `report_pictures`.

Legend: K classes.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.report_data import ReportData, ReportRow, Sheet
from lvdd_assets.distill.report_pictures import contact_sheet, pair_sheet
from lvdd_assets.distill.report_text import bytes_by, percent, spread, summary_table, verdict

__all__ = [
    "ReportData",
    "ReportRow",
    "Sheet",
    "contact_sheet",
    "pair_sheet",
    "scores_table",
    "summary_table",
    "verdict",
    "write_report",
]

_MAX_CONFUSIONS = 10


def write_report(folder: Path, report: ReportData) -> tuple[Path, Path]:
    """Write `report.html`, one page that needs nothing beside it, and `scores.csv`, one line per row and
    seed.

    Each file is first written beside its place and then moved there, so that a reader never sees half of one.

    Returns:
        Paths of the page and of the table.
    """
    environment = Environment(
        loader=PackageLoader("lvdd_assets.distill"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": lambda size: _unbroken(format_bytes(size)),
        "percent": lambda part: _unbroken(percent(part)),
        "spread": lambda mean, deviation, num_seeds: _unbroken(spread(mean, deviation, num_seeds)),
        "length": lambda part: f"{100 * part:.3f}%",
    }
    page = environment.get_template("report.html.j2").render(_page_values(report))
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        folder / "report.html": page,
        folder / "scores.csv": scores_table(report).to_csv(index=False, float_format="%.6f", lineterminator="\n"),
    }
    for path, text in texts.items():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    html_path, csv_path = texts
    return html_path, csv_path


def scores_table(report: ReportData) -> pd.DataFrame:
    """One line per row and seed: row, seed, top1, top5, num_updates, train_clips, stored_bytes, seconds."""
    return pd.DataFrame(
        [
            {
                "row": row.result.name,
                "seed": score.seed,
                "top1": score.top1,
                "top5": score.top5,
                "num_updates": score.num_updates,
                "train_clips": row.result.num_clips,
                "stored_bytes": row.stored_bytes,
                "seconds": score.seconds,
            }
            for row in report.rows
            for score in row.result.scores
        ]
    )


def _page_values(report: ReportData) -> dict[str, Any]:
    """The template's variables beside the filters; `scale` is the number of bytes that the ledger's bar is long."""
    class_bytes = bytes_by("class", report)
    accuracy_K = report.release.result.class_accuracy
    return {
        "report": report,
        "verdict": verdict(report).replace(" %", "\u00a0%"),
        "scale": max(report.allowed_bytes, report.used_bytes),
        "parts": bytes_by("part", report),
        "largest_class": max(1, *(class_bytes[name] for name in report.class_names)),
        "classes": [
            {"name": name, "bytes": class_bytes[name], "accuracy": accuracy}
            for name, accuracy in zip(report.class_names, accuracy_K, strict=True)
        ],
        "confusions": _confusions(report),
        "images": [
            {"uri": "data:image/png;base64," + base64.b64encode(sheet.png).decode("ascii"), "caption": sheet.caption}
            for sheet in report.sheets
        ],
    }


def _confusions(report: ReportData) -> list[dict[str, str]]:
    """The commonest wrong guesses of the networks trained on the release, over all seeds."""
    counts_KK = sum((score.confusion for score in report.release.result.scores), np.zeros((), dtype=np.int64))
    wrong_KK = counts_KK - np.diag(np.diag(counts_KK))
    order = np.argsort(-wrong_KK, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = [(int(index) // len(wrong_KK), int(index) % len(wrong_KK)) for index in order]
    totals_K = counts_KK.sum(axis=1)
    return [
        {
            "true": report.class_names[true],
            "guess": report.class_names[guess],
            "share": percent(wrong_KK[true, guess] / totals_K[true]),
        }
        for true, guess in pairs
        if wrong_KK[true, guess] > 0
    ]


def _unbroken(text: str) -> str:
    """The text with spaces at which a browser does not break the line, so that a number keeps its unit."""
    return text.replace(" ", "\u00a0")

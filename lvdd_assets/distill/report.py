"""One page and tables that say what a release costs in bytes and what it is worth in accuracy.

Here belong the HTML page (its template is package data) and the tables beside it.
What must NOT come here: training, counting bytes, reading releases: all figures come in as `ReportData`. Words belong
to `report_text`, the curve to `report_plots`, pictures of clips to `report_pictures`.

Legend: K classes.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.report_data import (
    CurvePoint,
    Metric,
    NotRun,
    Preview,
    ReportData,
    ReportRow,
    Sheet,
    Stage,
)
from lvdd_assets.distill.report_pictures import contact_sheet, first_frame, looping_preview, mime_of, pair_sheet
from lvdd_assets.distill.report_plots import curve_png, curve_svg
from lvdd_assets.distill.report_text import (
    bytes_by,
    duration,
    percent,
    spread,
    summary_table,
    verdict,
    verdict_sentences,
)

__all__ = [
    "CurvePoint",
    "NotRun",
    "Preview",
    "ReportData",
    "ReportRow",
    "Sheet",
    "Stage",
    "classes_table",
    "contact_sheet",
    "curve_png",
    "curve_svg",
    "curve_table",
    "looping_preview",
    "pair_sheet",
    "scores_table",
    "summary_table",
    "verdict",
    "write_report",
]

_MAX_CONFUSIONS = 10
_NUM_WEAKEST = 10
_MANY_CLASSES = 20
_METRICS: Mapping[Metric, str] = {"top1": "top-1", "top5": "top-5"}


def write_report(folder: Path, report: ReportData) -> tuple[Path, ...]:
    """Write `report.html`, one page that needs nothing beside it, and its figures: `scores.csv`, one line per row and
    seed, `classes.csv`, one line per class, and, where there is a curve, `curve.csv`, one line per point and seed, and
    its picture `curve.png`.

    Each file is first written beside its place and then moved there, so that a reader never sees half of one.

    Returns:
        Paths of the page, the tables and the picture, in this order.
    """
    tables = {"scores.csv": scores_table(report), "classes.csv": classes_table(report)}
    if report.curve:
        tables["curve.csv"] = curve_table(report)
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / "report.html": _page(report).encode()} | {
        folder / name: table.to_csv(index=False, float_format="%.6f", lineterminator="\n").encode()
        for name, table in tables.items()
    }
    if report.curve:
        files[folder / "curve.png"] = curve_png(report)
    for path, data in files.items():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(data)
        partial.replace(path)
    return tuple(files)


def scores_table(report: ReportData) -> pd.DataFrame:
    """One line per row and seed: row, seed, top1, top5, num_updates, train_clips, stored_bytes, seconds, role."""
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
                "role": row.role,
            }
            for row in report.rows
            for score in row.result.scores
        ]
    )


def classes_table(report: ReportData) -> pd.DataFrame:
    """One line per class: class, bytes in the file, test_clips, top1 of the release, top1_full (means over seeds)."""
    class_bytes = bytes_by("class", report)
    scores = report.release.result.scores
    return pd.DataFrame(
        {
            "class": report.class_names,
            "bytes": [class_bytes[name] for name in report.class_names],
            "test_clips": scores[0].confusion.sum(axis=1),
            "top1": report.release.result.class_accuracy,
            "top1_full": report.full.result.class_accuracy,
        }
    )


def curve_table(report: ReportData) -> pd.DataFrame:
    """One line per point of the curve and seed: recipe, stored_bytes, run (0, 1, …), and the report's metric."""
    return pd.DataFrame(
        [
            {"recipe": recipe, "stored_bytes": point.stored_bytes, "run": run, report.metric: accuracy}
            for recipe, points in report.recipes.items()
            for point in points
            for run, accuracy in enumerate(point.accuracies)
        ],
        columns=["recipe", "stored_bytes", "run", report.metric],
    )


def _page(report: ReportData) -> str:
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
        "spread": lambda row, metric: _unbroken(spread(row.mean(metric), row.std(metric), row.num_seeds)),
        "point_spread": lambda point: _unbroken(spread(point.mean, point.std, len(point.accuracies))),
        "duration": lambda seconds: _unbroken(duration(seconds)),
        "length": lambda part: f"{100 * part:.3f}%",
    }
    return environment.get_template("report.html.j2").render(_page_values(report))


def _page_values(report: ReportData) -> dict[str, Any]:
    """The template's variables beside the filters; `scale` is the number of bytes that the ledger's bar is long."""
    class_bytes = bytes_by("class", report)
    both = zip(report.class_names, report.release.result.class_accuracy, report.full.result.class_accuracy, strict=True)
    classes: list[dict[str, Any]] = [
        {"name": name, "bytes": class_bytes[name], "release": release, "full": full} for name, release, full in both
    ]
    many = len(classes) > _MANY_CLASSES
    groups = _groups(report)
    return {
        "report": report,
        "verdict": [_units_unbroken(sentence) for sentence in verdict_sentences(report)],
        "metrics": _METRICS,
        "second_metric": "top5" if report.metric == "top1" else "top1",
        "top1_chance": report.chance_of("top1"),
        "training": _training(report),
        "curves": [curve_svg(report), curve_svg(report, narrow=True)] if report.curve else [],
        "comparison": _comparison(report, groups),
        "groups": groups if any(len(rows) > 1 for rows in groups.values()) else {},
        "notes": _notes(report, groups),
        "scale": max(report.allowed_bytes, report.used_bytes),
        "parts": bytes_by("part", report),
        "largest_class": max(1, *(class_bytes[name] for name in report.class_names)),
        "classes": classes,
        "weakest": sorted(classes, key=lambda line: line["release"])[:_NUM_WEAKEST] if many else [],
        "matrix": [] if many else _matrix(report),
        "confusions": _confusions(report),
        "images": [{"uri": _uri(sheet.png, mime_of(sheet.png)), "caption": sheet.caption} for sheet in report.sheets],
        "previews": [
            {
                "uri": _uri(preview.data, preview.mime),
                "still": _uri(first_frame(preview.data), "image/webp"),
                "caption": preview.caption,
            }
            for preview in report.previews
        ],
        "peaks": [stage.peak_bytes for stage in report.stages if stage.peak_bytes is not None],
        "longest": max([stage.seconds for stage in report.stages], default=0.0) or 1.0,
        "facts": (
            ("Settings", {**report.settings, **_seeds(report)}),
            ("Provenance", report.provenance),
            ("Versions", report.versions),
        ),
    }


def _groups(report: ReportData) -> dict[str, list[ReportRow]]:
    """Subsets by how they are kept, in the order of the rows."""
    groups: dict[str, list[ReportRow]] = {}
    for row in report.rows:
        if row.role == "subset":
            groups.setdefault(row.group_name, []).append(row)
    return groups


def _comparison(report: ReportData, groups: Mapping[str, list[ReportRow]]) -> list[tuple[ReportRow, str]]:
    """Rows with their notes: full data, the release, its competitors, and of each group of subsets the best."""
    rows = [(report.full, report.full.note), (report.release, report.release.note)]
    rows += [(row, row.note) for row in report.rows if row.role in ("recipe", "video", "other")]
    for name, subsets in groups.items():
        best = max(subsets, key=lambda row: row.mean(report.metric))
        kept = f", {name}" if name and name not in best.note else ""
        note = f"{best.note}{kept}" if best.note else name
        rows.append((best, f"best of {len(subsets)}: {note}" if len(subsets) > 1 else note))
    return rows


def _notes(report: ReportData, groups: Mapping[str, list[ReportRow]]) -> list[str]:
    notes = [
        f"{row.name}, seed {seed}, is not in the mean: {reason}"
        for row in report.rows
        for seed, reason in row.result.failures
    ]
    notes += report.notes
    if any(len(rows) > 1 for rows in groups.values()):
        notes.append("The best of several subsets is picked by the test clips, which flatters it.")
    return notes


def _training(report: ReportData) -> str:
    """How long the rows were trained, in words."""
    updates = {score.num_updates for row in report.rows for score in row.result.scores}
    if len(updates) == 1:
        return f"with equally many updates ({updates.pop()})"
    return f"with {min(updates)} to {max(updates)} updates (scores.csv has each row's)"


def _seeds(report: ReportData) -> dict[str, str]:
    """Seeds of the release's networks, unless the settings name them."""
    if "seeds" in report.settings:
        return {}
    return {"seeds": ", ".join(str(score.seed) for score in report.release.result.scores)}


def _matrix(report: ReportData) -> list[dict[str, Any]]:
    """Lines of the confusion matrix with counts and shares of the line."""
    return [
        {
            "name": name,
            "index": true,
            "total": int(counts_K.sum()),
            "cells": [{"count": int(count), "share": count / counts_K.sum()} for count in counts_K],
        }
        for true, (name, counts_K) in enumerate(zip(report.class_names, report.confusion, strict=True))
    ]


def _confusions(report: ReportData) -> list[dict[str, str]]:
    """The commonest wrong guesses of the networks trained on the release, over all seeds."""
    counts_KK = report.confusion
    wrong_KK = counts_KK - np.diag(np.diag(counts_KK))
    order = np.argsort(-wrong_KK, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = [(int(index) // len(wrong_KK), int(index) % len(wrong_KK)) for index in order]
    totals_K = counts_KK.sum(axis=1)
    return [
        {
            "true": report.class_names[true],
            "guess": report.class_names[guess],
            "share": _unbroken(percent(wrong_KK[true, guess] / totals_K[true])),
        }
        for true, guess in pairs
        if wrong_KK[true, guess] > 0
    ]


def _uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64," + base64.b64encode(data).decode("ascii")


def _unbroken(text: str) -> str:
    """The text with spaces at which a browser does not break the line, so that a number keeps its unit."""
    return text.replace(" ", "\u00a0")


def _units_unbroken(text: str) -> str:
    """A sentence whose numbers keep their units."""
    return re.sub(r"(?<=\d) (?=(?:%|B|kB|MB|GB)\b|%)", "\u00a0", text)

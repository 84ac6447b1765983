"""A report in words: the verdict, the terminal's table, and how its numbers are written.

What must NOT come here: HTML, drawing, training; all figures come in as `ReportData`.
"""

import math
from collections.abc import Sequence

from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.report_data import ReportData, ReportRow

_SAME = 5e-4
"""Accuracies closer than this read the same when they are printed."""


def verdict(report: ReportData) -> str:
    """What the figures say, in a few sentences that hold whichever row comes out on top."""
    return " ".join(verdict_sentences(report))


def verdict_sentences(report: ReportData) -> list[str]:
    """The sentences of `verdict`: the release against full data, its competitors in as many bytes, and the test."""
    sentences = [_release_sentence(report)]
    best = report.best_subset
    for row in report.rows:
        if row.role == "video":
            sentences.append(_competitor_sentence(row, report, "plain video"))
        elif row is best:
            count = len(report.subsets)
            title = f"best of {count} subsets, {row.name}" if count > 1 else row.name
            sentences.append(_competitor_sentence(row, report, "the subset", title))
        elif row.role in ("recipe", "other") and _is_better(row, report):
            sentences.append(_competitor_sentence(row, report, "it"))
    seeds = "one seed" if report.num_seeds == 1 else f"mean of {report.num_seeds} seeds"
    metric = report.metric_name.capitalize()
    sentences.append(f"{metric} on {report.num_test_clips} test clips, {seeds}; chance is {percent(report.chance)}.")
    return sentences


def summary_table(report: ReportData) -> str:
    """The report's main figures as plain text for a terminal."""
    used = f"{format_bytes(report.used_bytes)} of {format_bytes(report.allowed_bytes)} allowed"
    parts = ", ".join(f"{part} {format_bytes(size)}" for part, size in bytes_by("part", report).items())
    rows = [["trained on", "clips", "bytes", "top-1", "top-5"]]
    for row in report.rows:
        result = row.result
        rows.append(
            [
                result.name,
                str(result.num_clips),
                format_bytes(row.stored_bytes),
                spread(result.mean_top1, result.std_top1, len(result.scores)),
                spread(result.mean_top5, result.std_top5, len(result.scores)),
            ]
        )
    rows.append(["chance", "", "", percent(report.chance_of("top1")), percent(report.chance_of("top5"))])
    absent = "\n".join(f"{row.name}: not run: {row.reason}" for row in report.not_run)
    class_bytes = bytes_by("class", report)
    accuracy_K = report.release.result.class_accuracy
    classes = [["class", "bytes", "top-1"]]
    for name, accuracy in zip(report.class_names, accuracy_K, strict=True):
        classes.append([name, format_bytes(class_bytes[name]), percent(accuracy)])
    head = f"{report.dataset}: {used} ({percent(report.used_bytes / report.allowed_bytes)}): {parts}"
    return "\n\n".join(part for part in (head, _align(rows), absent, _align(classes), verdict(report)) if part)


def bytes_by(column: str, report: ReportData) -> dict[str, int]:
    """The ledger's bytes by part or by class, in its order."""
    grouped = report.ledger.groupby(column, sort=False)["bytes"].sum()
    return {str(name): int(size) for name, size in grouped.items()}


def percent(part: float) -> str:
    """A part in [0, 1] as a percentage."""
    return f"{100 * part:.1f} %"


def spread(mean: float, deviation: float, num_seeds: int) -> str:
    """A mean of parts with its standard deviation, which a single seed does not have."""
    return percent(mean) if num_seeds == 1 else f"{100 * mean:.1f} ± {100 * deviation:.1f} %"


def duration(seconds: float) -> str:
    """Wall time with two units at most: 0.4 s, 12 s, 3 min 20 s, 1 h 12 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 3597.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def _release_sentence(report: ReportData) -> str:
    full, release = report.full, report.release
    full_accuracy, accuracy = full.mean(report.metric), release.mean(report.metric)
    size = f"{format_bytes(release.stored_bytes)} instead of {format_bytes(full.stored_bytes)}"
    if release.stored_bytes >= full.stored_bytes:
        size = f"{format_bytes(release.stored_bytes)}, not less than the full data's {format_bytes(full.stored_bytes)}"
    text = f"{size}: trains to {percent(accuracy)} {report.metric_name}"
    if not _above_chance(release, report):
        return f"{text}, which {report.num_test_clips} test clips cannot tell from chance ({percent(report.chance)})."
    if accuracy < full_accuracy:
        return f"{text}, {100 * accuracy / full_accuracy:.0f} % of full data's {percent(full_accuracy)}."
    if _differ(release, full, report):
        return f"{text}, more than full data's {percent(full_accuracy)}."
    return f"{text}, no less than full data's {percent(full_accuracy)}."


def _competitor_sentence(row: ReportRow, report: ReportData, what: str, title: str = "") -> str:
    """A row beside the release; `what` is better where it is, in words."""
    title = title or row.name
    difference = row.mean(report.metric) - report.release.mean(report.metric)
    size = format_bytes(row.stored_bytes)
    text = f"{title[:1].upper()}{title[1:]} ({size}): {percent(row.mean(report.metric))}"
    if abs(difference) < _SAME:
        return f"{text}, the same."
    points = f"{100 * abs(difference):.1f} points {'more' if difference > 0 else 'less'}"
    if not _differ(row, report.release, report):
        return f"{text}, {points}, which is within the noise of {report.num_test_clips} test clips."
    return f"{text}, {points}" + (f": {what} is better here." if difference > 0 else ".")


def _is_better(row: ReportRow, report: ReportData) -> bool:
    better = row.mean(report.metric) - report.release.mean(report.metric) >= _SAME
    return better and row.stored_bytes <= report.release.stored_bytes


def _differ(first: ReportRow, second: ReportRow, report: ReportData) -> bool:
    """Whether two means lie more than two standard errors apart, of the test set's sampling and of the seeds."""
    difference = abs(first.mean(report.metric) - second.mean(report.metric))
    return difference > 2 * math.sqrt(_variance(first, report) + _variance(second, report))


def _above_chance(row: ReportRow, report: ReportData) -> bool:
    return row.mean(report.metric) - report.chance > 2 * math.sqrt(_variance(row, report))


def _variance(row: ReportRow, report: ReportData) -> float:
    mean = row.mean(report.metric)
    return mean * (1 - mean) / report.num_test_clips + row.std(report.metric) ** 2 / row.num_seeds


def _align(table: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first flush left, the others flush right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )

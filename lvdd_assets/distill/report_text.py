"""A report in words: the verdict, the terminal's table, and how its numbers are written.

What must NOT come here: HTML, drawing, training; all figures come in as `ReportData`.
"""

import math
from collections.abc import Sequence

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.report_data import ReportData, ReportRow


def verdict(report: ReportData) -> str:
    """What the figures say, in a few sentences that hold whichever row comes out on top."""
    full, release, num_clips = report.full, report.release, report.num_test_clips
    full_top1, top1 = full.result.mean_top1, release.result.mean_top1
    size = f"{format_bytes(release.stored_bytes)} instead of {format_bytes(full.stored_bytes)}"
    if release.stored_bytes >= full.stored_bytes:
        size = f"{format_bytes(release.stored_bytes)}, not less than the full data's {format_bytes(full.stored_bytes)}"
    text = f"{size}: trains to {percent(top1)} top-1"
    if not _above_chance(release.result, report.chance, num_clips):
        text += f", which {num_clips} test clips cannot tell from chance ({percent(report.chance)})"
    elif top1 < full_top1:
        text += f", {100 * top1 / full_top1:.0f} % of full data's {percent(full_top1)}"
    elif _differ(release.result, full.result, num_clips):
        text += f", more than full data's {percent(full_top1)}"
    else:
        text += f", no less than full data's {percent(full_top1)}"
    sentences = [text]
    for row in report.rows:
        if row.role == "video":
            sentences.append(_video_sentence(row, release, num_clips))
    seeds = "one seed" if report.num_seeds == 1 else f"mean of {report.num_seeds} seeds"
    sentences.append(f"Top-1 on {num_clips} test clips, {seeds}; chance is {percent(report.chance)}")
    return ". ".join(sentences) + "."


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
    rows.append(["chance", "", "", percent(report.chance), percent(min(1.0, 5 * report.chance))])
    class_bytes = bytes_by("class", report)
    accuracy_K = report.release.result.class_accuracy
    classes = [["class", "bytes", "top-1"]]
    for name, accuracy in zip(report.class_names, accuracy_K, strict=True):
        classes.append([name, format_bytes(class_bytes[name]), percent(accuracy)])
    head = f"{report.dataset}: {used} ({percent(report.used_bytes / report.allowed_bytes)}): {parts}"
    return "\n\n".join([head, _align(rows), _align(classes), verdict(report)])


def bytes_by(column: str, report: ReportData) -> dict[str, int]:
    """The ledger's bytes by part or by class, in its order."""
    grouped = report.ledger.groupby(column, sort=False)["bytes"].sum()
    return {str(name): int(size) for name, size in grouped.items()}


def _video_sentence(video: ReportRow, release: ReportRow, num_test_clips: int) -> str:
    difference = video.result.mean_top1 - release.result.mean_top1
    name = video.result.name[:1].upper() + video.result.name[1:]
    text = f"{name} ({format_bytes(video.stored_bytes)}): {percent(video.result.mean_top1)}"
    points = f"{100 * abs(difference):.1f} points {'more' if difference > 0 else 'less'}"
    if abs(difference) < 5e-4:
        return f"{text}, the same"
    if not _differ(video.result, release.result, num_test_clips):
        return f"{text}, {points}, which is within the noise of {num_test_clips} test clips"
    return f"{text}, {points}" + (": plain video is better here" if difference > 0 else "")


def _differ(first: evaluation.Row, second: evaluation.Row, num_test_clips: int) -> bool:
    """Whether two means lie more than two standard errors apart, of the test set's sampling and of the seeds."""
    return abs(first.mean_top1 - second.mean_top1) > 2 * math.sqrt(
        _variance(first, num_test_clips) + _variance(second, num_test_clips)
    )


def _above_chance(row: evaluation.Row, chance: float, num_test_clips: int) -> bool:
    return row.mean_top1 - chance > 2 * math.sqrt(_variance(row, num_test_clips))


def _variance(row: evaluation.Row, num_test_clips: int) -> float:
    return row.mean_top1 * (1 - row.mean_top1) / num_test_clips + row.std_top1**2 / len(row.scores)


def percent(part: float) -> str:
    """A part in [0, 1] as a percentage."""
    return f"{100 * part:.1f} %"


def spread(mean: float, deviation: float, num_seeds: int) -> str:
    """A mean of parts with its standard deviation, which a single seed does not have."""
    return percent(mean) if num_seeds == 1 else f"{100 * mean:.1f} ± {100 * deviation:.1f} %"


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

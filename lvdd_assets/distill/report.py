"""One page and one table that say what a release costs in bytes and what it is worth in accuracy.

Here belong the figures' wording, contact sheets, the HTML page (its template is package data) and the terminal's table.
What must NOT come here: training, counting bytes, reading releases: all figures come in as `ReportData`.

Legend: N clips, T frames, C channels, H, W pixels, K classes.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.budget import format_bytes

_GAP_PIXELS = 2
_GAP_BRIGHTNESS = 128
_MAX_CONFUSIONS = 10


@dataclass(frozen=True)
class ReportRow:
    """A line of the comparison with what its training set weighs.

    Attributes:
        result: Name, number of clips and scores.
        stored_bytes: What is stored to have that training set.
        role: `full` is all training data, `release` the distilled file, `video` a plain competitor of the same size.
        note: What the bytes are, for instance "uint8 pixels"; may be empty.
    """

    result: evaluation.Row
    stored_bytes: int
    role: Literal["full", "release", "video", "other"]
    note: str = ""

    def __post_init__(self) -> None:
        if self.stored_bytes < 0:
            raise ValueError(f"row {self.result.name!r}: got {self.stored_bytes = }; expected 0 or more")


@dataclass(frozen=True)
class Sheet:
    """A picture with its caption; `png` is what `contact_sheet` or `pair_sheet` returns."""

    png: bytes
    caption: str


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report says.

    Attributes:
        dataset: Name of the dataset.
        class_names: Names in the order of the labels.
        rows: The comparison; one row is `full`, one is `release`.
        allowed_bytes: The budget.
        ledger: Columns part, class (empty for what all classes share), bytes; its sum is the release file's size.
        settings: How it was distilled and evaluated.
        provenance: What it was made from.
        versions: Software by name.
        sheets: Pictures of the clips.
        notes: Sentences for the reader, below the comparison.
    """

    dataset: str
    class_names: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    allowed_bytes: int
    ledger: pd.DataFrame
    settings: Mapping[str, object]
    provenance: Mapping[str, object]
    versions: Mapping[str, object]
    sheets: tuple[Sheet, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        missing = [column for column in ("part", "class", "bytes") if column not in self.ledger.columns]
        if missing:
            raise ValueError(f"the ledger has no column {', '.join(missing)}; got {list(self.ledger.columns)}")
        without_bytes = set(self.class_names) - set(self.ledger["class"])
        if without_bytes:
            raise ValueError(
                f"the ledger has no line for class {', '.join(sorted(without_bytes))}; expected every class"
            )
        for role in ("full", "release"):
            count = sum(row.role == role for row in self.rows)
            if count != 1:
                raise ValueError(f"got {count} rows with role {role!r}; expected exactly one")
        for row in self.rows:
            for score in row.result.scores:
                if len(score.confusion) != len(self.class_names):
                    raise ValueError(
                        f"row {row.result.name!r} was scored on {len(score.confusion)} classes; "
                        f"expected the {len(self.class_names)} of the report"
                    )
        if len({int(score.confusion.sum()) for row in self.rows for score in row.result.scores}) != 1:
            raise ValueError("the rows were tested on different numbers of clips; expected one test set for all")
        if self.allowed_bytes < 1:
            raise ValueError(f"got {self.allowed_bytes = }; expected at least 1")
        if self.used_bytes != self.release.stored_bytes:
            raise ValueError(
                f"the ledger adds up to {self.used_bytes} B, the release has {self.release.stored_bytes} B; "
                "expected the same: count the release again"
            )

    @property
    def full(self) -> ReportRow:
        """The row of all training data."""
        return next(row for row in self.rows if row.role == "full")

    @property
    def release(self) -> ReportRow:
        """The row of the distilled file."""
        return next(row for row in self.rows if row.role == "release")

    @property
    def used_bytes(self) -> int:
        """Sum of the ledger."""
        return int(self.ledger["bytes"].sum())

    @property
    def chance(self) -> float:
        """Accuracy of guessing blindly, in [0, 1]."""
        return 1 / len(self.class_names)

    @property
    def num_test_clips(self) -> int:
        """Clips of the test set."""
        return int(self.release.result.scores[0].confusion.sum())

    @property
    def num_seeds(self) -> int:
        """Networks trained on the release."""
        return len(self.release.result.scores)


def verdict(report: ReportData) -> str:
    """What the figures say, in a few sentences that hold whichever row comes out on top."""
    full, release, num_clips = report.full, report.release, report.num_test_clips
    full_top1, top1 = full.result.mean_top1, release.result.mean_top1
    size = f"{format_bytes(release.stored_bytes)} instead of {format_bytes(full.stored_bytes)}"
    if release.stored_bytes >= full.stored_bytes:
        size = f"{format_bytes(release.stored_bytes)}, not less than the full data's {format_bytes(full.stored_bytes)}"
    text = f"{size}: trains to {_percent(top1)} top-1"
    if not _above_chance(release.result, report.chance, num_clips):
        text += f", which {num_clips} test clips cannot tell from chance ({_percent(report.chance)})"
    elif top1 < full_top1:
        text += f", {100 * top1 / full_top1:.0f} % of full data's {_percent(full_top1)}"
    elif _differ(release.result, full.result, num_clips):
        text += f", more than full data's {_percent(full_top1)}"
    else:
        text += f", no less than full data's {_percent(full_top1)}"
    sentences = [text]
    for row in report.rows:
        if row.role == "video":
            sentences.append(_video_sentence(row, release, num_clips))
    seeds = "one seed" if report.num_seeds == 1 else f"mean of {report.num_seeds} seeds"
    sentences.append(f"Top-1 on {num_clips} test clips, {seeds}; chance is {_percent(report.chance)}")
    return ". ".join(sentences) + "."


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
        "percent": lambda part: _unbroken(_percent(part)),
        "spread": lambda mean, deviation, num_seeds: _unbroken(_spread(mean, deviation, num_seeds)),
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


def summary_table(report: ReportData) -> str:
    """The report's main figures as plain text for a terminal."""
    used = f"{format_bytes(report.used_bytes)} of {format_bytes(report.allowed_bytes)} allowed"
    parts = ", ".join(f"{part} {format_bytes(size)}" for part, size in _bytes_by("part", report).items())
    rows = [["trained on", "clips", "bytes", "top-1", "top-5"]]
    for row in report.rows:
        result = row.result
        rows.append(
            [
                result.name,
                str(result.num_clips),
                format_bytes(row.stored_bytes),
                _spread(result.mean_top1, result.std_top1, len(result.scores)),
                _spread(result.mean_top5, result.std_top5, len(result.scores)),
            ]
        )
    rows.append(["chance", "", "", _percent(report.chance), _percent(min(1.0, 5 * report.chance))])
    class_bytes = _bytes_by("class", report)
    accuracy_K = report.release.result.class_accuracy
    classes = [["class", "bytes", "top-1"]]
    for name, accuracy in zip(report.class_names, accuracy_K, strict=True):
        classes.append([name, format_bytes(class_bytes[name]), _percent(accuracy)])
    head = f"{report.dataset}: {used} ({_percent(report.used_bytes / report.allowed_bytes)}): {parts}"
    return "\n\n".join([head, _align(rows), _align(classes), verdict(report)])


def contact_sheet(clips_NTCHW: np.ndarray, *, scale: int = 1, jpeg_quality: int | None = None) -> bytes:
    """A PNG picture of clips: a line for each clip, a column for each frame.

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        scale: Each pixel becomes a square of this side.
        jpeg_quality: 1 to 95 for a JPEG picture instead, which for films is a seventh of the bytes.
    """
    clips_NTCHW = np.asarray(clips_NTCHW)
    if clips_NTCHW.dtype != np.uint8 or clips_NTCHW.ndim != 5 or clips_NTCHW.shape[2] != 3 or clips_NTCHW.size == 0:
        raise ValueError(f"got {clips_NTCHW.dtype} {clips_NTCHW.shape}; expected uint8 [N, T, 3, H, W] with a clip")
    if scale < 1:
        raise ValueError(f"got {scale = }; expected at least 1")
    large = clips_NTCHW.repeat(scale, axis=3).repeat(scale, axis=4)
    num_clips, num_frames, _, height, width = large.shape
    row, column = height + _GAP_PIXELS, width + _GAP_PIXELS
    sheet = np.full((num_clips * row - _GAP_PIXELS, num_frames * column - _GAP_PIXELS, 3), _GAP_BRIGHTNESS, np.uint8)
    for n in range(num_clips):
        for t in range(num_frames):
            sheet[n * row : n * row + height, t * column : t * column + width] = large[n, t].transpose(1, 2, 0)
    stream = io.BytesIO()
    if jpeg_quality is None:
        Image.fromarray(sheet).save(stream, format="PNG", compress_level=3)
    else:
        Image.fromarray(sheet).save(stream, format="JPEG", quality=jpeg_quality)
    return stream.getvalue()


def pair_sheet(original_NTCHW: np.ndarray, decoded_NTCHW: np.ndarray, *, scale: int = 1) -> bytes:
    """A contact sheet with each original clip and, in the line below it, the same clip as decoded.

    Args:
        original_NTCHW: uint8 [N, T, 3, H, W].
        decoded_NTCHW: uint8 of the same shape.
        scale: As for `contact_sheet`.
    """
    if original_NTCHW.shape != decoded_NTCHW.shape:
        raise ValueError(f"got {original_NTCHW.shape = } and {decoded_NTCHW.shape = }; expected the same")
    pairs = np.stack([original_NTCHW, decoded_NTCHW], axis=1)
    return contact_sheet(pairs.reshape(-1, *original_NTCHW.shape[1:]), scale=scale)


def _page_values(report: ReportData) -> dict[str, Any]:
    """The template's variables beside the filters; `scale` is the number of bytes that the ledger's bar is long."""
    class_bytes = _bytes_by("class", report)
    accuracy_K = report.release.result.class_accuracy
    return {
        "report": report,
        "verdict": verdict(report).replace(" %", "\u00a0%"),
        "scale": max(report.allowed_bytes, report.used_bytes),
        "parts": _bytes_by("part", report),
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
            "share": _percent(wrong_KK[true, guess] / totals_K[true]),
        }
        for true, guess in pairs
        if wrong_KK[true, guess] > 0
    ]


def _bytes_by(column: str, report: ReportData) -> dict[str, int]:
    grouped = report.ledger.groupby(column, sort=False)["bytes"].sum()
    return {str(name): int(size) for name, size in grouped.items()}


def _video_sentence(video: ReportRow, release: ReportRow, num_test_clips: int) -> str:
    difference = video.result.mean_top1 - release.result.mean_top1
    name = video.result.name[:1].upper() + video.result.name[1:]
    text = f"{name} ({format_bytes(video.stored_bytes)}): {_percent(video.result.mean_top1)}"
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


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _unbroken(text: str) -> str:
    """The text with spaces at which a browser does not break the line, so that a number keeps its unit."""
    return text.replace(" ", "\u00a0")


def _spread(mean: float, deviation: float, num_seeds: int) -> str:
    return _percent(mean) if num_seeds == 1 else f"{100 * mean:.1f} ± {100 * deviation:.1f} %"


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

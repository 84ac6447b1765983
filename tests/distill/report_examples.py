"""Small reports with figures that can be counted by hand."""

import dataclasses

import numpy as np
import pandas as pd

from lvdd_assets.distill.report_data import CurvePoint, NotRun, Preview, ReportData, ReportRow, Sheet, Stage
from lvdd_assets.distill.report_pictures import looping_preview, pair_sheet
from lvdd_assets.distill.scores import Row, Score

NAMES = ("move_left", "<b>spin</b> & co")


def make_row(
    name: str, hits: list[int], role: str, stored_bytes: int, *, per_class: int = 50, group: str = ""
) -> ReportRow:
    """A row with one seed per entry of `hits`: test clips of the first class that were guessed right; the second
    class is always right."""
    scores = []
    for seed, right in enumerate(hits):
        confusion = np.array([[right, per_class - right], [0, per_class]])
        scores.append(Score((right + per_class) / (2 * per_class), 1.0, seed, 40, confusion, 1.5))
    return ReportRow(Row(name, 20, tuple(scores)), stored_bytes, role, "a note", group)  # type: ignore[arg-type]


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


def make_clips(num_clips: int, *, seed: int = 0, size: int = 8) -> np.ndarray:
    """Noise: uint8 [num_clips, 3, 3, size, size]."""
    return np.random.default_rng(seed).integers(0, 256, (num_clips, 3, 3, size, size), dtype=np.uint8)


def make_rich() -> ReportData:
    """A report with everything that it can have."""
    subsets = [
        make_row("random, AV1", [20, 22], "subset", 154_000, group="AV1"),
        make_row("k-means, AV1", [30, 34], "subset", 153_000, group="AV1"),
        make_row("random, uint8", [2, 4], "subset", 150_000, group="uint8 pixels"),
        make_row("herding, uint8", [6, 6], "subset", 150_000, group="uint8 pixels"),
        make_row("random, float32", [1, 1], "subset", 140_000, group="float32 pixels"),
    ]
    accuracies = {
        "tight": {20_000: (0.6, 0.7), 155_000: (0.85, 0.91), 800_000: (0.93, 0.95)},
        "random, AV1": {20_000: (0.55, 0.57), 150_000: (0.71,)},
    }
    points = [CurvePoint(recipe, size, found) for recipe, sizes in accuracies.items() for size, found in sizes.items()]
    original, decoded = make_clips(3), make_clips(3, seed=1)
    recipe = make_row("paper recipe", [10, 14], "recipe", 154_500)
    return dataclasses.replace(
        USUAL,
        rows=(*USUAL.rows, recipe, *subsets),
        not_run=(NotRun("k-center, H.264", "no clip fits in 2.50 kB"),),
        curve=tuple(points),
        stages=(Stage("latents", 12.4, 612_000_000), Stage("eval_report", 4210.0, None)),
        sheets=(Sheet(pair_sheet(original, decoded), "originals and decoded"),),
        previews=(Preview(looping_preview(original, decoded, frames_per_second=8), "image/webp", "in motion"),),
    )


def make_many_classes(num_classes: int, *, per_class: int = 4) -> ReportData:
    """Classes with long names; of each, one clip is taken for the next class by networks trained on the release."""
    names = tuple(f"a_class_with_a_very_long_name_indeed_{k:03d}" for k in range(num_classes))
    right_KK = np.eye(num_classes, dtype=np.int64) * per_class
    wrong_KK = right_KK - np.eye(num_classes, dtype=np.int64) + np.roll(np.eye(num_classes, dtype=np.int64), 1, axis=1)
    scores = {
        "full": Score(1.0, 1.0, 0, 40, right_KK, 1.0),
        "release": Score(1 - 1 / per_class, 1.0, 0, 40, wrong_KK, 1.0),
    }
    rows = [
        ReportRow(Row(f"{role}_of_a_set_with_a_very_long_name_indeed", 9, (score,)), 10 * num_classes, role)  # type: ignore[arg-type]
        for role, score in scores.items()
    ]
    ledger = pd.DataFrame([("cores", name, 10) for name in names], columns=["part", "class", "bytes"])
    return dataclasses.replace(USUAL, class_names=names, rows=tuple(rows), ledger=ledger)

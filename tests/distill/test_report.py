import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lvdd_assets.distill import evaluation, report
from lvdd_assets.distill.report import ReportData, ReportRow, Sheet

NAMES = ("move_left", "<b>spin</b> & co")
VOID = {"meta", "img", "br", "link", "hr", "input"}


def _row(name: str, hits: list[int], role: str, stored_bytes: int, *, per_class: int = 50) -> ReportRow:
    """A row with one seed per entry of `hits`: test clips of the first class that were guessed right; the second
    class is always right."""
    scores = []
    for seed, right in enumerate(hits):
        confusion = np.array([[right, per_class - right], [0, per_class]])
        scores.append(evaluation.Score((right + per_class) / (2 * per_class), 1.0, seed, 40, confusion, 1.5))
    return ReportRow(evaluation.Row(name, 20, tuple(scores)), stored_bytes, role, "a note")  # type: ignore[arg-type]


def _ledger(**changes: int) -> pd.DataFrame:
    sizes = {"decoder": 100_000, "first": 30_000, "second": 20_000, "labels": 500, "metadata": 4_500, **changes}
    lines = [
        ("decoder", "", sizes["decoder"]),
        ("cores", NAMES[0], sizes["first"]),
        ("cores", NAMES[1], sizes["second"]),
        ("labels", "", sizes["labels"]),
        ("metadata", "", sizes["metadata"]),
    ]
    return pd.DataFrame(lines, columns=["part", "class", "bytes"])


def _report(*, full: list[int], release: list[int], video: list[int] | None = None, **changes: object) -> ReportData:
    rows = [_row("full data", full, "full", 20_000_000), _row("this release", release, "release", 155_000)]
    if video is not None:
        rows.append(_row("plain video (AV1)", video, "video", 150_000))
    data = ReportData(
        dataset="demo",
        class_names=NAMES,
        rows=tuple(rows),
        allowed_bytes=200_000,
        ledger=_ledger(),
        settings={"recipe": "tight", "learning rate": 0.01},
        provenance={"release": "0123abcd"},
        versions={"torch": "9.9.9"},
    )
    return dataclasses.replace(data, **changes)  # type: ignore[arg-type]


USUAL = _report(full=[46, 44], release=[40, 36], video=[4, 2])


class _Page(HTMLParser):
    """Collects text, attributes and open tags; fails on tags that are closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def _read_page(folder: Path, data: ReportData) -> tuple[_Page, str]:
    path, _ = report.write_report(folder, data)
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page, re.sub(r"\s+", " ", " ".join(page.text).replace("\u00a0", " "))


def test_the_page_is_whole_and_says_every_figure(tmp_path: Path) -> None:
    sheets = (Sheet(report.contact_sheet(np.zeros((1, 2, 3, 4, 4), np.uint8)), "clips as decoded"),)
    data = dataclasses.replace(USUAL, sheets=sheets, notes=("Video is counted without a container.",))
    _, text = _read_page(tmp_path, data)
    expected = ["demo", "155 kB", "200 kB", "45.0 kB left", "20.0 MB", "77.5 %", "0.78 %"]
    expected += ["full data", "this release", "plain video (AV1)", "95.0 ± 1.4 %", "88.0 ± 2.8 %", "3 s"]
    expected += ["decoder", "100 kB", "64.5 %", "cores", "50.0 kB", "labels", "500 B", "metadata", "4.50 kB"]
    expected += ["30.0 kB", "20.0 kB", "76.0 %", "100.0 %", "move_left taken for <b>spin</b> & co (24.0 %)"]
    expected += ["recipe", "tight", "0.01", "0123abcd", "9.9.9", "a note", "clips as decoded", "without a container"]
    missing = [figure for figure in expected if figure not in text]
    assert not missing
    assert report.verdict(data) in text


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    png = report.contact_sheet(np.zeros((1, 2, 3, 4, 4), np.uint8))
    page, _ = _read_page(tmp_path, dataclasses.replace(USUAL, sheets=(Sheet(png, "c"),)))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source.replace(base64.b64encode(png).decode(), ""))
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")] == [
        "data:image/png;base64," + base64.b64encode(png).decode()
    ]
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    assert ("meta", "name", "viewport") in page.attributes


def test_names_are_escaped(tmp_path: Path) -> None:
    data = dataclasses.replace(USUAL, dataset="<script>alert(1)</script>", notes=("<i>note</i>",))
    page, text = _read_page(tmp_path, data)
    assert "script" not in page.tags
    assert "<i>note</i>" in text
    assert "<script>alert(1)</script>" in text
    assert "<b>spin</b> & co" in text
    assert "<b>spin" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_release_over_its_budget_is_shown_as_such(tmp_path: Path) -> None:
    page, text = _read_page(tmp_path, dataclasses.replace(USUAL, allowed_bytes=124_000))
    assert "31.0 kB over." in text
    assert any(name == "style" and "left:calc(80.000%" in value for _, name, value in page.attributes)
    widths = [value for tag, name, value in page.attributes if tag == "i" and name == "style" and "width" in value]
    assert sum(float(value[6:-1]) for value in widths) == pytest.approx(100, abs=0.01)


def test_the_ledgers_bar_leaves_what_the_budget_leaves(tmp_path: Path) -> None:
    page, _ = _read_page(tmp_path, USUAL)
    widths = [value for tag, name, value in page.attributes if tag == "i" and name == "style" and "width" in value]
    assert [float(value[6:-1]) for value in widths] == pytest.approx([50, 25, 0.25, 2.25], abs=0.001)


def test_scores_are_a_line_for_each_row_and_seed(tmp_path: Path) -> None:
    _, path = report.write_report(tmp_path / "new" / "folder", USUAL)
    table = pd.read_csv(path)
    columns = ["row", "seed", "top1", "top5", "num_updates", "train_clips", "stored_bytes", "seconds"]
    assert list(table.columns) == columns
    assert table["row"].tolist() == ["full data"] * 2 + ["this release"] * 2 + ["plain video (AV1)"] * 2
    assert table["seed"].tolist() == [0, 1] * 3
    assert table["top1"].tolist() == [0.96, 0.94, 0.90, 0.86, 0.54, 0.52]
    assert table["stored_bytes"].tolist() == [20_000_000] * 2 + [155_000] * 2 + [150_000] * 2
    assert set(table["num_updates"]) == {40}
    assert sorted(path.parent.iterdir()) == [path.parent / "report.html", path]


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    report.write_report(tmp_path / "a", USUAL)
    report.write_report(tmp_path / "b", USUAL)
    for name in ("report.html", "scores.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


VERDICTS = {
    "usual": (
        _report(full=[46, 44], release=[40, 36], video=[4, 2]),
        "155 kB instead of 20.0 MB: trains to 88.0 % top-1, 93 % of full data's 95.0 %. Plain video (AV1) (150 kB): "
        "53.0 %, 35.0 points less. Top-1 on 100 test clips, mean of 2 seeds; chance is 50.0 %.",
    ),
    "video is better": (
        _report(full=[46], release=[20], video=[44]),
        "155 kB instead of 20.0 MB: trains to 70.0 % top-1, 73 % of full data's 96.0 %. Plain video (AV1) (150 kB): "
        "94.0 %, 24.0 points more: plain video is better here. Top-1 on 100 test clips, one seed; chance is "
        "50.0 %.",
    ),
    "within the noise": (
        _report(full=[46], release=[40], video=[42]),
        "Plain video (AV1) (150 kB): 92.0 %, 2.0 points more, which is within the noise of 100 test clips.",
    ),
    "the same": (_report(full=[46], release=[40], video=[40]), "(150 kB): 90.0 %, the same."),
    "at chance": (
        _report(full=[46], release=[3]),
        "trains to 53.0 % top-1, which 100 test clips cannot tell from chance (50.0 %). Top-1 on",
    ),
    "release above full": (_report(full=[20], release=[44]), "94.0 % top-1, more than full data's 70.0 %."),
    "release like full": (_report(full=[43], release=[44]), "94.0 % top-1, no less than full data's 93.0 %."),
    "no smaller than full": (
        _report(
            full=[46],
            release=[40],
            rows=(_row("full data", [46], "full", 100_000), _row("this release", [40], "release", 155_000)),
        ),
        "155 kB, not less than the full data's 100 kB: trains to 90.0 % top-1, 94 % of full data's 96.0 %.",
    ),
}


@pytest.mark.parametrize("case", list(VERDICTS))
def test_the_verdict_is_honest_in_every_order_of_results(case: str) -> None:
    data, expected = VERDICTS[case]
    assert expected in report.verdict(data)


def test_the_terminals_table_has_bytes_classes_and_accuracies() -> None:
    text = report.summary_table(USUAL)
    lines = text.splitlines()
    assert lines[0] == (
        "demo: 155 kB of 200 kB allowed (77.5 %): decoder 100 kB, cores 50.0 kB, labels 500 B, metadata 4.50 kB"
    )
    assert re.search(r"^this release +20 +155 kB +88\.0 ± 2\.8 % +100\.0 ± 0\.0 %$", text, re.MULTILINE)
    assert re.search(r"^chance +50\.0 % +100\.0 %$", text, re.MULTILINE)
    assert re.search(r"^move_left +30\.0 kB +76\.0 %$", text, re.MULTILINE)
    assert report.verdict(USUAL) == lines[-1]
    table = [line for line in lines if line.startswith(("full data", "this release", "plain video"))]
    assert len({len(line) for line in table}) == 1


def _bad_reports() -> dict[str, tuple[dict[str, object], str]]:
    rows = USUAL.rows
    short = _ledger().drop(columns=["bytes"])
    three = evaluation.Row("odd", 3, (evaluation.Score(1.0, 1.0, 0, 1, np.eye(3, dtype=np.int64) * 30, 1.0),))
    return {
        "no release": ({"rows": rows[:1]}, "got 0 rows with role 'release'"),
        "two full": ({"rows": (*rows, rows[0])}, "got 2 rows with role 'full'"),
        "column": ({"ledger": short}, "no column bytes"),
        "class without bytes": ({"ledger": _ledger().iloc[:2]}, "no line for class <b>spin"),
        "sum": ({"ledger": _ledger(labels=499)}, "adds up to 154999 B, the release has 155000 B"),
        "classes": ({"rows": (*rows, ReportRow(three, 1, "other"))}, "scored on 3 classes; expected the 2"),
        "test set": ({"rows": (*rows, _row("odd", [1], "other", 1, per_class=49))}, "different numbers of clips"),
        "budget": ({"allowed_bytes": 0}, "allowed_bytes = 0"),
    }


@pytest.mark.parametrize("case", list(_bad_reports()))
def test_reports_that_contradict_themselves_are_refused(case: str) -> None:
    changes, message = _bad_reports()[case]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(USUAL, **changes)  # type: ignore[arg-type]


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("scale", [1, 3])
def test_a_contact_sheet_has_clips_in_lines_and_frames_in_columns(scale: int) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 5, 7), dtype=np.uint8)
    pixels = _pixels(report.contact_sheet(clips, scale=scale))
    gap = 2
    assert pixels.shape == (2 * 5 * scale + gap, 3 * 7 * scale + 2 * gap, 3)
    for n in range(2):
        for t in range(3):
            top, left = n * (5 * scale + gap), t * (7 * scale + gap)
            tile = pixels[top : top + 5 * scale : scale, left : left + 7 * scale : scale]
            np.testing.assert_array_equal(tile, clips[n, t].transpose(1, 2, 0))


def test_a_sheet_may_be_a_jpeg() -> None:
    """Smaller than the PNG, and the same picture: a ramp comes back within a few levels."""
    clips = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (2, 4, 3, 64, 64))
    png, jpeg = report.contact_sheet(clips), report.contact_sheet(clips, jpeg_quality=90)
    assert jpeg.startswith(b"\xff\xd8")
    assert np.abs(_pixels(jpeg).astype(int) - _pixels(png)).mean() < 3


def test_a_pair_sheet_has_the_decoded_clip_below_its_original() -> None:
    generator = np.random.default_rng(0)
    original = generator.integers(0, 256, (2, 3, 3, 4, 4), dtype=np.uint8)
    decoded = generator.integers(0, 256, (2, 3, 3, 4, 4), dtype=np.uint8)
    order = np.stack([original[0], decoded[0], original[1], decoded[1]])
    assert report.pair_sheet(original, decoded, scale=2) == report.contact_sheet(order, scale=2)


def test_wrong_pictures_are_refused() -> None:
    clips = np.zeros((1, 2, 3, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="float32"):
        report.contact_sheet(clips.astype(np.float32))
    with pytest.raises(ValueError, match="with a clip"):
        report.contact_sheet(clips[:0])
    with pytest.raises(ValueError, match="scale = 0"):
        report.contact_sheet(clips, scale=0)
    with pytest.raises(ValueError, match="expected the same"):
        report.pair_sheet(clips, clips[:, :1])


def test_negative_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="stored_bytes = -1"):
        _row("r", [1], "other", -1)

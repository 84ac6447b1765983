import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lvdd_assets.distill import report
from lvdd_assets.distill.report import ReportData, Sheet
from tests.distill.report_examples import USUAL, make_many_classes, make_rich, make_row

VOID = {"meta", "img", "br", "link", "hr", "input", "source"}


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
    path = report.write_report(folder, data)[0]
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
    expected += ["full data", "this release", "plain video (AV1)", "95.0 ± 1.4 %", "88.0 ± 2.8 %", "3.0 s"]
    expected += ["decoder", "100 kB", "64.5 %", "cores", "50.0 kB", "labels", "500 B", "metadata", "4.50 kB"]
    expected += ["30.0 kB", "20.0 kB", "76.0 %", "100.0 %", "move_left taken for <b>spin</b> & co (24.0 %)"]
    expected += ["recipe", "tight", "0.01", "0123abcd", "9.9.9", "a note", "clips as decoded", "without a container"]
    missing = [figure for figure in expected if figure not in text]
    assert not missing
    assert report.verdict(data) in text


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    data = make_rich()
    page, _ = _read_page(tmp_path, data)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert pictures == [
        "data:image/webp;base64," + base64.b64encode(data.previews[0].data).decode(),
        "data:image/png;base64," + base64.b64encode(data.sheets[0].png).decode(),
    ]
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"data:[^\"]*", "", source))
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    assert ("meta", "name", "viewport") in page.attributes


def test_every_colour_that_the_page_names_is_defined_in_light_and_in_dark(tmp_path: Path) -> None:
    _read_page(tmp_path, make_rich())
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", source, re.DOTALL)[:2]
    used = set(re.findall(r"var\((--[\w-]+)", source)) - {"--v"}
    assert used
    assert used <= set(re.findall(r"(--[\w-]+):", light)) == set(re.findall(r"(--[\w-]+):", dark))


def test_names_and_references_within_the_page_are_unambiguous(tmp_path: Path) -> None:
    page, _ = _read_page(tmp_path, make_rich())
    names = [value for _, name, value in page.attributes if name == "id"]
    assert len(names) == len(set(names))
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', source)
    assert references
    assert {first or second for first, second in references} <= set(names)


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
    _, path, _ = report.write_report(tmp_path / "new" / "folder", USUAL)
    table = pd.read_csv(path)
    columns = ["row", "seed", "top1", "top5", "num_updates", "train_clips", "stored_bytes", "seconds", "role"]
    assert list(table.columns) == columns
    assert table["row"].tolist() == ["full data"] * 2 + ["this release"] * 2 + ["plain video (AV1)"] * 2
    assert table["seed"].tolist() == [0, 1] * 3
    assert table["top1"].tolist() == [0.96, 0.94, 0.90, 0.86, 0.54, 0.52]
    assert table["stored_bytes"].tolist() == [20_000_000] * 2 + [155_000] * 2 + [150_000] * 2
    assert set(table["num_updates"]) == {40}
    assert table["role"].tolist() == ["full"] * 2 + ["release"] * 2 + ["video"] * 2
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "scores.csv", "classes.csv"}


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    report.write_report(tmp_path / "a", make_rich())
    report.write_report(tmp_path / "b", make_rich())
    for name in ("report.html", "scores.csv", "classes.csv", "curve.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_page_of_a_rich_report_says_every_figure(tmp_path: Path) -> None:
    page, text = _read_page(tmp_path, make_rich())
    curve = ["tight 20.0 kB 65.0 ± 7.1 % 2", "tight 155 kB 88.0 ± 4.2 % 2", "random, AV1 150 kB 71.0 % 1"]
    rows = ["paper recipe", "k-means, AV1", "best of 2: a note, AV1", "float32 pixels", "k-center, H.264"]
    others = ["no clip fits in 2.50 kB", "chance", "in motion", "originals and decoded", "seeds 0, 1"]
    stages = ["latents", "12 s 612 MB", "eval_report", "1 h 10 min not measured", "all stages"]
    missing = [figure for figure in curve + rows + others + stages if figure not in text]
    assert not missing
    assert "svg" in page.tags
    assert text.count("random, float32") == 2  # in the comparison and in its group
    assert text.count("random, uint8") == 1  # herding stands for the group


def test_a_report_without_extras_has_no_empty_sections(tmp_path: Path) -> None:
    page, text = _read_page(tmp_path, USUAL)
    assert not page.tags & {"svg", "details", "img", "picture"}
    for heading in ("What each byte buys", "Not run", "What a network sees", "Time and memory"):
        assert heading not in text


def test_the_confusion_matrix_is_normalised_by_the_true_class(tmp_path: Path) -> None:
    page, _ = _read_page(tmp_path, USUAL)
    titles = [value for tag, name, value in page.attributes if (tag, name) == ("td", "title")]
    assert [title.split(":")[0] for title in titles] == ["76 of 100", "24 of 100", "0 of 100", "100 of 100"]
    shares = [value for tag, name, value in page.attributes if (tag, name) == ("td", "style")]
    assert shares == ["--v:0.760", "--v:0.240", "--v:0.000", "--v:1.000"]


@pytest.mark.parametrize(("num_classes", "whole"), [(20, True), (21, False)])
def test_many_classes_are_shown_by_their_extremes(tmp_path: Path, num_classes: int, whole: bool) -> None:
    data = make_many_classes(num_classes)
    page, text = _read_page(tmp_path, data)
    assert sum((tag, name) == ("td", "title") for tag, name, _ in page.attributes) == (num_classes**2 if whole else 0)
    assert "(25.0 %)" in text
    assert ("All 21 classes" in text) is not whole
    assert set(data.class_names) <= set(re.findall(r"\w+", text))


def test_a_seed_that_did_not_end_is_told_of(tmp_path: Path) -> None:
    row = dataclasses.replace(USUAL.release.result, failures=((2, "the loss is nan at update 7"),))
    rows = (USUAL.rows[0], dataclasses.replace(USUAL.release, result=row), *USUAL.rows[2:])
    _, text = _read_page(tmp_path, dataclasses.replace(USUAL, rows=rows))
    assert "this release, seed 2, is not in the mean: the loss is nan at update 7" in text


def test_unequal_numbers_of_updates_are_not_called_equal(tmp_path: Path) -> None:
    assert "with equally many updates (40)" in _read_page(tmp_path / "a", USUAL)[1]
    row = make_row("subset", [3], "subset", 9)
    shorter = dataclasses.replace(row.result.scores[0], num_updates=7)
    row = dataclasses.replace(row, result=dataclasses.replace(row.result, scores=(shorter,)))
    _, text = _read_page(tmp_path / "b", dataclasses.replace(USUAL, rows=(*USUAL.rows, row)))
    assert "with 7 to 40 updates" in text
    assert "equally" not in text


def test_the_headline_is_by_the_reports_metric(tmp_path: Path) -> None:
    data = dataclasses.replace(make_many_classes(50), metric="top5")
    _, text = _read_page(tmp_path, data)
    assert "100.0 % top-5; full data 100.0 %, chance 10.0 %" in text
    assert "A bar is the mean top-5" in text


def test_classes_and_curve_have_tables_of_their_own(tmp_path: Path) -> None:
    paths = report.write_report(tmp_path, make_rich())
    assert [path.name for path in paths] == ["report.html", "scores.csv", "classes.csv", "curve.csv", "curve.png"]
    assert (tmp_path / "curve.png").read_bytes() == report.curve_png(make_rich())
    classes, curve = pd.read_csv(paths[2]), pd.read_csv(paths[3])
    assert classes["class"].tolist() == list(USUAL.class_names)
    assert classes["bytes"].tolist() == [30_000, 20_000]
    assert classes["test_clips"].tolist() == [50, 50]
    assert classes["top1"].tolist() == pytest.approx([0.76, 1.0])
    assert classes["top1_full"].tolist() == pytest.approx([0.9, 1.0])
    assert list(curve.columns) == ["recipe", "stored_bytes", "run", "top1"]
    assert curve.iloc[0].tolist() == ["tight", 20_000, 0, 0.6]
    assert len(curve) == 9

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
from tests.distill.report_examples import USUAL

VOID = {"meta", "img", "br", "link", "hr", "input"}


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

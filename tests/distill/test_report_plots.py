import dataclasses
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lvdd_assets.distill.report_data import CurvePoint
from lvdd_assets.distill.report_plots import curve_png, curve_svg
from tests.distill.report_examples import USUAL, make_rich

RICH = make_rich()
Place = tuple[float, float]


def _styles(svg: str, tag: str) -> list[tuple[str, dict[str, str]]]:
    """Elements of a kind with their style and attributes."""
    return [(node.get("style", ""), dict(node.attrib)) for node in ElementTree.fromstring(svg).iter(tag)]


def _markers(svg: str, colour: str) -> dict[str, list[Place]]:
    """Where each kind of mark in a colour stands."""
    found: dict[str, list[Place]] = {}
    for style, node in _styles(svg, "use"):
        if f"var(--{colour})" in style:
            found.setdefault(node["href"], []).append((float(node["x"]), float(node["y"])))
    return found


def _line(svg: str, colour: str) -> list[Place]:
    """Ends of the longest straight line in a colour."""
    paths = [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", node["d"])]
        for style, node in _styles(svg, "path")
        if f"stroke: var(--{colour})" in style and "clip-path" in node
    ]
    return max((path for path in paths if len(path) == 2), key=lambda path: np.ptp(np.array(path), axis=0).max())


def _points(svg: str, recipe: int, count: int) -> np.ndarray:
    """Places of a recipe's marks, legend left out: float64 [count, 2]."""
    marks = [places for places in _markers(svg, f"s{recipe}").values() if len(places) == count + 1]
    assert marks
    return np.array(marks[-1][:count])


def _scales(svg: str) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of x by log10 of bytes and of y by accuracy, from the first recipe's marks."""
    points = RICH.recipes["tight"]
    places = _points(svg, 0, len(points))
    x = np.polyfit([np.log10(point.stored_bytes) for point in points], places[:, 0], 1)
    y = np.polyfit([point.mean for point in points], places[:, 1], 1)
    return x, y


@pytest.mark.parametrize("narrow", [False, True])
def test_marks_stand_at_their_bytes_and_accuracies(narrow: bool) -> None:
    svg = curve_svg(RICH, narrow=narrow)
    x, y = _scales(svg)
    for index, points in enumerate(RICH.recipes.values()):
        places = _points(svg, index, len(points))
        expected_x = np.polyval(x, [np.log10(point.stored_bytes) for point in points])
        np.testing.assert_allclose(places[:, 0], expected_x, atol=0.01)
        np.testing.assert_allclose(places[:, 1], np.polyval(y, [point.mean for point in points]), atol=0.01)
    full, chance, budget = _line(svg, "full"), _line(svg, "bad"), _line(svg, "soft")
    assert [place[1] for place in full] == pytest.approx([np.polyval(y, 0.95)] * 2, abs=0.01)
    assert [place[1] for place in chance] == pytest.approx([np.polyval(y, 0.5)] * 2, abs=0.01)
    assert [place[0] for place in budget] == pytest.approx([np.polyval(x, np.log10(200_000))] * 2, abs=0.01)


def test_error_bars_are_one_standard_deviation_to_either_side() -> None:
    svg = curve_svg(RICH)
    _, y = _scales(svg)
    heights = []
    for style, node in _styles(svg, "path"):
        ends = re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", node.get("d", ""))
        if "stroke: var(--s0)" in style and len(ends) == 2 and "clip-path" in node and ends[0][0] == ends[1][0]:
            heights.append(abs(float(ends[0][1]) - float(ends[1][1])))
    expected = [2 * point.std * abs(y[0]) for point in RICH.recipes["tight"]]
    assert sorted(heights) == pytest.approx(sorted(expected), abs=0.01)


def test_a_single_seed_has_no_error_bar() -> None:
    curve = (CurvePoint("tight", 1000, (0.5,)), CurvePoint("tight", 9000, (0.6,)))
    marks = _markers(curve_svg(dataclasses.replace(RICH, curve=curve)), "s0")
    # The mark itself, and in the legend alone the caps of a bar.
    assert sorted(len(places) for places in marks.values()) == [2, 3]


def test_text_stays_text_and_says_what_the_axes_are() -> None:
    texts = [node.text for node in ElementTree.fromstring(curve_svg(RICH)).iter("text")]
    expected = {"stored bytes, logarithmic", "top-1 accuracy", "full data (20.0 MB): 95.0 %", "chance: 50.0 %"}
    expected |= {"budget 200 kB", "tight", "random, AV1", "this release", "100 kB", "50 kB"}
    assert expected <= set(texts)
    by_top5 = curve_svg(dataclasses.replace(RICH, metric="top5"))
    assert "top-5 accuracy" in by_top5
    assert "chance: 100.0 %" in by_top5


def test_the_picture_is_described_in_words() -> None:
    root = ElementTree.fromstring(curve_svg(RICH))
    labels = {node.get("id"): node.text for node in root if node.tag in ("title", "desc")}
    assert root.get("role") == "img"
    assert set(root.get("aria-labelledby", "").split()) == set(labels)
    assert any(text and "tight from 65.0 % at 20.0 kB to 94.0 % at 800 kB" in text for text in labels.values())


def test_names_are_taken_as_they_are() -> None:
    names = ("<b>bold</b> & co", "$x^2$ costs 5 $", "_hidden", "ünïcode")
    curve = tuple(CurvePoint(name, 9_000, (0.5, 0.6)) for name in names)
    root = ElementTree.fromstring(curve_svg(dataclasses.replace(RICH, curve=curve)))
    assert set(names) <= {node.text for node in root.iter("text")}
    assert not list(root.iter("b"))


def test_colours_are_the_pages_and_nothing_is_fetched() -> None:
    svg = curve_svg(RICH)
    assert not re.search(r"#[0-9a-fA-F]{6}\b|https?:|<style|url\((?!#)|font-family", svg)


def test_the_same_report_gives_the_same_picture_whatever_the_users_settings() -> None:
    import matplotlib as mpl

    svg, png = curve_svg(RICH), curve_png(RICH)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path", "lines.linewidth": 9}):
        assert curve_svg(RICH) == svg
        assert curve_png(RICH) == png
        assert mpl.rcParams["font.size"] == 30
    assert "Date" not in svg


def test_the_png_is_a_wide_picture_on_light_ground() -> None:
    image = Image.open(io.BytesIO(curve_png(RICH)))
    assert image.format == "PNG"
    assert image.width > 1.5 * image.height > 900
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_report_without_a_curve_is_refused() -> None:
    for draw in (curve_svg, curve_png):
        with pytest.raises(ValueError, match="no curve"):
            draw(USUAL)

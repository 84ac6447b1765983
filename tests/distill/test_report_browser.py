"""The page as a browser shows it: nothing missing, nothing fetched, nothing cut off, readable in both schemes.

Playwright drives the Chromium that the system has, or its own; where there is neither, these tests are skipped.
"""

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright import sync_api

from lvdd_assets.distill import report
from lvdd_assets.distill.report import ReportData
from tests.distill.report_examples import USUAL, make_many_classes, make_rich

PAGES: dict[str, Callable[[], ReportData]] = {
    "rich": make_rich,
    "plain": lambda: USUAL,
    "20 classes": lambda: make_many_classes(20),
    "101 classes": lambda: make_many_classes(101),
}
LEAST_CONTRAST = 4.5
"""WCAG 2.2, criterion 1.4.3, for text of usual size."""

# Relative luminance and contrast after WCAG 2.2; the text's ground is the nearest ancestor's that has one.
CONTRASTS = """
elements => {
  const channels = colour => {
    const found = colour.match(/[\\d.]+/g).map(Number);
    const scaled = colour.startsWith('color(') ? found : found.map((value, index) => index < 3 ? value / 255 : value);
    return [...scaled.slice(0, 3), scaled.length > 3 ? scaled[3] : 1];
  };
  const luminance = colour => {
    const [r, g, b] = channels(colour).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return elements.filter(element => element.textContent.trim()).map(element => {
    let ground = element;
    while (channels(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const pair = [luminance(svg ? style.fill : style.color), luminance(getComputedStyle(ground).backgroundColor)];
    return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), element.textContent.trim().slice(0, 40)];
  });
}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    system = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        if system is None and not Path(own).exists():
            pytest.skip("there is no Chromium: install one, or run playwright install chromium")
        # Chromium's sandbox refuses to run as root, which is what containers run as.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=system or own, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports as files, by name."""
    return {
        name: report.write_report(tmp_path_factory.mktemp("report"), make())[0].resolve()
        for name, make in PAGES.items()
    }


@pytest.fixture
def show(chromium: Any, written: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Opens a page and says on the way what went wrong."""
    contexts = []

    def open_page(name: str, *, width: int = 1400, **options: Any) -> Any:
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.heard = heard = {"requests": [], "trouble": []}
        page.on("request", lambda request: heard["requests"].append(request.url))
        page.on("requestfailed", lambda request: heard["trouble"].append(f"failed: {request.url[:80]}"))
        page.on("pageerror", lambda error: heard["trouble"].append(str(error)))
        page.on("console", lambda message: heard["trouble"].append(message.text))
        page.goto(written[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def _open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")


@pytest.mark.parametrize("name", list(PAGES))
def test_nothing_is_missing_fetched_or_in_error(show: Callable[..., Any], written: dict[str, Path], name: str) -> None:
    page = show(name)
    assert page.heard["trouble"] == []
    elsewhere = [url[:80] for url in page.heard["requests"] if not url.startswith("data:image/")]
    assert elsewhere == [written[name].as_uri()]
    loaded = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 1)")
    assert loaded == [True] * (2 if name == "rich" else 0)


@pytest.mark.parametrize("name", list(PAGES))
def test_the_page_never_scrolls_sideways(show: Callable[..., Any], name: str) -> None:
    page = show(name)
    _open_all(page)
    for width in (320, 390, 768, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Tables may scroll within themselves where a matrix needs it, and nowhere else.
        boxes = "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth)"
        wide = page.eval_on_selector_all(".scroll", boxes + ".map(box => box.firstElementChild.className)")
        assert set(wide) <= ({"confusion"} if name == "20 classes" else set()), width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show: Callable[..., Any], scheme: str) -> None:
    page = show("rich", color_scheme=scheme)
    _open_all(page)
    for selector in ("p, h1, h2, h3, b, span, li, td, th, small, summary, figcaption, caption, dt, dd", "svg text"):
        found = page.eval_on_selector_all(selector, CONTRASTS)
        assert len(found) > 10
        assert [pair for pair in found if pair[0] < LEAST_CONTRAST] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_shade_of_the_matrix_is_readable(show: Callable[..., Any], scheme: str) -> None:
    page = show("rich", color_scheme=scheme)
    cell = page.locator(".confusion td").first
    shares = [*(step / 10 for step in range(11)), 0.65, 0.651]
    shade = "(cell, v) => { cell.style.setProperty('--v', v); cell.classList.toggle('hot', v > 0.65); }"
    for share in shares:
        cell.evaluate(shade, share)
        assert page.eval_on_selector_all(".confusion td:first-of-type", CONTRASTS)[0][0] >= LEAST_CONTRAST, share


@pytest.mark.parametrize(("width", "shown"), [(390, "narrow"), (1400, "wide")])
def test_the_curve_fits_the_screen_with_text_of_readable_size(show: Callable[..., Any], width: int, shown: str) -> None:
    page = show("rich", width=width)
    visible = [svg.get_attribute("class") for svg in page.locator(".curve svg").all() if svg.is_visible()]
    assert visible == [shown]
    heights = page.eval_on_selector_all(
        f".curve svg.{shown} text", "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    assert min(heights) >= 9
    outside = page.eval_on_selector_all(
        f".curve svg.{shown} text",
        """texts => texts.filter(text => { const box = text.getBoundingClientRect(),
            frame = text.ownerSVGElement.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1; }).map(text => text.textContent)""",
    )
    assert outside == []


def test_readers_who_asked_for_less_motion_get_a_still(show: Callable[..., Any]) -> None:
    source = ".preview img"
    moving = show("rich").eval_on_selector(source, "image => image.currentSrc")
    still = show("rich", reduced_motion="reduce").eval_on_selector(source, "image => image.currentSrc")
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) for uri in (moving, still)]
    assert [picture.n_frames for picture in pictures] == [3, 1]


def test_paper_is_light_opens_what_is_folded_and_shows_no_moving_picture(show: Callable[..., Any]) -> None:
    page = show("rich", color_scheme="dark")
    assert not page.get_by_text("herding, uint8").nth(1).is_visible()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = page.eval_on_selector_all(
        "details tbody tr", "rows => rows.map(row => row.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) > 5
    assert not page.locator(".preview").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")

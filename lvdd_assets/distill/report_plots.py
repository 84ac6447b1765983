"""The rate-accuracy curve of a report, drawn with matplotlib: inline SVG for the page, PNG for other places.

The SVG takes its colours from the page's CSS variables, so that dark mode and print need no second picture.
What must NOT come here: HTML, words of the verdict; figures come in as `ReportData`.
"""

import io
import math
import re
from html import escape
from typing import Any

from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.plot_style import COLOURS, DPI, size_tick, styled
from lvdd_assets.distill.report_data import ReportData

_NUM_SERIES = 6
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)), (0, (8, 2, 2, 2, 2, 2)))
_WIDE, _NARROW = (8.6, 4.6), (3.9, 4.6)


def curve_svg(report: ReportData, *, narrow: bool = False) -> str:
    """Accuracy against stored bytes as an `<svg>` element to stand within a page.

    One line for each recipe, with bars of one standard deviation over seeds where there are several; full data and
    chance are horizontal lines, the budget a vertical one; the release has a ring. Text stays text. The same report
    gives the same bytes.

    Args:
        report: With a curve.
        narrow: As wide as a phone, with text of the same size.

    Raises:
        ValueError: The report has no curve.
    """
    salt = "narrow" if narrow else "wide"
    with styled(salt):
        figure = _draw(report, narrow=narrow)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _inline(stream.getvalue(), _describe(report), salt)


def curve_png(report: ReportData) -> bytes:
    """The picture of `curve_svg` in light colours as PNG."""
    with styled("png"):
        figure = _draw(report, narrow=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _draw(report: ReportData, *, narrow: bool) -> Any:
    """The figure, with matplotlib's object interface, so that no window system and no global state is touched."""
    from matplotlib.figure import Figure

    if not report.curve:
        raise ValueError("the report has no curve; expected points of at least one recipe: set ReportData.curve")
    figure = Figure(figsize=_NARROW if narrow else _WIDE, layout="constrained", facecolor=COLOURS["card"])
    axes = figure.add_subplot(facecolor=COLOURS["card"])
    handles: list[Any] = []
    for index, (recipe, points) in enumerate(report.recipes.items()):
        colour = COLOURS[f"s{index % _NUM_SERIES}"]
        # One seed says nothing about the spread: no bar, where zero would draw the caps of one.
        spreads = [point.std if len(point.accuracies) > 1 else math.nan for point in points]
        line = axes.errorbar(
            [point.stored_bytes for point in points],
            [point.mean for point in points],
            yerr=spreads,
            label=recipe,
            color=colour,
            linestyle=_DASHES[index % _NUM_SERIES],
            linewidth=1.8,
            marker=_MARKERS[index % _NUM_SERIES],
            markersize=5.5,
            capsize=3,
            elinewidth=1.1,
        )
        handles.append(line)
    handles += axes.plot(
        [report.release.stored_bytes],
        [report.release.mean(report.metric)],
        label=report.release.name,
        linestyle="none",
        marker="o",
        markersize=12,
        markerfacecolor="none",
        markeredgecolor=COLOURS["text"],
        markeredgewidth=1.6,
    )
    _set_axes(axes, report, narrow=narrow)
    _draw_marks(axes, report)
    columns = 1 if narrow else 3
    figure.legend(
        handles,
        [handle.get_label() for handle in handles],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
    )
    return figure


def _set_axes(axes: Any, report: ReportData, *, narrow: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

    sizes = [point.stored_bytes for point in report.curve] + [report.release.stored_bytes, report.allowed_bytes]
    smallest, largest = min(sizes), max(sizes)
    axes.set_xscale("log")
    axes.set_xlim(smallest / 1.25, largest * 1.25)
    # Labels at 1, 2 and 5 of each decade fit as long as there are few decades.
    few = largest / smallest < (30 if narrow else 1000)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _place: size_tick(size)))
    axes.set_xlabel("stored bytes, logarithmic")
    marks = [report.full.mean(report.metric), report.release.mean(report.metric)]
    highest = max([*marks, *(point.mean + point.std for point in report.curve)])
    axes.set_ylim(0, min(1.04, highest * 1.15 + 0.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_ylabel(f"{report.metric_name} accuracy")
    axes.grid(color=COLOURS["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_marks(axes: Any, report: ReportData) -> None:
    """Full data, chance and budget; their labels stand on the picture's ground where curves seldom are."""
    full = report.full.mean(report.metric)
    label = {"fontsize": 8.5, "bbox": {"facecolor": COLOURS["card"], "edgecolor": "none", "pad": 1.2}, "zorder": 4}
    axes.axhline(full, color=COLOURS["full"], linewidth=1.4, zorder=1)
    axes.axhline(report.chance, color=COLOURS["bad"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    axes.axvline(report.allowed_bytes, color=COLOURS["soft"], linewidth=1.2, linestyle=(0, (1.5, 2)), zorder=1)
    across, along = axes.get_yaxis_transform(), axes.get_xaxis_transform()
    above = {"xytext": (0, 4), "textcoords": "offset points", "va": "bottom"}
    below = {"xytext": (0, -4), "textcoords": "offset points", "va": "top"}
    text = f"full data ({format_bytes(report.full.stored_bytes)}): {100 * full:.1f} %"
    room = above if full < 0.92 * axes.get_ylim()[1] else below
    axes.annotate(text, (0.01, full), xycoords=across, ha="left", color=COLOURS["soft"], **room, **label)
    room = below if report.chance > 0.09 * axes.get_ylim()[1] else above
    text = f"chance: {100 * report.chance:.1f} %"
    axes.annotate(text, (0.99, report.chance), xycoords=across, ha="right", color=COLOURS["bad"], **room, **label)
    place = axes.transAxes.inverted().transform(axes.transData.transform((report.allowed_bytes, 0)))[0]
    side = "right" if place > 0.75 else "left" if place < 0.25 else "center"
    text = f"budget {format_bytes(report.allowed_bytes)}"
    axes.annotate(
        text, (report.allowed_bytes, 1), xycoords=along, ha=side, color=COLOURS["soft"], **above, fontsize=8.5
    )


def _describe(report: ReportData) -> str:
    """The picture in a sentence, for those who do not see it."""
    ends = [
        f"{recipe} from {100 * points[0].mean:.1f} % at {format_bytes(points[0].stored_bytes)} to "
        f"{100 * points[-1].mean:.1f} % at {format_bytes(points[-1].stored_bytes)}"
        for recipe, points in report.recipes.items()
    ]
    return (
        f"{report.metric_name.capitalize()} accuracy against stored bytes: {'; '.join(ends)}. "
        f"Full data: {100 * report.full.mean(report.metric):.1f} %; chance: {100 * report.chance:.1f} %."
    )


def _inline(svg: str, description: str, salt: str) -> str:
    """What matplotlib wrote, fit to stand within a page: no prolog, no addresses, variables for colours, a title."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    kept = {name for pair in used for name in pair if name}
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in kept else "", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    # The page's own type, and its own rule for how lines meet: a style sheet here would reach all of the page.
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None
    head = (
        f'<svg class="{salt}" viewBox="{box[1]}" role="img" aria-labelledby="curve-{salt} curve-{salt}-text">'
        f'<title id="curve-{salt}">Accuracy against stored bytes</title>'
        f'<desc id="curve-{salt}-text">{escape(description)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :].rstrip()

"""How plots look: one type, one palette, whatever the user's own matplotlib settings are.

What is drawn belongs to `report_plots` and `asset_plots`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Each colour of the light palette stands for a variable of the page's style sheet. The lines' hues differ in
# brightness as well (after Okabe and Ito, "Color universal design", 2008), and each has a marker and a dash of its own.
COLOURS = {
    "text": "#1a1f27",
    "soft": "#5c6673",
    "line": "#dde1e7",
    "card": "#ffffff",
    "full": "#7b8794",
    "bad": "#b3261e",
    "s0": "#0b6e99",
    "s1": "#c2571a",
    "s2": "#2b8a5f",
    "s3": "#8a4fa3",
    "s4": "#946f00",
    "s5": "#c04a76",
}
DPI = 150
"""Dots per inch of pictures made of pixels."""


@contextmanager
def styled(salt: str) -> Iterator[None]:
    """Matplotlib's own defaults but for type, ids (made from `salt`) and colours."""
    import matplotlib as mpl

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "font.size": 9.5,
        "text.color": COLOURS["text"],
        "axes.labelcolor": COLOURS["text"],
        "axes.edgecolor": COLOURS["soft"],
        "xtick.color": COLOURS["soft"],
        "ytick.color": COLOURS["soft"],
        "xtick.labelcolor": COLOURS["text"],
        "ytick.labelcolor": COLOURS["text"],
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def size_tick(size: float) -> str:
    """A number of bytes as short as it can be written."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"

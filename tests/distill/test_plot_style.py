import matplotlib as mpl
import pytest

from lvdd_assets.distill.plot_style import size_tick, styled


def test_the_user_s_own_settings_neither_reach_the_plot_nor_change() -> None:
    with mpl.rc_context({"font.size": 31, "svg.hashsalt": "mine"}):
        with styled("ours"):
            assert mpl.rcParams["font.size"] == 9.5
            assert mpl.rcParams["svg.hashsalt"] == "ours"
        assert mpl.rcParams["font.size"] == 31
        assert mpl.rcParams["svg.hashsalt"] == "mine"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (2500, "2.5 kB"), (3_000_000, "3 MB"), (2e9, "2 GB")]
)
def test_sizes_are_short(size: float, text: str) -> None:
    assert size_tick(size) == text

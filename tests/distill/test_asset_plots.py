"""Pictures are PNG, show what they are given and no more, and are the same for the same figures."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from lvdd_assets.distill import asset_plots, tucker
from lvdd_assets.distill.plot_style import COLOURS

RNG = np.random.default_rng(3)
LATENTS = RNG.normal(size=(12, 2, 4, 3, 3)).astype(np.float16)
SPECTRUM = tucker.singular_values(LATENTS)


def _count(picture: bytes, colour: str) -> int:
    """Pixels of exactly a colour of the palette."""
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return int((pixels == [int(COLOURS[colour][at : at + 2], 16) for at in (1, 3, 5)]).all(axis=1).sum())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: asset_plots.projection_png(LATENTS, np.array([1, 2])),
        lambda: asset_plots.spectrum_png(SPECTRUM, SPECTRUM),
        lambda: asset_plots.class_bytes_png({"run": 30, "jump": 40}, 100),
        lambda: asset_plots.ledger_png({"cores": 70, "decoder": 20, "metadata": 10}, 120),
    ],
    ids=["projection", "spectrum", "classes", "ledger"],
)
def test_the_same_figures_give_the_same_bytes(draw: Callable[[], bytes]) -> None:
    assert draw() == draw()


@pytest.mark.parametrize(
    ("coded", "share"), [([4, 3], 1.0), ([5, 3], 1.0), ([4, 0], 16 / 25), ([2, 1.5], 0.25), ([0, 5], 9 / 25)]
)
def test_no_more_than_all_of_the_energy_is_kept(coded: list[float], share: float) -> None:
    assert asset_plots.energy_kept(np.array([4.0, 3.0]), np.array(coded)) == pytest.approx(share)
    assert asset_plots.energy_kept(np.zeros(2), np.array(coded)) == 1


def test_more_kept_clips_are_more_kept_points() -> None:
    few, many = (_count(asset_plots.projection_png(LATENTS, np.arange(k)), "s1") for k in (1, 9))
    assert few < many


@pytest.mark.parametrize(
    ("latents", "items"),
    [
        (LATENTS[:1], np.array([0])),
        (LATENTS[:2], np.array([1])),
        (np.repeat(LATENTS[:1], 5, axis=0), np.array([0, 3])),
        (LATENTS, np.arange(12)),
    ],
    ids=["one clip", "two clips", "all the same", "all kept"],
)
def test_a_projection_of_whatever_a_class_is(latents: np.ndarray, items: np.ndarray) -> None:
    assert _count(asset_plots.projection_png(latents, items), "s1") > 0


def test_thousands_of_clips_are_drawn_in_part_and_the_kept_ones_all() -> None:
    latents = RNG.normal(size=(3000, 1, 4, 1, 1)).astype(np.float16)
    picture = asset_plots.projection_png(latents, np.array([2999]))
    assert picture == asset_plots.projection_png(latents, np.array([2999]))
    assert _count(picture, "s1") > 0


def test_bytes_in_a_ledger_have_their_length() -> None:
    """Cores and decoder in the proportion 7 : 2."""
    picture = asset_plots.ledger_png({"cores": 70_000, "decoder": 20_000, "metadata": 10_000}, 120_000)
    cores, decoder = (_count(picture, colour) for colour in ("s0", "s1"))
    assert cores / decoder == pytest.approx(3.5, rel=0.1)


def test_classes_over_an_equal_share_have_another_colour() -> None:
    assert _count(asset_plots.class_bytes_png({"run": 30, "jump": 30}, 100), "s1") == 0
    assert _count(asset_plots.class_bytes_png({"run": 70, "jump": 20}, 100), "s1") > 0


def test_hundreds_of_classes_make_no_endless_picture() -> None:
    picture = asset_plots.class_bytes_png({f"class {number}": 100 + number for number in range(400)}, 90_000)
    with Image.open(io.BytesIO(picture)) as image:
        assert image.height < 1500

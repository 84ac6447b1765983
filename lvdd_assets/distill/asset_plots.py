"""Plots beside what a step stores, as PNG for Dagster's pages: which clips were kept, what of the spectrum is left,
where the bytes are.

They are told beside a result and decide nothing. Pictures of clips belong to `report_pictures`, the curve of accuracy
to `report_plots`.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lvdd_assets.distill.plot_style import COLOURS, DPI, size_tick, styled

# So many left-out clips are drawn at most: more are a cloud anyway, and their latents take memory.
_MOST_LEFT_OUT = 1000
# Names of more classes than this would stand upon each other.
_MOST_NAMED = 40
_PARTS = ("cores", "basis", "decoder", "encoder", "labels", "metadata")
_MODES = ("T, time", "C, channels", "h, height", "w, width")


def projection_png(latents_NTChw: np.ndarray, items: np.ndarray, *, seed: int = 0) -> bytes:
    """Kept and left-out clips of a class in the plane of their first two principal components.

    Args:
        latents_NTChw: float [N, T, C, h, w].
        items: indices of the kept clips, int [k].
        seed: of the draw of left-out clips, where there are more than a thousand, and of the randomised PCA.
    """
    from sklearn.decomposition import PCA

    kept = np.sort(np.asarray(items))
    others = np.setdiff1d(np.arange(len(latents_NTChw)), kept)
    if len(others) > _MOST_LEFT_OUT:
        others = np.sort(np.random.default_rng(seed).choice(others, _MOST_LEFT_OUT, replace=False))
    shown = np.concatenate([kept, others])
    values_ND = latents_NTChw[shown].reshape(len(shown), -1).astype(np.float32)
    plane, shares = np.zeros((len(shown), 2)), np.zeros(2)
    num_components = min(2, len(shown) - 1, values_ND.shape[1])
    if num_components > 0 and np.ptp(values_ND, axis=0).any():
        pca = PCA(num_components, svd_solver="randomized", random_state=seed)
        plane[:, :num_components] = pca.fit_transform(values_ND)
        shares[:num_components] = pca.explained_variance_ratio_

    def draw(axes: Any) -> None:
        count = len(kept)
        axes.scatter(*plane[count:].T, s=22, c=COLOURS["full"], alpha=0.55, label=f"left out, {len(others)}")
        axes.scatter(*plane[:count].T, s=46, c=COLOURS["s1"], edgecolors=COLOURS["card"], label=f"kept, {count}")
        axes.set_xlabel(f"first principal component ({100 * shares[0]:.0f} % of the variance)")
        axes.set_ylabel(f"second ({100 * shares[1]:.0f} %)")
        axes.legend(frameon=False)

    return _draw("projection", draw, (5.6, 4.2))


def spectrum_png(original: Sequence[np.ndarray], coded: Sequence[np.ndarray]) -> bytes:
    """Singular values of a class's latents along each mode, and the part of them that the coded class still has.

    Args:
        original: of the latents along T, C, h, w, largest first (`tucker.singular_values`).
        coded: of the latents as they come back, in the same order.
    """

    def draw(panels: Any) -> None:
        for axes, mode, values, left in zip(panels, _MODES, original, coded, strict=True):
            places = np.arange(1, len(values) + 1)
            axes.plot(places, values, color=COLOURS["soft"], marker="o", markersize=3, label="latents")
            axes.fill_between(places, left, color=COLOURS["s0"], alpha=0.45, label="kept")
            axes.plot(places, left, color=COLOURS["s0"], linewidth=1)
            axes.set_title(f"{mode}: {100 * energy_kept(values, left):.0f} % of the energy", fontsize=9)
            axes.set_ylim(bottom=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("singular value")
        panels[-1].legend(frameon=False)

    return _draw("spectrum", draw, (10.4, 2.9), columns=4)


def energy_kept(original: np.ndarray, coded: np.ndarray) -> float:
    """Share of a spectrum's energy that another one has as well, in [0, 1].

    Rounding adds noise, so a coded value may be the larger one; what it has beyond the original counts for nothing.

    Args:
        original: singular values, at least 0.
        coded: as many, in the same order.
    """
    energy = float((original**2).sum())
    return float((np.minimum(original, coded) ** 2).sum()) / energy if energy > 0 else 1.0


def class_bytes_png(num_bytes: Mapping[str, int], allowed: int) -> bytes:
    """Bytes of each class in a release, beside an equal share of what is allowed.

    Args:
        num_bytes: by class, in the order of their labels.
        allowed: bytes that the whole release may take.
    """
    names, sizes = list(num_bytes), list(num_bytes.values())
    share = allowed / max(1, len(names))

    def draw(axes: Any) -> None:
        places = np.arange(len(names))
        axes.barh(places, sizes, color=[COLOURS["s1" if size > share else "s0"] for size in sizes], height=0.8)
        axes.axvline(
            share, color=COLOURS["soft"], linestyle=(0, (4, 3)), label=f"equal share {size_tick(round(share))}"
        )
        axes.set_yticks(places if len(names) <= _MOST_NAMED else [], names if len(names) <= _MOST_NAMED else [])
        axes.set_ylabel("" if len(names) <= _MOST_NAMED else f"{len(names)} classes")
        axes.invert_yaxis()
        _bytes_along(axes)
        axes.figure.legend(frameon=False, loc="outside lower center")

    return _draw("classes", draw, (6.4, 1.4 + 0.26 * min(len(names), _MOST_NAMED)))


def ledger_png(num_bytes: Mapping[str, int], allowed: int) -> bytes:
    """A release as one bar, a piece for each part, under the mark of what is allowed.

    Args:
        num_bytes: by part of the ledger.
        allowed: bytes that the release may take.
    """
    parts = [part for part in _PARTS if num_bytes.get(part)]
    total = sum(num_bytes.values())

    def draw(axes: Any) -> None:
        start = 0
        for index, part in enumerate(parts):
            size = num_bytes[part]
            label = f"{part} {size_tick(size)}, {100 * size / total:.1f} %"
            axes.barh([0], [size], left=start, color=COLOURS[f"s{index}"], label=label, height=0.8)
            start += size
        axes.axvline(allowed, color=COLOURS["bad"], linestyle=(0, (4, 3)), label=f"allowed {size_tick(allowed)}")
        axes.set_yticks([])
        axes.set_xlim(0, 1.04 * max(allowed, total))
        _bytes_along(axes)
        axes.figure.legend(frameon=False, ncols=3, loc="outside lower center")

    return _draw("ledger", draw, (7.2, 2.3))


def _bytes_along(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _place: size_tick(size)))


def _draw(salt: str, draw: Callable[[Any], None], size: tuple[float, float], *, columns: int = 1) -> bytes:
    """PNG of one plot, or of several in a row; the same figures give the same bytes."""
    with styled(salt):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained", facecolor=COLOURS["card"])
        axes = figure.subplots(1, columns)
        for one in np.atleast_1d(axes):
            one.spines[["top", "right"]].set_visible(False)
            one.set_axisbelow(True)
        draw(axes)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI * 2 // 3, metadata={"Software": None})
    return stream.getvalue()

"""Chooses clips of a class by a named method and says what the choice is worth: beside uniform draws of the same size.

N clips, k of them kept. Methods themselves belong to `dpp` and `coresets`, similarity to `kernels`, what is compared to
`features`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lvdd_assets.distill import coresets, dpp, paper
from lvdd_assets.distill.features import FEATURES, Features, prepare
from lvdd_assets.distill.kernels import DENSE_LIMIT, KERNELS, FeatureKernel, Kernel, build_kernel

METHODS = ("k-dpp", "map", *coresets.METHODS)

NUM_UNIFORM_DRAWS = 20

DEFAULT_CLIPS = 100
"""Clips kept of a class where no number is asked for: about as many as a class of the field's datasets has. More cost
time and no bytes, since the release holds as many of them as the budget has room for."""

_DPP_ROUTES = ("exact", "dual", "nystrom")


def default_clips(recipe: str) -> int:
    """Clips kept of a class where no number is asked for; recipe paper, which stores all that were selected, has the
    released code's number."""
    return paper.RELEASED_IPC1_CLIPS_PER_CLASS if recipe == "paper" else DEFAULT_CLIPS


def clips_wanted(asked: int | Literal["all"] | None, *, recipe: str, num_clips: int) -> int:
    """Clips to keep of a class of `num_clips`: the number that was asked for, which may be more than there are; or all;
    or at most `default_clips` where nothing was asked."""
    if asked == "all":
        return num_clips
    return min(default_clips(recipe), num_clips) if asked is None else asked


@dataclass(frozen=True)
class Rules:
    """How clips are chosen.

    Attributes:
        method: one of `METHODS`.
        kernel: one of `kernels.KERNELS`.
        features: one of `features.FEATURES`.
        feature_dim: dimensions of projected features, at most so many of pooled ones.
        quality: α ≥ 0, how much nearness to the class's mean counts in the kernel; 0 is off.
        projection_seed: of the Gaussian matrix of projected features.
    """

    method: str = "k-dpp"
    kernel: str = "rbf"
    features: str = "flat"
    feature_dim: int = 512
    quality: float = 0.0
    projection_seed: int = 0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("method", self.method, METHODS),
            ("kernel", self.kernel, KERNELS),
            ("features", self.features, FEATURES),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")


@dataclass(frozen=True)
class Figures:
    """What a subset is worth.

    Attributes:
        log_det: log det(L_S); −inf where it is singular.
        nearest: mean distance of a kept clip to the nearest other one, in units of the features; NaN for a single clip.
        coverage: mean distance of every clip of the class to the nearest kept one; 0 where the class is kept whole.
        coverage_share: the same as a share of the mean distance to the class's mean; 0 where all clips are equal.
    """

    log_det: float
    nearest: float
    coverage: float
    coverage_share: float


# Figures by the name that they are shown with.
_SHOWN = {
    "log det": "log_det",
    "mean nearest-neighbour distance": "nearest",
    "coverage": "coverage",
    "coverage / spread": "coverage_share",
}


@dataclass(frozen=True)
class Selection:
    """A subset of a class in the order in which a smaller release drops it from the end.

    Attributes:
        items: int64 [k], no item twice.
        route: "exact", "dual" or "nystrom" for the k-DPP (see `dpp.Draw`); "greedy" for greedy MAP, else the method.
        feature_dim: D of the features.
        bandwidth: the kernel's, 0.0 for kernels without one.
        max_off_diagonal: largest similarity of two clips (of 500 evenly spaced ones in a large class).
        is_diagonal: whether no two of them are similar enough to matter.
        figures: of the subset.
        uniform: of uniform draws of the same size.
        kernel_rank: rank of the kernel that a k-DPP drew from; None for other methods.
        kept_trace: share of the kernel's trace in it; 1.0 unless the route is "nystrom".
    """

    items: np.ndarray
    route: str
    feature_dim: int
    bandwidth: float
    max_off_diagonal: float
    is_diagonal: bool
    figures: Figures
    uniform: tuple[Figures, ...] = field(repr=False)
    kernel_rank: int | None = None
    kept_trace: float = 1.0

    def comparison(self) -> list[dict[str, Any]]:
        """One row a figure: chosen, and mean, least and largest of the uniform draws. What is singular says so."""
        rows = []
        for shown, name in _SHOWN.items():
            drawn = np.array([getattr(figures, name) for figures in self.uniform])
            rows.append(
                {
                    "figure": shown,
                    "chosen": _plain(getattr(self.figures, name)),
                    "uniform mean": _plain(float(drawn.mean())),
                    "uniform min": _plain(float(drawn.min())),
                    "uniform max": _plain(float(drawn.max())),
                }
            )
        return rows

    def warnings(self) -> list[str]:
        """What a user should know before trusting the choice."""
        found = []
        if self.is_diagonal and self.route in (*_DPP_ROUTES, "greedy"):
            found.append(
                "the kernel is diagonal (the identity, up to quality): no two clips are similar, so that a k-DPP draws "
                "uniformly and greedy MAP takes the first clips. Use kernel: rbf, whose bandwidth comes from the data."
            )
        if self.route == "nystrom":
            found.append(
                f"approximate: the k-DPP was drawn from a Nyström kernel of rank {self.kernel_rank} with "
                f"{self.kept_trace:.1%} of the trace. method: map is exact at this size."
            )
        return found

    def metrics(self) -> dict[str, Any]:
        """All of it as plain values for a commit mark; None where there is no such figure."""
        log_dets = np.array([figures.log_det for figures in self.uniform])
        metrics: dict[str, Any] = {
            "route": self.route,
            "comparison": self.comparison(),
            "log_det": _finite(self.figures.log_det),
            "log_det_uniform_mean": _finite(float(log_dets.mean())),
            "log_det_uniform_max": _finite(float(log_dets.max())),
            "mean_nearest_distance": _finite(self.figures.nearest),
            "coverage": self.figures.coverage,
            "coverage_share": self.figures.coverage_share,
            "feature_dim": self.feature_dim,
            "bandwidth": self.bandwidth,
            "max_off_diagonal": self.max_off_diagonal,
            "kernel_rank": self.kernel_rank,
        }
        if self.warnings():
            metrics["warning"] = " ".join(self.warnings())
        return metrics


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _plain(value: float) -> float | str:
    """For a table that goes through JSON, which has neither infinities nor NaN."""
    if np.isnan(value):
        return "–"
    return value if np.isfinite(value) else "singular"


def select(
    latents: np.ndarray, k: int, rules: Rules, *, seed: int, num_uniform_draws: int = NUM_UNIFORM_DRAWS
) -> Selection:
    """Chooses k clips, in an order of which every prefix is a sensible subset of its size.

    Args:
        latents: float [N, T, C, h, w] of one class.
        k: clips to keep.
        rules: method, kernel, features.
        seed: of the draw and of the uniform draws it is compared with.
        num_uniform_draws: at least 1.

    Raises:
        ValueError: k is above N or above the kernel's rank, or the features or the kernel cannot be made.
    """
    features = prepare(latents, kind=rules.features, dimension=rules.feature_dim, seed=rules.projection_seed)
    lazy = build_kernel(features, kind=rules.kernel, quality=rules.quality)
    kernel: FeatureKernel | Kernel = lazy.dense() if lazy.num_items <= DENSE_LIMIT else lazy
    rank, kept_trace = None, 1.0
    if rules.method == "k-dpp":
        draw = dpp.draw(kernel, k, seed=seed)
        items, route, rank, kept_trace = dpp.order_by_gain(kernel, draw.items), draw.route, draw.rank, draw.kept_trace
    elif rules.method == "map":
        items, route = dpp.greedy_map(kernel, k), "greedy"
    else:
        items, route = coresets.METHODS[rules.method](features, k, seed=seed), rules.method
    uniform = [
        measure(features, kernel, coresets.random(features, k, seed=_draw_seed(seed, index)))
        for index in range(num_uniform_draws)
    ]
    looked_at = kernel if isinstance(kernel, Kernel) else kernel.sampled()
    return Selection(
        items=items,
        route=route,
        feature_dim=features.dimension,
        bandwidth=kernel.bandwidth,
        max_off_diagonal=looked_at.max_off_diagonal,
        is_diagonal=looked_at.is_diagonal,
        figures=measure(features, kernel, items),
        uniform=tuple(uniform),
        kernel_rank=rank,
        kept_trace=kept_trace,
    )


def _draw_seed(seed: int, index: int) -> int:
    # Apart from the method's own seed, or method "random" would be one of the draws it is compared with.
    return int(np.random.SeedSequence([seed, index + 1]).generate_state(1, np.uint64)[0])


def measure(features: Features, kernel: FeatureKernel | Kernel, items: np.ndarray) -> Figures:
    """What a subset is worth, by the kernel's determinant and by distances of the features.

    Args:
        features: of all clips of the class.
        kernel: of the same clips.
        items: int64 [k].
    """
    distances_NK = np.sqrt(features.squared_distances(features.subset(items)))
    among = distances_NK[items]
    np.fill_diagonal(among, np.inf)
    to_mean = np.sqrt(features.squared_distances(Features(features.mean()[None])))
    coverage, spread = float(distances_NK.min(1).mean()), float(to_mean.mean())
    return Figures(
        log_det=dpp.log_det(kernel, items),
        nearest=float(among.min(1).mean()) if len(items) > 1 else float("nan"),
        coverage=coverage,
        coverage_share=coverage / spread if spread > 0 else 0.0,
    )

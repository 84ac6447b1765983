"""Similarity of a class's clips as a positive semi-definite kernel L = diag(q) S diag(q): held whole for small
classes, its columns made on demand for large ones.

N items; S is the similarity of their features, q their quality (1 unless it is asked for). What is drawn from a kernel
belongs to `dpp`.
"""

from dataclasses import dataclass

import numpy as np

from lvdd_assets.distill import paper
from lvdd_assets.distill.features import Features

KERNELS = ("rbf", "cosine", "linear", "exp")

DENSE_LIMIT = 4000
"""Items up to which an N×N matrix is held (128 MB) and decomposed; above it columns are made on demand."""

# Eigenvalues and variances below this share of the largest are taken for zero: float64 cannot tell them from rounding.
RANK_TOLERANCE = 1e-10

# Correlations below this leave a draw no different from one without the kernel.
_DIAGONAL = 1e-6

# Items whose pairs give the median distance of a class above DENSE_LIMIT.
_MEDIAN_ITEMS = 2000


@dataclass(frozen=True)
class Kernel:
    """A checked kernel matrix.

    Attributes:
        matrix: float64 [N, N], symmetric, finite.
        bandwidth: the kernel's bandwidth in units of the features' distance; 0.0 for kernels without one.
    """

    matrix: np.ndarray
    bandwidth: float = 0.0

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise ValueError(f"a kernel is a square matrix, got {matrix.shape = }")
        if not np.isfinite(matrix).all():
            raise ValueError("the kernel has entries that are not finite: look for NaN in the latents")
        diagonal = np.diag(matrix)
        if (diagonal < 0).any():
            raise ValueError(f"the kernel's diagonal has {diagonal.min():.3g}: no positive semi-definite matrix has")
        if np.abs(matrix - matrix.T).max() > RANK_TOLERANCE * diagonal.max():
            raise ValueError("the kernel is not symmetric")

    @property
    def num_items(self) -> int:
        """N."""
        return int(self.matrix.shape[0])

    @property
    def max_off_diagonal(self) -> float:
        """Largest similarity of two different items; near 0 means that L is diagonal and a k-DPP without quality is a
        uniform draw."""
        if self.num_items == 1:
            return 0.0
        return float(np.abs(self.matrix - np.diag(np.diag(self.matrix))).max())

    @property
    def is_diagonal(self) -> bool:
        """Whether no two items are similar enough to matter: every correlation is below a millionth."""
        if self.num_items == 1:
            return False
        scale = np.sqrt(np.diag(self.matrix))
        return bool((np.abs(self.matrix - np.diag(np.diag(self.matrix))) <= _DIAGONAL * np.outer(scale, scale)).all())

    def rank(self) -> int:
        """Numerical rank."""
        eigenvalues = np.linalg.eigvalsh(self.matrix)
        return int((eigenvalues > RANK_TOLERANCE * max(eigenvalues[-1], 0.0)).sum())

    def diagonal(self) -> np.ndarray:
        """L_ii, float64 [N]."""
        return np.diag(self.matrix).copy()

    def columns(self, items: np.ndarray) -> np.ndarray:
        """The items' columns of L, float64 [N, M]."""
        return self.matrix[:, items]

    def block(self, items: np.ndarray) -> "Kernel":
        """The kernel of those items alone, in that order."""
        return Kernel(self.matrix[np.ix_(items, items)], self.bandwidth)


@dataclass(frozen=True)
class FeatureKernel:
    """A kernel that is computed from features where it is looked at; never N×N unless `dense` is called.

    Attributes:
        features: of the items; what S is made of.
        kind: one of `KERNELS`.
        bandwidth: as in `Kernel`.
        quality_N: q, float64 [N], positive.
    """

    features: Features
    kind: str
    bandwidth: float
    quality_N: np.ndarray

    def __post_init__(self) -> None:
        quality = self.quality_N
        if quality.shape != (self.num_items,) or not np.isfinite(quality).all() or (quality <= 0).any():
            raise ValueError(
                f"quality is one positive number for each of {self.num_items} items, got {quality.shape = } from "
                f"{quality.min():.3g} to {quality.max():.3g}: lower the quality's weight"
            )

    @property
    def num_items(self) -> int:
        """N."""
        return self.features.num_items

    def diagonal(self) -> np.ndarray:
        """L_ii, float64 [N]."""
        similarity = self.features.squares_N if self.kind == "linear" else np.ones(self.num_items)
        return similarity * self.quality_N**2

    def columns(self, items: np.ndarray) -> np.ndarray:
        """The items' columns of L, float64 [N, M]."""
        items = np.asarray(items, dtype=np.int64)
        columns = self._similarities(self.features, self.features.subset(items))
        columns *= self.quality_N[:, None]
        columns *= self.quality_N[items]
        return columns

    def block(self, items: np.ndarray) -> Kernel:
        """The kernel of those items alone, in that order."""
        items = np.asarray(items, dtype=np.int64)
        chosen = self.features.subset(items)
        quality = self.quality_N[items]
        matrix = self._similarities(chosen, chosen) * np.outer(quality, quality)
        return Kernel((matrix + matrix.T) / 2, self.bandwidth)

    def dense(self) -> Kernel:
        """The whole kernel, N×N."""
        return self.block(np.arange(self.num_items))

    def sampled(self, num_items: int = 500) -> Kernel:
        """The kernel of evenly spaced items, to look at where the whole is too large."""
        count = min(num_items, self.num_items)
        return self.block(np.linspace(0, self.num_items - 1, count).round().astype(np.int64))

    def factor(self) -> np.ndarray | None:
        """B with L = B Bᵀ, float64 [N, D], where L has one by construction (cosine and linear); else None."""
        if self.kind not in ("cosine", "linear"):
            return None
        weight = self.quality_N / np.sqrt(self.features.squares_N) if self.kind == "cosine" else self.quality_N
        return self.features.values_ND.astype(np.float64) * weight[:, None]

    def _similarities(self, left: Features, right: Features) -> np.ndarray:
        if self.kind == "linear":
            return left.dots(right)
        if self.kind == "cosine":
            return left.dots(right) / np.sqrt(np.outer(left.squares_N, right.squares_N))
        squares = left.squared_distances(right)
        if self.kind == "exp":
            return np.exp(-np.sqrt(squares) / self.bandwidth)
        return np.exp(squares / (-2 * self.bandwidth**2))


def build_kernel(features: Features, *, kind: str = "rbf", quality: float = 0.0) -> FeatureKernel:
    """Similarity of items by their features.

    - `rbf`: exp(−d² / 2σ²) with σ the median of the pairwise distances (above `DENSE_LIMIT` items: of those between
      2,000 of them). A bandwidth from the data is what makes the choice diverse.
    - `cosine`: x·y / |x||y|; `linear`: x·y. Both of rank at most D.
    - `exp`: exp(−d) of standardised features, the released code's kernel, for reproduction. Distances of real latents
      are in the hundreds, so it is the identity and a k-DPP draws uniformly; `Kernel.is_diagonal` says so.

    Args:
        features: of the items.
        kind: one of `KERNELS`.
        quality: α ≥ 0 in q_i = exp(−α d_i² / 2σ²), d_i the distance to the mean of all items and σ as above. 0: off.

    Raises:
        ValueError: unknown kind, negative quality, or features that the kernel is not defined for.
    """
    if kind not in KERNELS:
        raise ValueError(f"unknown kernel {kind!r}; known: {', '.join(KERNELS)}")
    if not (np.isfinite(quality) and quality >= 0):
        raise ValueError(f"{quality = }: expected 0 (off) or a positive number")
    bandwidth = _median_distance(features) if kind == "rbf" or quality > 0 else 0.0
    weights = np.ones(features.num_items)
    if quality > 0:
        squares = features.squared_distances(Features(features.mean()[None]))[:, 0]
        weights = np.exp(-quality * squares / (2 * bandwidth**2))
    if kind == "cosine" and not features.squares_N.all():
        raise ValueError("a clip's features are all zero: its cosine is undefined. Use the rbf kernel.")
    if kind == "exp":
        return FeatureKernel(features.standardised(), kind, paper.RELEASED_KERNEL_BANDWIDTH, weights)
    return FeatureKernel(features, kind, bandwidth if kind == "rbf" else 0.0, weights)


def _median_distance(features: Features) -> float:
    if features.num_items == 1:
        return 1.0
    if features.num_items > DENSE_LIMIT:
        order = np.argsort(np.random.default_rng(0).random(features.num_items), kind="stable")
        features = features.subset(np.sort(order[:_MEDIAN_ITEMS]))
    squares = features.squared_distances(features)
    bandwidth = float(np.sqrt(np.median(squares[np.triu_indices(features.num_items, 1)])))
    if bandwidth == 0.0:
        raise ValueError(
            "more than half of all pairs of clips are identical: the median distance is 0. Remove copies, or use the "
            "linear kernel without quality."
        )
    return bandwidth

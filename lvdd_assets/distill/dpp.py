"""Diverse subsets of a class by a determinantal point process: kernels, the exact k-DPP sampler, an order of the
sample.

N items with features of D dimensions; L is an N×N positive semi-definite kernel; P(S) ∝ det(L_S) with |S| = k. Which
features an item has is decided by whoever calls; other ways of choosing (random, herding, k-means) belong to
`coresets`.
"""

from dataclasses import dataclass

import numpy as np

KERNELS = ("rbf", "cosine", "linear")

# Eigenvalues below this share of the largest are taken for zero: float64 cannot tell them from rounding.
_RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Kernel:
    """A checked kernel matrix.

    Attributes:
        matrix: float64 [N, N], symmetric, finite.
        bandwidth: the RBF's bandwidth in units of the features' distance; 0.0 for kernels without one.
    """

    matrix: np.ndarray
    bandwidth: float = 0.0

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise ValueError(f"a kernel is a square matrix, got {matrix.shape = }")
        if not np.isfinite(matrix).all():
            raise ValueError("the kernel has entries that are not finite: look for NaN in the latents")
        if not np.allclose(matrix, matrix.T, atol=1e-10):
            raise ValueError("the kernel is not symmetric")

    @property
    def num_items(self) -> int:
        """N."""
        return int(self.matrix.shape[0])

    @property
    def max_off_diagonal(self) -> float:
        """Largest similarity of two different items; near 0 means that L is a multiple of the identity and k-DPP is a
        uniform draw."""
        if self.num_items == 1:
            return 0.0
        return float(np.abs(self.matrix - np.diag(np.diag(self.matrix))).max())

    def rank(self) -> int:
        """Numerical rank."""
        eigenvalues = np.linalg.eigvalsh(self.matrix)
        return int((eigenvalues > _RANK_TOLERANCE * max(eigenvalues[-1], 0.0)).sum())


def build_kernel(features_ND: np.ndarray, *, kind: str = "rbf") -> Kernel:
    """Similarity of items by their features.

    `rbf` is exp(−d² / 2σ²) with σ the median of the pairwise distances. The released code's exp(−d) with a fixed
    bandwidth of 1 is the identity on real latents, whose distances are in the hundreds; a bandwidth from the data is
    what makes the choice diverse.

    Args:
        features_ND: float [N, D].
        kind: one of `KERNELS`.
    """
    features = np.asarray(features_ND, dtype=np.float64)
    if features.ndim != 2 or features.shape[0] == 0:
        raise ValueError(f"features are [N, D] with N ≥ 1, got {features.shape = }")
    if not np.isfinite(features).all():
        raise ValueError("features have values that are not finite: look for NaN in the latents")
    if kind == "rbf":
        squares = _squared_distances(features)
        bandwidth = float(np.sqrt(np.median(squares[np.triu_indices(len(features), 1)]))) if len(features) > 1 else 1.0
        if bandwidth == 0.0:
            raise ValueError(
                "more than half of all pairs of clips are identical: the median distance is 0. Remove copies."
            )
        return Kernel(np.exp(-squares / (2 * bandwidth**2)), bandwidth)
    if kind == "cosine":
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        if not norms.all():
            raise ValueError("a clip's features are all zero: its cosine is undefined. Use the rbf kernel.")
        unit = features / norms
        return Kernel(_symmetric(unit @ unit.T))
    if kind == "linear":
        return Kernel(_symmetric(features @ features.T))
    raise ValueError(f"unknown kernel {kind!r}; known: {', '.join(KERNELS)}")


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2


def _squared_distances(features_ND: np.ndarray) -> np.ndarray:
    squares = (features_ND**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * features_ND @ features_ND.T
    distances = np.maximum(_symmetric(distances), 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def sample(kernel: Kernel, k: int, *, seed: int) -> np.ndarray:
    """Draws k items with P(S) = det(L_S) / e_k(λ), exactly (Kulesza & Taskar 2012, algorithms 7 and 8, and 1).

    Returns:
        int64 [k], ascending.

    Raises:
        ValueError: k is below 1 or above the kernel's numerical rank (then every det(L_S) is 0).
    """
    eigenvalues, vectors = np.linalg.eigh(kernel.matrix)
    eigenvalues = np.where(eigenvalues > _RANK_TOLERANCE * max(eigenvalues[-1], 0.0), eigenvalues, 0.0)
    rank = int((eigenvalues > 0).sum())
    if not 1 <= k <= rank:
        raise ValueError(
            f"k-DPP: asked for {k} of {kernel.num_items} clips, possible are 1 to {rank} (the kernel's rank)"
        )
    generator = np.random.default_rng(seed)
    chosen = _choose_eigenvectors(eigenvalues, k, generator)
    return np.sort(_sample_projection(vectors[:, chosen], generator))


def log_elementary_symmetric(log_values: np.ndarray, k: int) -> np.ndarray:
    """log e_j(λ_1 … λ_n) for j = 0 … k and n = 0 … N: float64 [k + 1, N + 1], from log λ (−inf for λ = 0)."""
    table = np.full((k + 1, len(log_values) + 1), -np.inf)
    table[0] = 0.0
    for n, log_value in enumerate(log_values, start=1):
        table[1:, n] = np.logaddexp(table[1:, n - 1], log_value + table[:-1, n - 1])
    return table


def _choose_eigenvectors(eigenvalues: np.ndarray, k: int, generator: np.random.Generator) -> list[int]:
    """k indices J with probability ∝ Π_{n∈J} λ_n."""
    with np.errstate(divide="ignore"):
        logs = np.log(eigenvalues)
    table = log_elementary_symmetric(logs, k)
    chosen: list[int] = []
    for n in range(len(eigenvalues), 0, -1):
        left = k - len(chosen)
        if left == 0:
            break
        # P(n ∈ J | left to choose among the first n) = λ_n e_{left−1}^{n−1} / e_left^n
        if np.log(generator.random()) < logs[n - 1] + table[left - 1, n - 1] - table[left, n]:
            chosen.append(n - 1)
    assert len(chosen) == k
    return chosen


def _sample_projection(basis_NK: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One draw of the projection DPP with the orthonormal basis [N, k]: k items, each by its share of what is left of
    the span."""
    basis = basis_NK.copy()
    items = []
    while basis.shape[1] > 0:
        weights = (basis**2).sum(1)
        item = int(generator.choice(len(weights), p=weights / weights.sum()))
        items.append(item)
        # Restrict the span to what is orthogonal to the item's axis: reflect its row onto the last column,
        # drop that column.
        row = basis[item]
        target = np.zeros_like(row)
        target[-1] = -np.copysign(np.linalg.norm(row), row[-1])
        mirror = row - target
        basis -= np.outer(basis @ mirror, mirror) * (2.0 / (mirror @ mirror))
        basis = np.linalg.qr(basis[:, :-1])[0] if basis.shape[1] > 1 else basis[:, :0]
    return np.array(items, dtype=np.int64)


def order_by_gain(kernel: Kernel, items: np.ndarray) -> np.ndarray:
    """The items so that every prefix is diverse: next comes the one that raises log det(L_prefix) most (greedy MAP,
    Chen et al. 2018).

    Ties and items without gain keep their order. A release that can hold fewer clips keeps a prefix.
    """
    matrix = kernel.matrix[np.ix_(items, items)]
    variances = np.diag(matrix).copy()
    rows = np.zeros((len(items), len(items)))
    left = list(range(len(items)))
    order: list[int] = []
    while left:
        best = max(left, key=lambda index: variances[index])
        left.remove(best)
        if variances[best] > 0:
            step = len(order)
            rows[step] = (matrix[best] - rows[:step, best] @ rows[:step]) / np.sqrt(variances[best])
            variances = np.maximum(variances - rows[step] ** 2, 0.0)
        order.append(best)
    return np.asarray(items)[order]


def log_det(kernel: Kernel, items: np.ndarray) -> float:
    """log det(L_S) of a subset; −inf where it is singular."""
    sign, value = np.linalg.slogdet(kernel.matrix[np.ix_(items, items)])
    return float(value) if sign > 0 else float("-inf")


def uniform_log_dets(kernel: Kernel, k: int, *, num_draws: int, seed: int) -> np.ndarray:
    """log det(L_S) of subsets drawn uniformly, what a diverse draw is to be compared with: float64 [num_draws]."""
    generator = np.random.default_rng(seed)
    draws = (generator.choice(kernel.num_items, size=k, replace=False) for _ in range(num_draws))
    return np.array([log_det(kernel, items) for items in draws])

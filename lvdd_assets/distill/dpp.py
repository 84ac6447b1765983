"""Diverse subsets of a class by a determinantal point process: the exact k-DPP sampler and its low-rank route, greedy
MAP, an order of the sample.

N items; L is a positive semi-definite kernel; P(S) ∝ det(L_S) with |S| = k. What L is made of belongs to `kernels`;
other ways of choosing (random, herding, k-means) belong to `coresets`.

Which machine draws does not matter, up to rounding: a draw depends on eigenvalues, on the spans of the chosen
eigenvectors and on uniform numbers of PCG64, all of them continuous in L, and not on the signs or the order that a
LAPACK gives eigenvectors. Where equal eigenvalues leave a basis to LAPACK's choice, `_fix_basis` chooses one. A
difference of 1e-13 in L can change a subset where a uniform number falls within about 1e-13 · N of a threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lvdd_assets.distill.features import first_largest
from lvdd_assets.distill.kernels import DENSE_LIMIT, RANK_TOLERANCE, FeatureKernel, Kernel
from lvdd_assets.distill.spectra import Spectrum

NYSTROM_RANK = 512
"""Least rank of the approximation that the k-DPP of a large class with a full-rank kernel is drawn from."""


@dataclass(frozen=True)
class Draw:
    """A k-DPP sample and how it was drawn.

    Attributes:
        items: int64 [k], ascending.
        rank: numerical rank of the kernel it was drawn from.
        route: "exact", "dual" (exact, by the kernel's factor), or "nystrom" (approximate).
        kept_trace: share of L's trace that the kernel drawn from has; 1.0 where exact.
    """

    items: np.ndarray
    rank: int
    route: str = "exact"
    kept_trace: float = 1.0


def draw(kernel: FeatureKernel | Kernel, k: int, *, seed: int) -> Draw:
    """A k-DPP sample: exactly up to `DENSE_LIMIT` items; above, exactly by the dual where L = B Bᵀ with at most
    `DENSE_LIMIT` columns, and else from a Nyström approximation of rank max(512, 4k).

    Raises:
        ValueError: k is below 1 or above the kernel's numerical rank.
    """
    if isinstance(kernel, Kernel) or kernel.num_items <= DENSE_LIMIT:
        dense = kernel if isinstance(kernel, Kernel) else kernel.dense()
        return _draw(Spectrum.of_matrix(dense.matrix), k, seed)
    if kernel.features.dimension <= DENSE_LIMIT and (factor_NR := kernel.factor()) is not None:
        exact = _draw(Spectrum.of_factor(factor_NR), k, seed)
        return Draw(exact.items, exact.rank, "dual")
    factor_NR, kept_trace = nystrom_factor(kernel, min(max(NYSTROM_RANK, 4 * k), kernel.num_items), seed=seed)
    approximate = _draw(Spectrum.of_factor(factor_NR), k, seed)
    return Draw(approximate.items, approximate.rank, "nystrom", kept_trace)


def sample(kernel: Kernel, k: int, *, seed: int) -> np.ndarray:
    """Draws k items with P(S) = det(L_S) / e_k(λ), exactly (Kulesza & Taskar 2012, algorithms 7 and 8, and 1).

    Returns:
        int64 [k], ascending.

    Raises:
        ValueError: k is below 1 or above the kernel's numerical rank (then every det(L_S) is 0).
    """
    return draw(kernel, k, seed=seed).items


def sample_factor(factor_NR: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """The same for L = B Bᵀ, by the R×R dual BᵀB: O(N R² + R³), no N×N matrix (Kulesza & Taskar 2012, section 3.3)."""
    return _draw(Spectrum.of_factor(factor_NR), k, seed).items


def _draw(spectrum: Spectrum, k: int, seed: int) -> Draw:
    num_items, rank = spectrum.num_items, spectrum.rank
    if not 1 <= k <= rank:
        raise RankError("k-DPP", k, num_items, rank)
    generator = np.random.default_rng(seed)
    chosen = _choose_eigenvectors(spectrum.eigenvalues, k, generator)
    items = np.arange(k) if k == num_items else _sample_projection(spectrum.vectors(chosen), generator)
    return Draw(np.sort(items), rank)


class RankError(ValueError):
    """A k that the kernel's rank forbids: clips beyond it add nothing to the others.

    Attributes:
        rank: the largest k that is possible.
    """

    def __init__(self, what: str, k: int, num_items: int, rank: int) -> None:
        super().__init__(
            f"{what}: asked for {k} of {num_items} clips, possible are 1 to {rank} (the kernel's rank). "
            "Ask for fewer, remove copies, or use another kernel."
        )
        self.rank = rank


def log_elementary_symmetric(log_values: np.ndarray, k: int) -> np.ndarray:
    """log e_j(λ_1 … λ_n) for j = 0 … k and n = 0 … N: float64 [k + 1, N + 1], from log λ (−inf for λ = 0)."""
    table_NK = np.full((len(log_values) + 1, k + 1), -np.inf)
    table_NK[:, 0] = 0.0
    for n, log_value in enumerate(log_values, start=1):
        np.logaddexp(table_NK[n - 1, 1:], log_value + table_NK[n - 1, :-1], out=table_NK[n, 1:])
    return table_NK.T


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
    the span (Gram–Schmidt on the projector's columns, as in Cholesky)."""
    k = basis_NK.shape[1]
    weights = (basis_NK**2).sum(1)
    rows_KN = np.zeros((k, len(basis_NK)))
    items: list[int] = []
    for step in range(k):
        shares = np.cumsum(weights)
        item = int(np.searchsorted(shares / shares[-1], generator.random(), side="right"))
        row = basis_NK @ basis_NK[item] - rows_KN[:step, item] @ rows_KN[:step]
        rows_KN[step] = row / np.sqrt(weights[item])
        weights = np.maximum(weights - rows_KN[step] ** 2, 0.0)
        items.append(item)
        weights[items] = 0.0
    return np.array(items, dtype=np.int64)


def _partial_cholesky(
    kernel: FeatureKernel | Kernel, k: int, pick: Callable[[np.ndarray], int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up to k steps of Cholesky, pivoted by `pick` on the variances that are left: rows [k, N] with L ≈ rowsᵀ rows, the
    pivots, the variances that remain. Stops where nothing is left. O(N k) memory, one column of L a step."""
    variances = kernel.diagonal()
    least = RANK_TOLERANCE * float(variances.max())
    rows_KN = np.zeros((k, kernel.num_items))
    pivots: list[int] = []
    while len(pivots) < k:
        item = pick(variances)
        if variances[item] <= least:
            break
        step = len(pivots)
        column = kernel.columns(np.array([item]))[:, 0]
        rows_KN[step] = (column - rows_KN[:step, item] @ rows_KN[:step]) / np.sqrt(variances[item])
        variances = np.maximum(variances - rows_KN[step] ** 2, 0.0)
        pivots.append(item)
        variances[pivots] = 0.0
    return rows_KN[: len(pivots)], np.array(pivots, dtype=np.int64), variances


def greedy_map(kernel: FeatureKernel | Kernel, k: int) -> np.ndarray:
    """k items by greedy MAP: each raises log det(L_S) most (Chen, Zhang & Zhou 2018). O(N k²) time, O(N k) memory.

    Of items with the same gain the first is taken: with the rbf kernel without quality, item 0 comes first.

    Returns:
        int64 [k], in the order in which they were taken.

    Raises:
        ValueError: k is below 1 or above the kernel's numerical rank.
    """
    scale = float(kernel.diagonal().max())
    pivots = _partial_cholesky(kernel, min(max(k, 0), kernel.num_items), lambda left: first_largest(left, scale))[1]
    if not 1 <= k <= len(pivots):
        raise RankError("greedy MAP", k, kernel.num_items, len(pivots) if k > 0 else kernel.num_items)
    return pivots


def nystrom_factor(kernel: FeatureKernel | Kernel, rank: int, *, seed: int) -> tuple[np.ndarray, float]:
    """B [N, R ≤ rank] with B Bᵀ ≈ L, and the share of L's trace that it has.

    Landmarks are drawn by what is left of their variance: randomly pivoted Cholesky (Chen, Epperly, Tropp & Webber
    2022).
    """
    # Not the numbers that the draw from this factor uses.
    generator = np.random.default_rng([seed, 1])

    def pick(variances: np.ndarray) -> int:
        shares = np.cumsum(variances)
        if shares[-1] <= 0:
            return 0
        return int(np.searchsorted(shares / shares[-1], generator.random(), side="right"))

    rows_KN, _, left = _partial_cholesky(kernel, rank, pick)
    return rows_KN.T, 1.0 - float(left.sum() / kernel.diagonal().sum())


def order_by_gain(kernel: FeatureKernel | Kernel, items: np.ndarray) -> np.ndarray:
    """The items so that every prefix is diverse: next comes the one that raises log det(L_prefix) most (greedy MAP).

    Ties and items without gain keep their order. A release that can hold fewer clips keeps a prefix.
    """
    items = np.asarray(items, dtype=np.int64)
    block = kernel.block(items)
    scale = float(block.diagonal().max())
    order = _partial_cholesky(block, len(items), lambda left: first_largest(left, scale))[1]
    return items[np.concatenate([order, np.setdiff1d(np.arange(len(items)), order)])]


def log_det(kernel: FeatureKernel | Kernel, items: np.ndarray) -> float:
    """log det(L_S) of a subset; −inf where it is singular."""
    sign, value = np.linalg.slogdet(kernel.block(np.asarray(items)).matrix)
    return float(value) if sign > 0 else float("-inf")

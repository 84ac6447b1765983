"""Eigenvalues of a kernel, all of them, and eigenvectors, only of those that a draw has chosen.

N items, R columns of a factor. Eigenvectors are needed up to the span of the chosen ones; `_fix_basis` makes that span
the same on every machine where eigenvalues are equal.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lvdd_assets.distill.kernels import RANK_TOLERANCE

# Below this size a whole decomposition is as fast as the chosen vectors.
_SMALL = 256


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a kernel and a way to its eigenvectors.

    Attributes:
        num_items: N.
        eigenvalues: float64 [N or R], ascending; what is below the rank's tolerance is 0.
        find: indices of eigenvalues to their orthonormal eigenvectors, float64 [N, len(indices)].
    """

    num_items: int
    eigenvalues: np.ndarray
    find: Callable[[np.ndarray], np.ndarray]

    @property
    def rank(self) -> int:
        """Numerical rank."""
        return int((self.eigenvalues > 0).sum())

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> "Spectrum":
        """Of a symmetric matrix, float64 [N, N]."""
        if len(matrix) > _SMALL:
            eigenvalues, find = _by_tridiagonal(matrix)
        else:
            eigenvalues, find = _whole(matrix)
        return cls(len(matrix), _clean(eigenvalues), find)

    @classmethod
    def of_factor(cls, factor_NR: np.ndarray) -> "Spectrum":
        """Of L = B Bᵀ, by BᵀB: its eigenvectors u give L's as B u / √λ."""
        dual = factor_NR.T @ factor_NR
        eigenvalues, find = _whole((dual + dual.T) / 2)

        def lift(indices: np.ndarray) -> np.ndarray:
            # QR: for small λ rounding in B u is not small beside √λ.
            return np.linalg.qr(factor_NR @ find(indices) / np.sqrt(eigenvalues[indices]))[0]

        return cls(len(factor_NR), _clean(eigenvalues), lift)

    def vectors(self, chosen: list[int]) -> np.ndarray:
        """Orthonormal eigenvectors of the chosen eigenvalues, float64 [N, len(chosen)]."""
        wanted = np.sort(np.array(chosen, dtype=np.int64))
        parts = []
        simple = []
        for start, stop in _clusters(self.eigenvalues):
            inside = wanted[(wanted >= start) & (wanted < stop)]
            if len(inside) in (0, stop - start):
                simple.extend(inside.tolist())
            else:
                parts.append(_fix_basis(self.find(np.arange(start, stop)))[:, inside - start])
        if simple:
            parts.append(self.find(np.array(simple)))
        return np.concatenate(parts, axis=1)


def _clean(eigenvalues: np.ndarray) -> np.ndarray:
    return np.where(eigenvalues > RANK_TOLERANCE * max(eigenvalues[-1], 0.0), eigenvalues, 0.0)


def _whole(matrix: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return eigenvalues, lambda indices: vectors[:, indices]


def _by_tridiagonal(matrix: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Eigenvalues by the tridiagonal form A = Q T Qᵀ; eigenvectors by inverse iteration on T and Q, for the chosen ones
    alone. That is exact, and leaves out the larger part of a whole decomposition's work."""
    from scipy.linalg import lapack  # type: ignore[import-untyped]

    size = len(matrix)
    reflectors, diagonal, beside, tau, failed = lapack.dsytrd(matrix.T, lower=1, lwork=64 * size)
    assert failed == 0
    eigenvalues, failed = lapack.dsterf(diagonal, beside)
    assert failed == 0

    def find(indices: np.ndarray) -> np.ndarray:
        # dstein wants to know the blocks into which T falls apart. One is taken for granted; `_is_sound` finds out.
        block_of, ends = np.ones(size, dtype=np.int32), np.full(size, size, dtype=np.int32)
        small, failed = lapack.dstein(diagonal, beside, eigenvalues[indices], block_of, ends)
        if failed or not _is_sound(diagonal, beside, eigenvalues[indices], small, eigenvalues[-1]):
            return np.linalg.eigh(matrix)[1][:, indices]
        rest, _, failed = lapack.dormqr("L", "N", reflectors[1:, :-1], tau, small[1:], lwork=64 * size)
        assert failed == 0
        return np.concatenate([small[:1], rest])

    return eigenvalues, find


def _is_sound(
    diagonal: np.ndarray, beside: np.ndarray, eigenvalues: np.ndarray, vectors: np.ndarray, largest: float
) -> bool:
    """Whether vectors are orthonormal eigenvectors of the tridiagonal matrix, up to rounding."""
    applied = diagonal[:, None] * vectors
    applied[:-1] += beside[:, None] * vectors[1:]
    applied[1:] += beside[:, None] * vectors[:-1]
    residual = np.abs(applied - vectors * eigenvalues).max()
    unit = np.abs(vectors.T @ vectors - np.eye(vectors.shape[1])).max()
    return bool(residual <= 1e-12 * largest and unit <= 1e-10)


def _clusters(eigenvalues: np.ndarray) -> list[tuple[int, int]]:
    """Ranges [start, stop) of eigenvalues above 0 that rounding cannot tell apart."""
    gap = 4 * len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues[-1]
    first = int((eigenvalues == 0).sum())
    cuts = first + 1 + np.flatnonzero(np.diff(eigenvalues[first:]) > gap)
    edges = [first, *cuts.tolist(), len(eigenvalues)]
    return list(itertools.pairwise(edges))


def _fix_basis(vectors_NM: np.ndarray) -> np.ndarray:
    """Another orthonormal basis of the same span, which does not depend on the one that is given.

    With V any basis and G a fixed Gaussian matrix, VᵀG = Q R with a positive diagonal of R has one solution, and V Q is
    what Gram–Schmidt makes of the projection of G onto the span.
    """
    gaussian = np.random.RandomState(0).standard_normal(vectors_NM.shape)
    orthogonal, upper = np.linalg.qr(vectors_NM.T @ gaussian)
    return vectors_NM @ (orthogonal * np.where(np.diag(upper) < 0, -1.0, 1.0))

"""Orthonormal matrices in few bytes: a product of Givens rotations, each angle one byte.

A square orthonormal matrix has n(n − 1)/2 degrees of freedom, and so many angles give it back, up to the signs of its
columns, which mean nothing in a basis. Whatever the angles are, the product is orthonormal: rounding them turns the
basis a little and never makes it lossy (Golub & Van Loan, Matrix Computations, 5.1.8 and 5.2.5).
"""

import numpy as np
from numpy.typing import NDArray

_TURN = 256  # angles to the full turn


def num_angles(size: int) -> int:
    """Bytes of a matrix [size, size]."""
    return size * (size - 1) // 2


def to_angles(matrix: NDArray[np.floating]) -> bytes:
    """Angles of an orthonormal matrix [n, n], column by column.

    Raises:
        ValueError: the matrix is not square and orthonormal.
    """
    left = np.array(matrix, dtype=np.float64)
    size = len(left)
    if left.shape != (size, size) or not np.allclose(left.T @ left, np.eye(size), atol=1e-3):
        raise ValueError(f"expected a square matrix with orthonormal columns, got {left.shape}")
    angles = []
    for column in range(size - 1):
        for row in range(column + 1, size):
            exact = np.arctan2(left[row, column], left[column, column])
            angle = int(np.rint(exact * _TURN / (2 * np.pi))) % _TURN
            angles.append(angle)
            # Undone as it will be done, so that the next angles make up for the rounding of this one.
            _rotate(left, column, row, -angle)
    return bytes(angles)


def from_angles(angles: bytes, size: int) -> NDArray[np.float64]:
    """The orthonormal matrix [size, size] of the angles; the same on every machine to the last bits of float64.

    Raises:
        ValueError: the number of angles is not `num_angles(size)`.
    """
    if len(angles) != num_angles(size):
        raise ValueError(f"a basis of size {size} has {num_angles(size)} angles, got {len(angles)}")
    matrix = np.eye(size)
    pairs = [(column, row) for column in range(size - 1) for row in range(column + 1, size)]
    for (column, row), angle in zip(reversed(pairs), reversed(angles), strict=True):
        _rotate(matrix, column, row, angle)
    return matrix


def cosine_basis(size: int) -> NDArray[np.float64]:
    """The orthonormal discrete cosine transform DCT-II, float64 [size, frequency]: it costs no byte."""
    place, frequency = np.arange(size)[:, None], np.arange(size)
    basis = np.sqrt(2 / size) * np.cos(np.pi * (2 * place + 1) * frequency / (2 * size))
    basis[:, 0] = np.sqrt(1 / size)
    return np.asarray(basis, dtype=np.float64)


def _rotate(matrix: NDArray[np.float64], first: int, second: int, angle: int) -> None:
    """Turns rows `first` and `second` by angle · 2π / 256, in place."""
    cosine, sine = np.cos(angle * 2 * np.pi / _TURN), np.sin(angle * 2 * np.pi / _TURN)
    upper, lower = matrix[first].copy(), matrix[second].copy()
    matrix[first], matrix[second] = cosine * upper - sine * lower, sine * upper + cosine * lower

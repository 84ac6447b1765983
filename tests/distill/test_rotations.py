"""Any angles are an orthonormal matrix, and a matrix comes back from its angles up to signs and rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import rotations


def _orthonormal(size: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


@given(st.integers(1, 16).flatmap(lambda size: st.tuples(st.just(size), st.binary(min_size=120, max_size=120))))
@settings(max_examples=60, deadline=None)
def test_any_angles_are_orthonormal(case: tuple[int, bytes]) -> None:
    size, angles = case
    matrix = rotations.from_angles(angles[: rotations.num_angles(size)], size)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)  # rotations never mirror


@given(st.integers(1, 16), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_matrix_comes_back_up_to_signs_and_rounding(size: int, seed: int) -> None:
    matrix = _orthonormal(size, seed)
    angles = rotations.to_angles(matrix)
    assert len(angles) == rotations.num_angles(size)
    decoded = rotations.from_angles(angles, size)
    signs = np.sign((decoded * matrix).sum(0))
    # An angle is rounded by at most half of 2π / 256, and a rotation by δ moves a matrix by at most √2 · δ in
    # Frobenius norm for two rows of norm 1.
    bound = rotations.num_angles(size) * np.sqrt(2) * np.pi / 256
    assert np.linalg.norm(decoded - matrix * signs) <= bound + 1e-12


@pytest.mark.parametrize(("size", "most"), [(2, 0.0175), (4, 0.05), (8, 0.1), (16, 0.2)])
def test_rounding_adds_up_like_noise(size: int, most: float) -> None:
    """Later angles make up for the rounding of earlier ones: the error grows like the root of their number, not like
    the number. π / 256 · √2 = 0.0174 is one angle's largest."""
    errors = []
    for seed in range(20):
        matrix = _orthonormal(size, seed)
        decoded = rotations.from_angles(rotations.to_angles(matrix), size)
        errors.append(np.linalg.norm(decoded - matrix * np.sign((decoded * matrix).sum(0))))
    assert np.sqrt(np.mean(np.square(errors))) <= most


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_what_angles_give_has_the_same_angles_products(size: int) -> None:
    """A matrix that angles made is coded without loss, up to signs."""
    angles = np.random.default_rng(size).bytes(rotations.num_angles(size))
    matrix = rotations.from_angles(angles, size)
    again = rotations.from_angles(rotations.to_angles(matrix), size)
    np.testing.assert_allclose(np.abs(again), np.abs(matrix), atol=1e-9)


def test_one_angle_is_a_rotation_by_it() -> None:
    np.testing.assert_allclose(rotations.from_angles(bytes([64]), 2), [[0, -1], [1, 0]], atol=1e-15)
    assert rotations.to_angles(np.eye(3)) == bytes(3)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_cosines_are_orthonormal_and_sorted_by_frequency(size: int) -> None:
    basis = rotations.cosine_basis(size)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size), atol=1e-12)
    changes = (np.diff(np.sign(basis), axis=0) != 0).sum(0)
    assert changes.tolist() == list(range(size))


@pytest.mark.parametrize(
    "matrix", [np.ones((2, 2)), np.eye(3)[:, :2], np.full((2, 2), np.nan)], ids=["ones", "not square", "nan"]
)
def test_what_is_not_orthonormal_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="orthonormal columns"):
        rotations.to_angles(matrix)


def test_a_wrong_number_of_angles_is_refused() -> None:
    with pytest.raises(ValueError, match="size 4 has 6 angles, got 5"):
        rotations.from_angles(bytes(5), 4)

"""Eigenvectors of the chosen eigenvalues span what a whole decomposition's do, and equal eigenvalues leave nothing to
LAPACK's choice."""

import numpy as np
import pytest

from lvdd_assets.distill import spectra
from lvdd_assets.distill.spectra import Spectrum


def _rbf(num_items: int, dimension: int = 20) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(num_items, dimension))
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    return np.exp(-squares / (2 * (np.median(squares) or 1)))


def _orthogonal(size: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


@pytest.mark.parametrize("num_items", [1, 2, 40, 300])
def test_eigenvalues_and_vectors(num_items: int) -> None:
    matrix = _rbf(num_items)
    spectrum = Spectrum.of_matrix(matrix)
    np.testing.assert_allclose(spectrum.eigenvalues, np.linalg.eigvalsh(matrix), atol=1e-11)
    chosen = sorted({0, num_items // 3, num_items - 1})
    vectors = spectrum.vectors(chosen)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(chosen)), atol=1e-10)
    # Columns may come in any order: each is an eigenvector of one of the chosen eigenvalues.
    found = np.sort(np.diag(vectors.T @ matrix @ vectors))
    np.testing.assert_allclose(found, spectrum.eigenvalues[chosen], atol=1e-10)
    rest = matrix @ vectors - vectors * np.diag(vectors.T @ matrix @ vectors)
    assert np.abs(rest).max() < 1e-10


def test_the_short_way_and_the_whole_decomposition_give_the_same_spans() -> None:
    matrix = _rbf(400)
    chosen = [0, 5, 17, 200, 396, 399]
    ours = Spectrum.of_matrix(matrix).vectors(chosen)
    whole = np.linalg.eigh(matrix)[1][:, chosen]
    np.testing.assert_allclose(ours @ ours.T, whole @ whole.T, atol=1e-9)


@pytest.mark.parametrize("kind", ["blocks", "twins", "diagonal", "low rank"])
def test_the_short_way_takes_matrices_that_fall_apart(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = 2 * _rbf(150, 30) if kind == "blocks" else _rbf(150)  # twins: every eigenvalue twice
    matrix = np.block([[_rbf(150), np.zeros((150, 150))], [np.zeros((150, 150)), other]])
    if kind == "diagonal":
        matrix = np.diag(np.arange(1.0, 301.0))
    if kind == "low rank":
        factor = np.random.default_rng(0).normal(size=(300, 30))
        matrix = factor @ factor.T
    chosen = [275, 280, 298, 299]
    vectors = Spectrum.of_matrix(matrix).vectors(chosen)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-10)
    values = np.linalg.eigvalsh(vectors.T @ matrix @ vectors)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[chosen], rtol=1e-9)
    # Where inverse iteration fails, a whole decomposition takes its place: with the same spans.
    monkeypatch.setattr(spectra, "_is_sound", lambda *_: False)
    whole = Spectrum.of_matrix(matrix).vectors(chosen)
    np.testing.assert_allclose(whole @ whole.T, vectors @ vectors.T, atol=1e-8)


def test_unsound_vectors_are_found_out() -> None:
    diagonal, beside = np.linspace(1, 2, 50), np.full(49, 0.3)
    matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    values, vectors = np.linalg.eigh(matrix)
    chosen = np.array([3, 20, 49])
    assert spectra._is_sound(diagonal, beside, values[chosen], vectors[:, chosen], values[-1])
    for wrong in (vectors[:, [3, 21, 49]], vectors[:, [3, 3, 49]], vectors[:, chosen] * 1.001):
        assert not spectra._is_sound(diagonal, beside, values[chosen], wrong, values[-1])


def test_a_factor_has_the_spectrum_of_its_product() -> None:
    factor = np.random.default_rng(1).normal(size=(50, 6)) * [1, 2, 3, 4, 5, 1e-9]
    spectrum = Spectrum.of_factor(factor)
    assert spectrum.rank == 5
    whole = np.linalg.eigh(factor @ factor.T)
    np.testing.assert_allclose(spectrum.eigenvalues[1:], whole[0][-5:], rtol=1e-10)
    ours, wanted = spectrum.vectors([2, 5]), whole[1][:, [-4, -1]]
    np.testing.assert_allclose(ours @ ours.T, wanted @ wanted.T, atol=1e-10)


def test_what_is_below_the_tolerance_has_no_rank() -> None:
    basis = _orthogonal(20, 0)
    spectrum = Spectrum.of_matrix(basis * np.array([1e-12] * 15 + [1.0] * 5) @ basis.T)
    assert spectrum.rank == 5
    assert (spectrum.eigenvalues[:15] == 0).all()


@pytest.mark.parametrize("size", [30, 300])
def test_equal_eigenvalues_give_the_same_span_whatever_basis_lapack_finds(size: int) -> None:
    basis = _orthogonal(size, 1)
    values = np.linspace(1, 2, size)
    values[5:12] = values[5]
    matrix = basis * values @ basis.T
    turned = basis.copy()
    turned[:, 5:12] = basis[:, 5:12] @ _orthogonal(7, 2)  # another basis of the same space: the same matrix
    again = turned * values @ turned.T
    assert np.abs(matrix - again).max() < 1e-13
    ours, other = (Spectrum.of_matrix((m + m.T) / 2).vectors([2, 6, 9, size - 1]) for m in (matrix, again))
    np.testing.assert_allclose(ours @ ours.T, other @ other.T, atol=1e-9)


def test_a_fixed_basis_does_not_depend_on_the_given_one() -> None:
    given = _orthogonal(12, 3)[:, :4]
    one, other = spectra._fix_basis(given), spectra._fix_basis(given @ _orthogonal(4, 4))
    np.testing.assert_allclose(one, other, atol=1e-12)
    np.testing.assert_allclose(one @ one.T, given @ given.T, atol=1e-12)
    np.testing.assert_allclose(one.T @ one, np.eye(4), atol=1e-12)


def test_the_identity_has_one_space_of_everything() -> None:
    vectors = Spectrum.of_matrix(np.eye(300)).vectors(list(range(0, 300, 50)))
    permuted = Spectrum.of_matrix(np.eye(300) + 1e-16).vectors(list(range(0, 300, 50)))
    np.testing.assert_allclose(vectors @ vectors.T, permuted @ permuted.T, atol=1e-12)

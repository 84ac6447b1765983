"""What the HOSVD promises: orthonormal factors, exact at full rank, error bounded by what is cut off."""

import numpy as np
import pytest

from lvdd_assets.distill import tucker


def _latents(num_clips: int = 6, seed: int = 0) -> np.ndarray:
    """Smooth in time and space, as latents are, with some noise."""
    generator = np.random.default_rng(seed)
    time, row, column = (np.linspace(0, 1, n) for n in (8, 6, 5))
    phase = generator.uniform(0, 6, size=(num_clips, 1, 4, 1, 1))
    waves = np.sin(3 * time[:, None, None, None] + 5 * row[:, None] + 4 * column + phase)
    return (waves + 0.1 * generator.normal(size=waves.shape)).astype(np.float32)


def test_factors_are_orthonormal() -> None:
    for ranks in [None, (6, 4, 4, 3), (1, 1, 1, 1)]:
        for factor in tucker.decompose(_latents(), ranks=ranks).factors:
            np.testing.assert_allclose(factor.T @ factor, np.eye(factor.shape[1]), atol=1e-5)


def test_full_rank_is_exact_and_keeps_energy() -> None:
    latents = _latents()
    result = tucker.decompose(latents)
    np.testing.assert_allclose(tucker.reconstruct(result), latents, atol=1e-5)
    assert np.linalg.norm(result.core) == pytest.approx(np.linalg.norm(latents), rel=1e-5)  # Parseval


def test_coefficient_error_is_latent_error() -> None:
    latents = _latents()
    result = tucker.decompose(latents)
    noise = np.random.default_rng(1).normal(size=result.core.shape).astype(np.float32)
    moved = tucker.reconstruct(tucker.TuckerTensor(result.core + noise, result.factors))
    assert np.linalg.norm(moved - latents) == pytest.approx(np.linalg.norm(noise), rel=1e-4)


def test_error_falls_with_rank_and_stays_below_the_bound() -> None:
    latents = _latents()
    errors = []
    for rank in range(1, 6):
        ranks = (rank, 4, rank, rank)
        error = np.linalg.norm(tucker.reconstruct(tucker.decompose(latents, ranks=ranks)) - latents)
        # De Lathauwer: the squared error is at most the sum of the squared singular values cut off in each mode.
        cut = 0.0
        for axis, kept in zip((1, 2, 3, 4), ranks, strict=True):
            unfolded = np.moveaxis(latents, axis, 0).reshape(latents.shape[axis], -1)
            cut += float((np.linalg.svd(unfolded, compute_uv=False)[kept:] ** 2).sum())
        assert error**2 <= cut * (1 + 1e-4) + 1e-6
        errors.append(error)
    assert errors == sorted(errors, reverse=True)


def test_hooi_is_never_worse_than_the_hosvd_it_starts_from() -> None:
    latents = _latents()
    one = tucker.reconstruct(tucker.decompose(latents, ranks=(2, 2, 2, 2)))
    more = tucker.reconstruct(tucker.decompose(latents, ranks=(2, 2, 2, 2), num_iterations=20))
    assert np.linalg.norm(more - latents) <= np.linalg.norm(one - latents) * (1 + 1e-6)


def test_a_prefix_of_the_core_is_a_prefix_of_the_clips() -> None:
    latents = _latents()
    result = tucker.decompose(latents)
    first = tucker.reconstruct(tucker.TuckerTensor(result.core[:2], result.factors))
    np.testing.assert_allclose(first, latents[:2], atol=1e-5)


def test_same_input_same_signs() -> None:
    result = tucker.decompose(_latents())
    for factor in result.factors:
        assert (factor[np.abs(factor).argmax(0), np.arange(factor.shape[1])] > 0).all()


def test_ranks_from_ratio() -> None:
    assert tucker.ranks_from_ratio((8, 4, 8, 8), 0.75) == (6, 4, 6, 6)
    assert tucker.ranks_from_ratio((16, 4, 14, 14), 1.0) == (16, 4, 14, 14)
    assert tucker.ranks_from_ratio((8, 4, 8, 8), 0.01) == (1, 4, 1, 1)
    for ratio in (0.0, -1.0, 1.01):
        with pytest.raises(ValueError, match=r"rank ratio must be in \(0, 1\]"):
            tucker.ranks_from_ratio((8, 4, 8, 8), ratio)


def test_bad_input_names_both_numbers() -> None:
    with pytest.raises(ValueError, match="rank 9 of mode T is not in 1 … 8"):
        tucker.decompose(_latents(), ranks=(9, 4, 6, 5))
    with pytest.raises(ValueError, match="rank 0 of mode C"):
        tucker.decompose(_latents(), ranks=(8, 0, 6, 5))
    with pytest.raises(ValueError, match="four ranks"):
        tucker.decompose(_latents(), ranks=(8, 4))
    with pytest.raises(ValueError, match="not finite"):
        tucker.decompose(np.full((1, 2, 2, 2, 2), np.nan))
    with pytest.raises(ValueError, match="not empty"):
        tucker.decompose(np.zeros((0, 2, 2, 2, 2)))
    with pytest.raises(ValueError, match="belong together"):
        tucker.TuckerTensor(np.zeros((1, 2, 2, 2, 2)), (np.zeros((2, 1)),) * 4)

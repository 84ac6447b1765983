"""Features keep what they promise: exact distances, averages that are averages, projections that keep distances."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import features
from lvdd_assets.distill.features import Features, first_largest, pooling_grid, prepare


def _latents(num_items: int = 6, shape: tuple[int, ...] = (4, 3, 6, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_items, *shape)).astype(np.float16)


def test_flat_features_are_the_latents_and_their_distances() -> None:
    latents = _latents()
    made = prepare(latents)
    assert np.array_equal(made.values_ND, latents.reshape(6, -1).astype(np.float64))
    pairs = made.values_ND[:, None] - made.values_ND[None]
    np.testing.assert_allclose(made.squared_distances(made), (pairs**2).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(made.dots(made), made.values_ND @ made.values_ND.T, rtol=1e-10, atol=1e-10)


def test_equal_points_are_exactly_0_apart() -> None:
    values = np.random.default_rng(0).normal(size=(5, 9000)) + 50
    made = Features(np.concatenate([values, values[::-1]]))
    squares = made.squared_distances(made)
    assert (np.diag(squares) == 0).all()
    assert (squares[np.arange(10), np.arange(10)[::-1]] == 0).all()
    assert (squares == 0).sum() == 20


def test_large_features_stay_as_stored_and_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = _latents(40)
    small = prepare(latents)
    monkeypatch.setattr(features, "_MAX_DOUBLE_BYTES", 0)
    monkeypatch.setattr(features, "_BLOCK_BYTES", 8 * 360 * 7)  # 7 rows at once
    large = prepare(latents)
    assert large.values_ND.dtype == np.float16
    np.testing.assert_allclose(large.squared_distances(large), small.squared_distances(small), rtol=1e-11)
    np.testing.assert_allclose(large.mean(), small.mean(), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(large.deviation(), small.values_ND.std(0), rtol=1e-11)
    np.testing.assert_allclose(large.standardised().values_ND, small.standardised().values_ND, atol=1e-5)


def test_standardised_dimensions_have_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4)) * [1, 10, 100, 0] + [5, 6, 7, 8]
    made = Features(values).standardised().values_ND
    np.testing.assert_allclose(made.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(made.std(0), [1, 1, 1, 0], rtol=1e-12)


def test_pooled_features_are_window_averages() -> None:
    latents = _latents(shape=(4, 3, 6, 6))
    made = prepare(latents, kind="pooled", dimension=3 * 2 * 3 * 3)
    assert made.dimension == 3 * 2 * 3 * 3
    direct = latents.astype(np.float64).reshape(6, 2, 2, 3, 3, 2, 3, 2).mean((2, 5, 7))
    np.testing.assert_allclose(made.values_ND, direct.reshape(6, -1), rtol=1e-10)


def test_pooling_agrees_with_torch_where_windows_overlap() -> None:
    latents = _latents(shape=(5, 2, 7, 7))
    made = prepare(latents, kind="pooled", dimension=2 * 3 * 3 * 3)
    grid = pooling_grid(5, 7, 7, 27)
    clips_NCThw = torch.from_numpy(latents.astype(np.float64)).movedim(1, 2)
    wanted = torch.nn.functional.adaptive_avg_pool3d(clips_NCThw, grid).movedim(1, 2)
    np.testing.assert_allclose(made.values_ND, wanted.reshape(6, -1).numpy(), rtol=1e-10)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_grid_is_the_finest_that_fits(frames: int, height: int, width: int, cells: int) -> None:
    time, rows, columns = pooling_grid(frames, height, width, cells)
    assert 1 <= time <= frames
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    possible = [
        t * r * max(1, round(r * width / height))
        for t, r in itertools.product(range(1, frames + 1), range(1, height + 1))
    ]
    # One cell always fits in, whatever the proportions.
    assert time * rows * columns == max([n for n in possible if n <= cells], default=1)


def test_the_whole_latent_fits_a_large_dimension() -> None:
    latents = _latents()
    made = prepare(latents, kind="pooled", dimension=10_000)
    np.testing.assert_allclose(made.values_ND, latents.reshape(6, -1), rtol=1e-12)


def test_projection_keeps_distances_as_johnson_and_lindenstrauss_promise() -> None:
    latents = _latents(30, (8, 4, 8, 8))
    flat, projected = prepare(latents), prepare(latents, kind="projected", dimension=400, seed=1)
    assert projected.dimension == 400
    above = np.triu_indices(30, 1)
    ratio = projected.squared_distances(projected)[above] / flat.squared_distances(flat)[above]
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() == pytest.approx(np.sqrt(2 / 400), rel=0.3)


def test_projection_depends_on_its_seed_alone() -> None:
    latents = _latents()
    one, same, other = (prepare(latents, kind="projected", dimension=9, seed=seed).values_ND for seed in (4, 4, 5))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    # Written down on another day: the matrix is part of what a stored subset was made from.
    matrix = prepare(np.eye(3), kind="projected", dimension=2, seed=0).values_ND * np.sqrt(2)
    wanted = [[1.764052, 2.240893], [0.400157, 1.867558], [0.978738, -0.977278]]
    np.testing.assert_allclose(matrix, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("latents", "options", "message"),
    [
        (_latents(), {"kind": "magic"}, "unknown features 'magic'; known: flat, pooled, projected"),
        (_latents(), {"kind": "projected", "dimension": 360}, "projected to 360 dimensions, the latents have 360"),
        (_latents(), {"kind": "pooled", "dimension": 2}, "pooled to 2 dimensions, the latents have 3 channels"),
        (np.ones((3, 7)), {"kind": "pooled"}, r"needs latents \[N, T, C, h, w\]"),
        (np.zeros((0, 3)), {}, "N ≥ 1"),
        (np.array([[1.0, np.nan]]), {}, "not finite"),
    ],
    ids=["unknown", "projected", "channels", "shape", "empty", "nan"],
)
def test_bad_input(latents: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(latents, **options)


def test_ties_go_to_the_first_whatever_rounding_does() -> None:
    values = np.array([0.3, 1.0, 1.0 + 1e-12, 0.9999])
    assert first_largest(values, 1.0) == 1
    assert first_largest(np.array([0.3, 1.0, 1.001]), 1.0) == 2
    assert first_largest(np.array([-np.inf, -5.0]), 1.0) == 1

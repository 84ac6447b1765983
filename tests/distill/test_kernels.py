"""Kernels are what their formulas say, held whole or made on demand, and say when they are the identity."""

import numpy as np
import pytest

from lvdd_assets.distill import kernels, paper
from lvdd_assets.distill.features import Features
from lvdd_assets.distill.kernels import KERNELS, FeatureKernel, Kernel, build_kernel


def _points(num_items: int, *, dimension: int = 400, seed: int = 0) -> np.ndarray:
    """Points like real latents: many dimensions, distances far above 1."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_items, 3)) @ generator.normal(size=(3, dimension)) * 3 + generator.normal(
        size=(num_items, dimension)
    )


@pytest.mark.parametrize("quality", [0.0, 2.0])
@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_are_symmetric_and_positive_semidefinite(kind: str, quality: float) -> None:
    matrix = build_kernel(Features(_points(12)), kind=kind, quality=quality).dense().matrix
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-8 * np.linalg.eigvalsh(matrix).max()


@pytest.mark.parametrize("kind", KERNELS)
def test_columns_blocks_and_diagonal_are_those_of_the_whole(kind: str) -> None:
    lazy = build_kernel(Features(_points(15)), kind=kind, quality=0.7)
    whole = lazy.dense()
    items = np.array([7, 2, 11])
    for kernel in (lazy, whole):
        np.testing.assert_allclose(kernel.columns(items), whole.matrix[:, items], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(kernel.diagonal(), np.diag(whole.matrix), rtol=1e-9)
        np.testing.assert_allclose(kernel.block(items).matrix, whole.matrix[np.ix_(items, items)], rtol=1e-9)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_factor_gives_the_kernel(kind: str) -> None:
    lazy = build_kernel(Features(_points(9, dimension=5)), kind=kind, quality=0.5)
    factor = lazy.factor()
    assert factor is not None
    np.testing.assert_allclose(factor @ factor.T, lazy.dense().matrix, rtol=1e-9, atol=1e-12)
    assert build_kernel(Features(_points(9))).factor() is None


def test_formulas() -> None:
    points = _points(6, dimension=7)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    norms = np.linalg.norm(points, axis=1)
    scaled = (points - points.mean(0)) / points.std(0)
    apart = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    sigma = np.median(distances[np.triu_indices(6, 1)])
    wanted = {
        "rbf": np.exp(-(distances**2) / (2 * sigma**2)),
        "cosine": points @ points.T / np.outer(norms, norms),
        "linear": points @ points.T,
        "exp": np.exp(-apart / paper.RELEASED_KERNEL_BANDWIDTH),
    }
    assert set(wanted) == set(KERNELS)
    for kind, matrix in wanted.items():
        np.testing.assert_allclose(build_kernel(Features(points), kind=kind).dense().matrix, matrix, rtol=1e-9)


def test_quality_is_nearness_to_the_mean() -> None:
    points = _points(8)
    plain, weighed = (build_kernel(Features(points), quality=quality) for quality in (0.0, 1.5))
    squares = ((points - points.mean(0)) ** 2).sum(1)
    quality = np.exp(-1.5 * squares / (2 * plain.bandwidth**2))
    np.testing.assert_allclose(weighed.quality_N, quality, rtol=1e-9)
    np.testing.assert_allclose(
        weighed.dense().matrix, np.diag(quality) @ plain.dense().matrix @ np.diag(quality), rtol=1e-9
    )
    assert (plain.quality_N == 1).all()


def test_bandwidth_from_the_data_keeps_the_kernel_off_the_identity() -> None:
    points = _points(11)  # 55 pairs: the median is one of them
    kernel = build_kernel(Features(points), kind="rbf").dense()
    # Half of all pairs are nearer than the bandwidth, so their similarity is above exp(−1/2).
    off = kernel.matrix[np.triu_indices(11, 1)]
    assert np.median(off) == pytest.approx(np.exp(-0.5), rel=1e-6)
    assert not kernel.is_diagonal
    # With the released code's bandwidth of 1 the same clips give the identity: what the data's own is there to avoid.
    released = build_kernel(Features(_points(11, dimension=8000)), kind="exp").dense()
    assert released.is_diagonal
    assert released.max_off_diagonal < 1e-20
    assert np.array_equal(np.diag(released.matrix), np.ones(11))


def test_rbf_does_not_depend_on_the_features_scale() -> None:
    one, other = (build_kernel(Features(_points(10) * scale)).dense().matrix for scale in (1, 1000))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_the_bandwidth_of_a_large_class_comes_from_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    points = Features(_points(600, dimension=20))
    exact = build_kernel(points).bandwidth
    monkeypatch.setattr(kernels, "DENSE_LIMIT", 500)
    monkeypatch.setattr(kernels, "_MEDIAN_ITEMS", 200)
    part = build_kernel(points).bandwidth
    assert part != exact
    assert part == pytest.approx(exact, rel=0.1)


def test_rank() -> None:
    assert build_kernel(Features(np.repeat(_points(3), 2, axis=0)), kind="linear").dense().rank() == 3
    assert build_kernel(Features(_points(9, dimension=4)), kind="cosine").dense().rank() == 4
    assert build_kernel(Features(_points(9, dimension=4)), kind="rbf").dense().rank() == 9


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (np.ones((4, 3)), {}, "identical"),
        (np.zeros((4, 3)), {"kind": "cosine"}, "all zero"),
        (np.ones((4, 3)), {"kind": "magic"}, "unknown kernel 'magic'; known: rbf, cosine, linear, exp"),
        (_points(4), {"quality": -1.0}, "quality = -1.0: expected 0"),
        (_points(4), {"quality": float("nan")}, "quality = nan"),
        (_points(4), {"quality": 1e9}, "lower the quality's weight"),
    ],
    ids=["copies", "zero", "unknown", "negative", "nan", "overflow"],
)
def test_bad_input(points: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_kernel(Features(points), **options)


def test_a_kernel_must_be_square_symmetric_and_finite() -> None:
    with pytest.raises(ValueError, match="square"):
        Kernel(np.ones((2, 3)))
    with pytest.raises(ValueError, match="symmetric"):
        Kernel(np.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="finite"):
        Kernel(np.array([[np.inf]]))
    with pytest.raises(ValueError, match="positive semi-definite"):
        Kernel(np.array([[-1.0]]))


def test_quality_must_be_one_positive_number_an_item() -> None:
    with pytest.raises(ValueError, match="one positive number for each of 3 items"):
        FeatureKernel(Features(_points(3)), "linear", 0.0, np.ones(2))


def test_a_large_kernel_is_looked_at_by_a_part() -> None:
    lazy = build_kernel(Features(_points(30)))
    assert lazy.sampled(10).num_items == 10
    assert lazy.sampled().num_items == 30
    assert build_kernel(Features(_points(1))).dense().max_off_diagonal == 0.0

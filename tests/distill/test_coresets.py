"""Each rule takes what it promises to take, checked by brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import coresets
from lvdd_assets.distill.coresets import METHODS
from lvdd_assets.distill.features import Features


def _points(num_items: int = 30, dimension: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_items, dimension))


def _blobs() -> np.ndarray:
    """Five clouds of 10, 8, 6, 4 and 2 points, far apart."""
    generator = np.random.default_rng(0)
    centres = np.eye(5) * 100
    return np.concatenate([centre + generator.normal(size=(10 - 2 * i, 5)) for i, centre in enumerate(centres)])


def _distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@given(st.sampled_from(sorted(METHODS)), st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_k_different_items_and_the_same_again(method: str, num_items: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, num_items))
    points = Features(
        data.draw(st.sampled_from([_points(num_items), np.ones((num_items, 2)), _points(num_items).round()]))
    )
    items = METHODS[method](points, k, seed=3)
    assert items.dtype == np.int64
    assert len(set(items.tolist())) == k
    assert set(items.tolist()) <= set(range(num_items))
    assert np.array_equal(items, METHODS[method](points, k, seed=3))


@pytest.mark.parametrize("method", ["random", "herding", "k-center", "facility-location"])
def test_a_prefix_is_the_smaller_subset(method: str) -> None:
    points = Features(_points())
    most = METHODS[method](points, 20, seed=1)
    for k in (1, 5, 12):
        assert np.array_equal(METHODS[method](points, k, seed=1), most[:k])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_impossible_sizes(method: str) -> None:
    for k in (0, 31):
        with pytest.raises(ValueError, match=f"asked for {k} of 30 clips, possible are 1 to 30"):
            METHODS[method](Features(_points()), k, seed=0)


@pytest.mark.parametrize("method", ["k-center", "k-means", "facility-location"])
def test_every_cloud_is_covered(method: str) -> None:
    items = METHODS[method](Features(_blobs()), 5, seed=0)
    assert sorted(np.searchsorted([10, 18, 24, 28], items, side="right")) == [0, 1, 2, 3, 4]


def test_random_is_uniform() -> None:
    draws = np.stack([coresets.random(Features(_points(8)), 3, seed=seed) for seed in range(4000)])
    counts = np.bincount(draws.ravel(), minlength=8)
    np.testing.assert_allclose(counts / 4000, 3 / 8, atol=4 * np.sqrt(3 / 8 * 5 / 8 / 4000))
    first = np.bincount(draws[:, 0], minlength=8)
    np.testing.assert_allclose(first / 4000, 1 / 8, atol=4 * np.sqrt(1 / 8 * 7 / 8 / 4000))


def test_herding_brings_the_mean_nearest_at_every_step() -> None:
    points = _points()
    items = coresets.herding(Features(points), 8)
    mean = points.mean(0)
    for length in range(8):
        misses = {
            item: np.linalg.norm(points[[*items[:length], item]].mean(0) - mean)
            for item in range(30)
            if item not in items[:length]
        }
        assert misses[items[length]] == pytest.approx(min(misses.values()), rel=1e-9)


def test_k_center_takes_the_farthest_and_is_within_twice_the_best() -> None:
    points = _points(12)
    distances = _distances(points)
    items = coresets.k_center(Features(points), 4)
    assert items[0] == np.linalg.norm(points - points.mean(0), axis=1).argmin()
    for length in range(1, 4):
        assert items[length] == distances[:, items[:length]].min(1).argmax()
    best = min(distances[:, list(s)].min(1).max() for s in itertools.combinations(range(12), 4))
    assert distances[:, items].min(1).max() <= 2 * best


def test_k_means_takes_the_clips_nearest_to_the_centres() -> None:
    blobs = _blobs()
    items = coresets.k_means(Features(blobs), 5, seed=0)
    edges = [0, 10, 18, 24, 28, 30]
    nearest = set()
    for start, stop in itertools.pairwise(edges):
        away = np.linalg.norm(blobs[start:stop] - blobs[start:stop].mean(0), axis=1)
        nearest.add(start + int(away.argmin()) if stop - start > 2 else start)  # of two both are as near
    assert set(items.tolist()) == nearest
    # The largest cloud comes first: a prefix covers as much of the class as it can.
    assert items[0] < 10


def test_facility_location_is_greedy_and_within_its_bound() -> None:
    points = _points(12)
    distances = _distances(points)
    items = coresets.facility_location(Features(points), 4)

    def left(subset: list[int]) -> float:
        return float(distances[:, subset].min(1).sum())

    for length in range(4):
        taken = items[:length].tolist()
        assert left([*taken, int(items[length])]) == pytest.approx(min(left([*taken, i]) for i in range(12)), rel=1e-8)
    far = 2 * np.linalg.norm(points - points.mean(0), axis=1).max() * 12
    best = min(left(list(s)) for s in itertools.combinations(range(12), 4))
    assert far - left(items.tolist()) >= (1 - 1 / np.e) * (far - best)


def test_facility_location_without_a_table_of_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    points = Features(_points(80))
    with_table = coresets.facility_location(points, 10)
    monkeypatch.setattr(coresets, "_DENSE_LIMIT", 10)
    monkeypatch.setattr(coresets, "_CANDIDATES_AT_ONCE", 7)
    assert np.array_equal(coresets.facility_location(points, 10), with_table)


@pytest.mark.parametrize("method", ["herding", "k-center", "facility-location"])
def test_rounding_of_another_machine_takes_the_same(method: str) -> None:
    grid = np.stack(np.meshgrid(range(5), range(5)), axis=-1).reshape(25, 2).astype(float)  # ties everywhere
    noise = 1e-13 * np.random.default_rng(0).normal(size=grid.shape)
    one, other = (METHODS[method](Features(points + 1), 10, seed=0) for points in (grid, grid + noise))
    assert np.array_equal(one, other)


def test_half_precision_features_of_a_large_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from lvdd_assets.distill import features

    monkeypatch.setattr(features, "_MAX_DOUBLE_BYTES", 0)
    points = Features(_blobs().astype(np.float16))
    assert points.values_ND.dtype == np.float16
    for method, take in METHODS.items():
        assert len(set(take(points, 6, seed=0).tolist())) == 6, method

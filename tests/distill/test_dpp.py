"""The kernel is not the identity, and the sampler draws each subset as often as det(L_S) says."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lvdd_assets.distill import dpp


def _features(num_items: int, *, dimension: int = 400, seed: int = 0) -> np.ndarray:
    """Points like real latents: many dimensions, distances far above 1."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_items, 3)) @ generator.normal(size=(3, dimension)) * 3 + generator.normal(
        size=(num_items, dimension)
    )


def _subset_probabilities(matrix: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    subsets = list(itertools.combinations(range(len(matrix)), k))
    weights = np.array([max(np.linalg.det(matrix[np.ix_(s, s)]), 0.0) for s in subsets])
    return dict(zip(subsets, weights / weights.sum(), strict=True))


@pytest.mark.parametrize("kind", dpp.KERNELS)
def test_kernels_are_symmetric_and_positive_semidefinite(kind: str) -> None:
    matrix = dpp.build_kernel(_features(12), kind=kind).matrix
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-8 * np.linalg.eigvalsh(matrix).max()


def test_bandwidth_from_the_data_keeps_the_kernel_off_the_identity() -> None:
    features = _features(11)  # 55 pairs: the median is one of them
    kernel = dpp.build_kernel(features, kind="rbf")
    # Half of all pairs are nearer than the bandwidth, so their similarity is above exp(−1/2).
    off = kernel.matrix[np.triu_indices(11, 1)]
    assert np.median(off) == pytest.approx(np.exp(-0.5), rel=1e-6)
    # With the fixed bandwidth of 1 the same features give the identity: what the data-driven one is there to avoid.
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
    assert np.exp(-distances[np.triu_indices(11, 1)]).max() < 1e-3


def test_rbf_does_not_depend_on_the_features_scale() -> None:
    features = _features(10)
    one, other = dpp.build_kernel(features).matrix, dpp.build_kernel(features * 1000).matrix
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize(("num_items", "k", "kind"), [(5, 2, "rbf"), (6, 3, "rbf"), (6, 3, "cosine"), (5, 4, "rbf")])
def test_sampler_draws_subsets_as_often_as_their_determinant_says(num_items: int, k: int, kind: str) -> None:
    kernel = dpp.build_kernel(_features(num_items, dimension=8, seed=3), kind=kind)
    expected = _subset_probabilities(kernel.matrix, k)
    num_draws = 4000
    counts = dict.fromkeys(expected, 0)
    for seed in range(num_draws):
        counts[tuple(dpp.sample(kernel, k, seed=seed))] += 1
    likely = [subset for subset, p in expected.items() if p * num_draws >= 5]
    observed = [counts[subset] for subset in likely] + [num_draws - sum(counts[subset] for subset in likely)]
    wanted = [expected[subset] * num_draws for subset in likely]
    wanted.append(num_draws - sum(wanted))
    if wanted[-1] < 5:  # the pooled rest is too rare for the test's approximation: join it to the last bin
        observed[-2:], wanted[-2:] = [sum(observed[-2:])], [sum(wanted[-2:])]
    assert len(wanted) > 3
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_the_chi_square_test_would_see_a_uniform_sampler() -> None:
    kernel = dpp.build_kernel(_features(6, dimension=8, seed=3))
    expected = np.array(list(_subset_probabilities(kernel.matrix, 3).values()))
    uniform = np.full(len(expected), 4000 / len(expected))
    enough = expected * 4000 >= 5
    assert enough.sum() > 3
    wanted = expected[enough] / expected[enough].sum() * uniform[enough].sum()
    assert stats.chisquare(uniform[enough], wanted).pvalue < 1e-6


def test_marginals_match_enumeration() -> None:
    kernel = dpp.build_kernel(_features(7, dimension=10, seed=1))
    expected = np.zeros(7)
    for subset, probability in _subset_probabilities(kernel.matrix, 3).items():
        expected[list(subset)] += probability
    draws = np.stack([np.bincount(dpp.sample(kernel, 3, seed=seed), minlength=7) for seed in range(3000)])
    np.testing.assert_allclose(draws.mean(0), expected, atol=4 * np.sqrt(0.25 / 3000))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=7), st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_elementary_symmetric_polynomials(values: list[float], k: int) -> None:
    k = min(k, len(values))
    table = dpp.log_elementary_symmetric(np.log(values), k)
    direct = sum(np.prod(chosen) for chosen in itertools.combinations(values, k))
    assert table[k, -1] == pytest.approx(np.log(direct), rel=1e-9, abs=1e-9)


def test_same_seed_same_subset() -> None:
    kernel = dpp.build_kernel(_features(30))
    assert np.array_equal(dpp.sample(kernel, 8, seed=5), dpp.sample(kernel, 8, seed=5))
    assert any(not np.array_equal(dpp.sample(kernel, 8, seed=5), dpp.sample(kernel, 8, seed=s)) for s in range(6, 10))


def test_the_whole_class_can_be_asked_for() -> None:
    assert dpp.sample(dpp.build_kernel(_features(9)), 9, seed=0).tolist() == list(range(9))
    assert dpp.sample(dpp.build_kernel(_features(1)), 1, seed=0).tolist() == [0]


def test_k_above_the_rank_names_both_numbers() -> None:
    features = np.repeat(_features(3), 2, axis=0)  # six clips, three different ones
    kernel = dpp.build_kernel(features, kind="linear")
    assert kernel.rank() == 3
    with pytest.raises(ValueError, match=r"asked for 4 of 6 clips, possible are 1 to 3"):
        dpp.sample(kernel, 4, seed=0)
    with pytest.raises(ValueError, match="asked for 0"):
        dpp.sample(kernel, 0, seed=0)


def test_copies_are_never_drawn_together() -> None:
    features = _features(8)
    features[5] = features[2]
    kernel = dpp.build_kernel(features)
    assert not any({2, 5} <= set(dpp.sample(kernel, 4, seed=seed).tolist()) for seed in range(200))


def test_draws_are_more_diverse_than_uniform_ones() -> None:
    kernel = dpp.build_kernel(_features(20, dimension=6, seed=2))
    ours = [dpp.log_det(kernel, dpp.sample(kernel, 6, seed=seed)) for seed in range(60)]
    uniform = dpp.uniform_log_dets(kernel, 6, num_draws=60, seed=0)
    assert np.mean(ours) > np.mean(uniform) + 2 * np.std(uniform) / np.sqrt(60)


def test_order_is_a_permutation_that_takes_the_largest_gain_first() -> None:
    kernel = dpp.build_kernel(_features(8, dimension=6))
    items = np.array([0, 2, 3, 5, 7])
    order = dpp.order_by_gain(kernel, items)
    assert sorted(order) == items.tolist()
    for length in range(1, 5):
        best = max(dpp.log_det(kernel, np.array([*order[:length], other])) for other in order[length:])
        assert dpp.log_det(kernel, order[: length + 1]) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(
    ("features", "kind", "message"),
    [
        (np.array([[1.0, np.nan]]), "rbf", "not finite"),
        (np.zeros((0, 3)), "rbf", "N ≥ 1"),
        (np.ones((4, 3)), "rbf", "identical"),
        (np.zeros((4, 3)), "cosine", "all zero"),
        (np.ones((4, 3)), "magic", "unknown kernel 'magic'; known: rbf"),
    ],
    ids=["nan", "empty", "copies", "zero", "unknown"],
)
def test_bad_input(features: np.ndarray, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dpp.build_kernel(features, kind=kind)


def test_a_kernel_must_be_square_symmetric_and_finite() -> None:
    with pytest.raises(ValueError, match="square"):
        dpp.Kernel(np.ones((2, 3)))
    with pytest.raises(ValueError, match="symmetric"):
        dpp.Kernel(np.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="finite"):
        dpp.Kernel(np.array([[np.inf]]))

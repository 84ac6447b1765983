"""The sampler draws each subset as often as det(L_S) says, and greedy MAP takes what raises the determinant most."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from lvdd_assets.distill import dpp
from lvdd_assets.distill.features import Features
from lvdd_assets.distill.kernels import FeatureKernel, Kernel, build_kernel


def _kernel(points: np.ndarray, *, kind: str = "rbf") -> Kernel:
    return build_kernel(Features(points), kind=kind).dense()


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


def _chi_square(expected: dict[tuple[int, ...], float], draws: list[np.ndarray]) -> float:
    """p-value of the draws, subsets that are too rare for the test's approximation pooled into one bin."""
    counts = dict.fromkeys(expected, 0)
    for items in draws:
        counts[tuple(items)] += 1
    likely = [subset for subset, p in expected.items() if p * len(draws) >= 5]
    observed = [counts[subset] for subset in likely] + [len(draws) - sum(counts[subset] for subset in likely)]
    wanted = [expected[subset] * len(draws) for subset in likely]
    wanted.append(len(draws) - sum(wanted))
    if wanted[-1] < 5:
        observed[-2:], wanted[-2:] = [sum(observed[-2:])], [sum(wanted[-2:])]
    assert len(wanted) > 3
    return float(stats.chisquare(observed, wanted).pvalue)


@pytest.mark.parametrize(
    ("num_items", "k", "kind"),
    [(5, 2, "rbf"), (6, 3, "rbf"), (6, 3, "cosine"), (6, 3, "linear"), (5, 4, "rbf"), (8, 3, "exp"), (10, 3, "rbf")],
)
def test_sampler_draws_subsets_as_often_as_their_determinant_says(num_items: int, k: int, kind: str) -> None:
    kernel = _kernel(_features(num_items, dimension=8, seed=3), kind=kind)
    expected = _subset_probabilities(kernel.matrix, k)
    assert _chi_square(expected, [dpp.sample(kernel, k, seed=seed) for seed in range(2500)]) > 1e-3


def test_quality_is_drawn_by() -> None:
    kernel = build_kernel(Features(_features(7, dimension=8, seed=3)), quality=2.0).dense()
    expected = _subset_probabilities(kernel.matrix, 3)
    assert _chi_square(expected, [dpp.sample(kernel, 3, seed=seed) for seed in range(2500)]) > 1e-3


def test_the_dual_draws_from_the_same_distribution() -> None:
    factor = _features(7, dimension=5, seed=3)
    expected = _subset_probabilities(factor @ factor.T, 3)
    assert _chi_square(expected, [dpp.sample_factor(factor, 3, seed=seed) for seed in range(2500)]) > 1e-3


def test_equal_eigenvalues_are_drawn_as_often_as_they_should() -> None:
    # A cluster of equal eigenvalues, of which some are chosen: its basis is `spectra`'s, not LAPACK's.
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    kernel = Kernel(_symmetric(basis * [0.2, 1.0, 1.0, 1.0, 1.0, 3.0] @ basis.T))
    expected = _subset_probabilities(kernel.matrix, 3)
    assert _chi_square(expected, [dpp.sample(kernel, 3, seed=seed) for seed in range(2500)]) > 1e-3
    uniform = _subset_probabilities(np.eye(6), 3)
    assert _chi_square(uniform, [dpp.sample(Kernel(np.eye(6)), 3, seed=seed) for seed in range(2500)]) > 1e-3


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2


def test_the_chi_square_test_would_see_a_uniform_sampler() -> None:
    kernel = _kernel(_features(6, dimension=8, seed=3))
    expected = np.array(list(_subset_probabilities(kernel.matrix, 3).values()))
    uniform = np.full(len(expected), 4000 / len(expected))
    enough = expected * 4000 >= 5
    assert enough.sum() > 3
    wanted = expected[enough] / expected[enough].sum() * uniform[enough].sum()
    assert stats.chisquare(uniform[enough], wanted).pvalue < 1e-6


def test_marginals_match_enumeration() -> None:
    kernel = _kernel(_features(7, dimension=10, seed=1))
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
    kernel = _kernel(_features(30))
    assert np.array_equal(dpp.sample(kernel, 8, seed=5), dpp.sample(kernel, 8, seed=5))
    assert any(not np.array_equal(dpp.sample(kernel, 8, seed=5), dpp.sample(kernel, 8, seed=s)) for s in range(6, 10))


def test_the_whole_class_can_be_asked_for() -> None:
    assert dpp.sample(_kernel(_features(9)), 9, seed=0).tolist() == list(range(9))
    assert dpp.sample(_kernel(_features(1)), 1, seed=0).tolist() == [0]


def test_k_above_the_rank_names_both_numbers() -> None:
    features = np.repeat(_features(3), 2, axis=0)  # six clips, three different ones
    kernel = _kernel(features, kind="linear")
    assert kernel.rank() == 3
    with pytest.raises(ValueError, match=r"asked for 4 of 6 clips, possible are 1 to 3"):
        dpp.sample(kernel, 4, seed=0)
    with pytest.raises(ValueError, match="asked for 0"):
        dpp.sample(kernel, 0, seed=0)


def test_copies_are_never_drawn_together() -> None:
    features = _features(8)
    features[5] = features[2]
    kernel = _kernel(features)
    assert not any({2, 5} <= set(dpp.sample(kernel, 4, seed=seed).tolist()) for seed in range(200))


def test_draws_are_more_diverse_than_uniform_ones() -> None:
    kernel = _kernel(_features(20, dimension=6, seed=2))
    ours = [dpp.log_det(kernel, dpp.sample(kernel, 6, seed=seed)) for seed in range(60)]
    generator = np.random.default_rng(0)
    uniform = [dpp.log_det(kernel, generator.choice(20, size=6, replace=False)) for _ in range(60)]
    assert np.mean(ours) > np.mean(uniform) + 2 * np.std(uniform) / np.sqrt(60)


def test_order_is_a_permutation_that_takes_the_largest_gain_first() -> None:
    kernel = _kernel(_features(8, dimension=6))
    items = np.array([0, 2, 3, 5, 7])
    order = dpp.order_by_gain(kernel, items)
    assert sorted(order) == items.tolist()
    for length in range(1, 5):
        best = max(dpp.log_det(kernel, np.array([*order[:length], other])) for other in order[length:])
        assert dpp.log_det(kernel, order[: length + 1]) == pytest.approx(best, rel=1e-9)


def test_inclusion_probabilities_are_dppys() -> None:
    from dppy.finite_dpps import FiniteDPP

    kernel = _kernel(_features(12, dimension=6, seed=4), kind="linear")
    num_draws = 2000
    peer = FiniteDPP("likelihood", L=kernel.matrix)
    generator = np.random.RandomState(0)
    theirs = np.zeros(12)
    for _ in range(num_draws):
        theirs[peer.sample_exact_k_dpp(size=4, random_state=generator)] += 1
    ours = np.bincount(np.concatenate([dpp.sample(kernel, 4, seed=seed) for seed in range(num_draws)]), minlength=12)
    chance = (theirs + ours) / (2 * num_draws)
    deviation = np.sqrt(2 * chance * (1 - chance) / num_draws)
    assert (np.abs(ours - theirs) / num_draws < 4 * deviation).all()
    assert np.ptp(chance) > 0.2  # uniform marginals would be compared with uniform ones


def test_elementary_symmetric_polynomials_are_dppys() -> None:
    from dppy.exact_sampling import elementary_symmetric_polynomials

    values = np.random.default_rng(0).uniform(0, 3, size=40)
    np.testing.assert_allclose(
        np.exp(dpp.log_elementary_symmetric(np.log(values), 7)), elementary_symmetric_polynomials(values, 7), rtol=1e-10
    )


def test_logarithms_do_not_overflow() -> None:
    table = dpp.log_elementary_symmetric(np.full(2000, 700.0), 24)
    # All λ = e^700: e_k = C(2000, k) e^{700 k}
    assert table[24, -1] == pytest.approx(24 * 700 + np.log(float(special.comb(2000, 24, exact=True))), rel=1e-12)


@pytest.mark.parametrize("noise", [1e-15, 1e-14])
def test_rounding_of_another_machine_draws_the_same_subset(noise: float) -> None:
    points = _features(300, dimension=30)
    matrix = _kernel(points).matrix
    generator = np.random.default_rng(1)
    other = matrix + noise * _symmetric(generator.normal(size=matrix.shape))
    copies = matrix[np.ix_(range(150), range(150))].repeat(2, axis=0).repeat(2, axis=1)  # and where clips are copies
    turned = copies + noise * _symmetric(generator.normal(size=copies.shape))
    for one, rounded in ((matrix, other), (copies, turned), (np.eye(300), np.eye(300) + (other - matrix))):
        for seed in range(8):
            drawn = dpp.sample(Kernel(one), 12, seed=seed)
            assert np.array_equal(drawn, dpp.sample(Kernel(rounded), 12, seed=seed))
            assert np.array_equal(dpp.order_by_gain(Kernel(one), drawn), dpp.order_by_gain(Kernel(rounded), drawn))
        if one is not copies:
            assert np.array_equal(dpp.greedy_map(Kernel(one), 12), dpp.greedy_map(Kernel(rounded), 12))


def test_items_may_be_named_in_another_order() -> None:
    # P(S) knows no order: relabelled items are drawn as often under their new names.
    kernel = _kernel(_features(6, dimension=8, seed=3))
    turn = np.array([3, 1, 5, 0, 2, 4])
    turned = Kernel(kernel.matrix[np.ix_(turn, turn)])
    expected = _subset_probabilities(kernel.matrix, 2)
    back = [np.sort(turn[dpp.sample(turned, 2, seed=seed)]) for seed in range(2000)]
    assert _chi_square(expected, back) > 1e-3


def test_greedy_map_takes_the_largest_gain_at_every_step() -> None:
    for kind in ("rbf", "linear", "cosine"):
        lazy = build_kernel(Features(_features(15, dimension=8)), kind=kind, quality=0.5)
        taken = dpp.greedy_map(lazy, 5)
        assert np.array_equal(taken, dpp.greedy_map(lazy.dense(), 5))
        for length in range(5):
            gains = [dpp.log_det(lazy, np.array([*taken[:length], item])) for item in range(15)]
            assert gains[taken[length]] == pytest.approx(max(gains), rel=1e-9)


def test_greedy_map_never_holds_the_whole_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = build_kernel(Features(_features(50)))
    widest = []
    columns = FeatureKernel.columns
    monkeypatch.setattr(FeatureKernel, "dense", lambda self: pytest.fail("N×N"))
    monkeypatch.setattr(FeatureKernel, "columns", lambda self, items: widest.append(len(items)) or columns(self, items))
    assert len(set(dpp.greedy_map(lazy, 10))) == 10
    assert widest == [1] * 10


def test_greedy_map_is_within_the_bound_of_the_best_subset() -> None:
    # det is log-submodular; for kernels with eigenvalues ≥ 1 it is monotone: greedy has 1 − 1/e of the best log det.
    kernel = Kernel(_kernel(_features(10, dimension=6)).matrix + np.eye(10))
    best = max(dpp.log_det(kernel, np.array(s)) for s in itertools.combinations(range(10), 4))
    ours = dpp.log_det(kernel, dpp.greedy_map(kernel, 4))
    assert (1 - 1 / np.e) * best <= ours <= best + 1e-12


def test_greedy_map_and_rank() -> None:
    lazy = build_kernel(Features(np.repeat(_features(3), 2, axis=0)), kind="linear")
    assert len(dpp.greedy_map(lazy, 3)) == 3
    with pytest.raises(ValueError, match=r"greedy MAP: asked for 4 of 6 clips, possible are 1 to 3"):
        dpp.greedy_map(lazy, 4)
    with pytest.raises(ValueError, match="asked for 9 of 6 clips"):
        dpp.greedy_map(lazy, 9)
    with pytest.raises(ValueError, match="asked for 0 of 6"):
        dpp.greedy_map(lazy, 0)


def test_nystrom_is_exact_at_full_rank_and_says_what_it_leaves_out() -> None:
    kernel = _kernel(_features(30, dimension=10))
    factor, kept = dpp.nystrom_factor(kernel, 30, seed=0)
    np.testing.assert_allclose(factor @ factor.T, kernel.matrix, atol=1e-8)
    assert kept == pytest.approx(1)
    shares = []
    for rank in (2, 5, 10, 20):
        factor, kept = dpp.nystrom_factor(kernel, rank, seed=0)
        assert kept == pytest.approx(np.trace(factor @ factor.T) / np.trace(kernel.matrix), rel=1e-10)
        assert np.linalg.eigvalsh(kernel.matrix - factor @ factor.T).min() > -1e-9  # never more than L
        shares.append(kept)
    assert shares == sorted(shares)
    # A kernel of rank 4 is done after 4 landmarks.
    factor, kept = dpp.nystrom_factor(_kernel(_features(20, dimension=4), kind="linear"), 10, seed=0)
    assert factor.shape == (20, 4)
    assert kept == pytest.approx(1)


def test_the_route_follows_the_number_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpp, "DENSE_LIMIT", 20)
    monkeypatch.setattr(dpp, "NYSTROM_RANK", 10)
    points = Features(_features(40, dimension=12))
    small = build_kernel(Features(_features(20, dimension=12)))
    assert dpp.draw(small, 3, seed=0).route == "exact"
    dual = dpp.draw(build_kernel(points, kind="cosine"), 3, seed=0)
    assert (dual.route, dual.rank, dual.kept_trace) == ("dual", 12, 1.0)
    rough = dpp.draw(build_kernel(points), 3, seed=0)
    assert (rough.route, rough.rank) == ("nystrom", 12)
    assert 0.2 < rough.kept_trace < 1
    wide = Features(_features(40, dimension=60))
    assert dpp.draw(build_kernel(wide, kind="linear"), 3, seed=0).route == "nystrom"


def test_the_dual_draws_what_the_whole_kernel_draws() -> None:
    lazy = build_kernel(Features(_features(60, dimension=9)), kind="cosine", quality=0.3)
    factor = lazy.factor()
    assert factor is not None
    for seed in range(5):
        assert np.array_equal(dpp.sample(lazy.dense(), 6, seed=seed), dpp.sample_factor(factor, 6, seed=seed))


@given(st.integers(1, 40), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_draw_is_a_set_of_k(k: int, seed: int) -> None:
    kernel = _kernel(_features(40, dimension=200))
    items = dpp.sample(kernel, k, seed=seed)
    assert len(set(items.tolist())) == k
    assert items.tolist() == sorted(items.tolist())
    assert sorted(dpp.order_by_gain(kernel, items)) == items.tolist()

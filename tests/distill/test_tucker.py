"""What the HOSVD promises: orthonormal factors, exact at full rank, error bounded by what is cut off; and the SVD."""

import itertools
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker

from lvdd_assets.distill import float_coding, tucker


def _latents(num_clips: int = 6, seed: int = 0) -> np.ndarray:
    """Smooth in time and space, as latents are, with some noise."""
    generator = np.random.default_rng(seed)
    time, row, column = (np.linspace(0, 1, n) for n in (8, 6, 5))
    phase = generator.uniform(0, 6, size=(num_clips, 1, 4, 1, 1))
    waves = np.sin(3 * time[:, None, None, None] + 5 * row[:, None] + 4 * column + phase)
    return (waves + 0.1 * generator.normal(size=waves.shape)).astype(np.float32)


def _error(latents: np.ndarray, result: tucker.TuckerTensor) -> float:
    return float(np.linalg.norm(tucker.reconstruct(result).astype(np.float64) - latents))


def _assert_orthonormal(factor: np.ndarray) -> None:
    np.testing.assert_allclose(factor.T @ factor, np.eye(factor.shape[1]), atol=1e-5)


def test_factors_are_orthonormal() -> None:
    for ranks in [None, (6, 4, 4, 3), (1, 1, 1, 1)]:
        for factor in tucker.decompose(_latents(), ranks=ranks).factors:
            _assert_orthonormal(factor)


def test_full_rank_is_exact_and_keeps_energy() -> None:
    latents = _latents()
    result = tucker.decompose(latents)
    np.testing.assert_allclose(tucker.reconstruct(result), latents, atol=1e-5)
    assert np.linalg.norm(result.core) == pytest.approx(np.linalg.norm(latents), rel=1e-5)  # Parseval


def test_singular_values_are_those_of_the_unfoldings() -> None:
    latents = _latents()
    for axis, values in enumerate(tucker.singular_values(latents), start=1):
        unfolded = np.moveaxis(latents, axis, 0).reshape(latents.shape[axis], -1).astype(np.float64)
        np.testing.assert_allclose(values, np.linalg.svd(unfolded, compute_uv=False), atol=1e-5)
        assert (values**2).sum() == pytest.approx((latents.astype(np.float64) ** 2).sum())


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


@pytest.mark.parametrize("instance_rank", [None, 3])
def test_error_falls_with_each_rank_alone(instance_rank: int | None) -> None:
    latents = _latents()
    for mode, size in enumerate(latents.shape[1:]):
        ranks = [3, 3, 3, 3]
        errors = []
        for rank in range(1, size + 1):
            ranks[mode] = rank
            errors.append(_error(latents, tucker.decompose(latents, ranks=tuple(ranks), instance_rank=instance_rank)))
        if instance_rank is None:  # the smaller core is a part of the larger one
            assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors)), (mode, errors)
        else:  # the instance factor follows the core: its bound falls, and the ends are in order
            assert errors[-1] < errors[0]


def test_a_smaller_rank_is_a_part_of_a_larger_one() -> None:
    large, small = tucker.decompose(_latents()), tucker.decompose(_latents(), ranks=(3, 2, 4, 1))
    np.testing.assert_array_equal(small.factors[0], large.factors[0][:, :3])
    np.testing.assert_allclose(small.core, large.core[:, :3, :2, :4, :1], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    data=st.data(),
)
def test_any_shape_any_ranks(shape: tuple[int, ...], seed: int, scale: float, data: st.DataObject) -> None:
    latents = (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)
    ranks = tuple(data.draw(st.integers(1, size)) for size in shape[1:])
    instance_rank = data.draw(st.none() | st.integers(1, shape[0]))
    result = tucker.decompose(latents, ranks=ranks, instance_rank=instance_rank)
    assert (result.ranks, result.num_clips) == (ranks, shape[0])
    for factor in (*result.factors, *([] if result.instance_factor is None else [result.instance_factor])):
        _assert_orthonormal(factor)
    # Pythagoras: what orthonormal factors leave out is what the core lacks.
    energy, kept = (float((array.astype(np.float64) ** 2).sum()) for array in (latents, result.core))
    assert _error(latents, result) ** 2 == pytest.approx(energy - kept, abs=1e-5 * energy)


@pytest.mark.parametrize("ranks", [(6, 4, 4, 4), (4, 2, 3, 3), (2, 1, 2, 2)])
def test_agrees_with_the_hosvd_of_tensorly(ranks: tuple[int, ...]) -> None:
    latents = _latents(40)
    result = tucker.decompose(latents, ranks=ranks)
    (core, factors), _ = partial_tucker(latents, rank=list(ranks), modes=[1, 2, 3, 4], init="svd", n_iter_max=0)
    theirs = tucker.TuckerTensor(np.asarray(core), tuple(factors))
    assert _error(latents, result) == pytest.approx(_error(latents, theirs), rel=1e-4)
    for ours, other in zip(result.factors, theirs.factors, strict=True):
        # Cosines of the principal angles: the same subspace, whatever the signs.
        np.testing.assert_allclose(np.linalg.svd(ours.T @ other, compute_uv=False), 1.0, atol=1e-3)


def test_error_is_within_a_hundredth_of_the_iterated_one() -> None:
    latents = _latents(40)
    ranks = tucker.ranks_from_ratio(latents.shape[1:], 0.75)
    plain, iterated = (tucker.decompose(latents, ranks=ranks, num_iterations=n) for n in (0, 100))
    assert _error(latents, plain) <= 1.01 * _error(latents, iterated)


_DIGEST = """
import hashlib
import numpy as np
from lvdd_assets.distill import tucker

digest = hashlib.sha256()
for shape in [(7, 8, 4, 8, 8), (3, 1, 1, 64, 64), (2, 16, 16, 28, 28), (1, 5, 3, 61, 47)]:
    latents = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    result = tucker.decompose(latents, ranks=tuple(max(1, size // 2) for size in shape[1:]))
    for part in (result.core, *result.factors, tucker.reconstruct(result)):
        digest.update(part.tobytes())
print(digest.hexdigest())
"""


def test_same_bytes_for_any_number_of_threads() -> None:
    """Each in a process of its own: OpenBLAS may hang where its threads grow in number in a process that has forked."""
    found = []
    for num_threads in ("1", "2", "4"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": num_threads}
        command = [sys.executable, "-c", _DIGEST]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        found.append(result.stdout)
    assert found[0] == found[1] == found[2]


def test_same_coefficients_alone_or_among_others() -> None:
    latents = _latents(1500, seed=2)  # several chunks
    factors = tucker.decompose(latents, ranks=(4, 4, 3, 3)).factors
    np.testing.assert_array_equal(
        tucker.project(latents, factors)[1100:1103], tucker.project(latents[1100:1103], factors)
    )


def test_chunks_add_up_to_the_whole() -> None:
    latents = _latents(1500, seed=2).astype(np.float64)
    factor = tucker.decompose(latents).factors[0]
    unfolded = np.moveaxis(latents, 1, 0).reshape(8, -1)
    values = np.linalg.eigvalsh(unfolded @ unfolded.T)[::-1]
    np.testing.assert_allclose(((factor.T @ unfolded) ** 2).sum(1), values, rtol=1e-4)


def test_memory_grows_by_the_core_alone() -> None:
    peaks = []
    for num_clips in (200, 2000):
        latents = np.random.default_rng(0).normal(size=(num_clips, 8, 4, 8, 8)).astype(np.float32)
        tracemalloc.start()
        core = tucker.decompose(latents, ranks=(4, 2, 4, 4)).core
        peaks.append(tracemalloc.get_traced_memory()[1] - core.nbytes)
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_low_rank_latents_are_exact_at_their_rank() -> None:
    generator = np.random.default_rng(3)
    core = generator.normal(size=(9, 3, 2, 2, 1))
    factors = tuple(np.linalg.qr(generator.normal(size=(n, r)))[0] for n, r in ((8, 3), (4, 2), (6, 2), (5, 1)))
    latents = tucker.reconstruct(tucker.TuckerTensor(core, factors))
    for ranks in [(3, 2, 2, 1), (5, 3, 4, 2), None]:
        result = tucker.decompose(latents, ranks=ranks)
        assert _error(latents, result) <= 1e-5 * np.linalg.norm(latents)
        for factor in result.factors:
            _assert_orthonormal(factor)


@pytest.mark.parametrize("num_iterations", [0, 3])
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_constant_latents(value: float, num_iterations: int) -> None:
    latents = np.full((3, 8, 4, 6, 5), value, np.float32)
    result = tucker.decompose(latents, ranks=(1, 1, 1, 1), num_iterations=num_iterations)
    np.testing.assert_allclose(tucker.reconstruct(result), latents, atol=1e-5)
    for factor in tucker.decompose(latents, num_iterations=num_iterations).factors:
        _assert_orthonormal(factor)


def test_one_clip() -> None:
    latents = _latents(1)
    result = tucker.decompose(latents, instance_rank=1)
    assert result.instance_factor is not None
    assert result.instance_factor.tolist() == [[1.0]]
    np.testing.assert_allclose(tucker.reconstruct(result), latents, atol=1e-5)


def test_half_precision_and_views_are_read_as_they_are() -> None:
    latents = _latents().astype(np.float16)
    expected = tucker.decompose(np.ascontiguousarray(latents[::-1, :, :, ::-1]).astype(np.float32))
    result = tucker.decompose(latents[::-1, :, :, ::-1])
    np.testing.assert_array_equal(result.core, expected.core)
    assert result.core.dtype == np.float32


@pytest.mark.parametrize("num_clips", [12, 300])  # 300: several blocks of columns
def test_instance_mode_is_the_best_for_the_other_factors(num_clips: int) -> None:
    latents = _latents(num_clips)
    ranks = (8, 4, 6, 3)
    plain = tucker.decompose(latents, ranks=ranks)
    scales = np.linalg.svd(plain.core.reshape(num_clips, -1), compute_uv=False)
    for rank in (1, 4, num_clips):
        result = tucker.decompose(latents, ranks=ranks, instance_rank=rank)
        assert result.core.shape == (rank, *ranks)
        assert result.instance_factor is not None
        _assert_orthonormal(result.instance_factor)
        # Eckart & Young on the core, whose error adds to that of the other modes.
        expected = np.sqrt(_error(latents, plain) ** 2 + (scales[rank:].astype(np.float64) ** 2).sum())
        assert _error(latents, result) == pytest.approx(expected, rel=1e-4)


def test_more_clips_than_coefficients_keep_an_orthonormal_instance_factor() -> None:
    result = tucker.decompose(_latents(9), ranks=(2, 1, 2, 1), instance_rank=9)
    assert result.instance_factor is not None
    _assert_orthonormal(result.instance_factor)
    plain = tucker.decompose(_latents(9), ranks=(2, 1, 2, 1))
    np.testing.assert_allclose(tucker.reconstruct(result), tucker.reconstruct(plain), atol=1e-5)


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
    assert tucker.ranks_from_ratio((8, 4, 8, 8), 0.75, channels=0.5) == (6, 2, 6, 6)
    with pytest.raises(ValueError, match=r"rank ratio must be in \(0, 1\], got 2"):
        tucker.ranks_from_ratio((8, 4, 8, 8), 0.75, channels=2)
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
    with pytest.raises(ValueError, match="rank 7 of mode N is not in 1 … 6"):
        tucker.decompose(_latents(), instance_rank=7)
    with pytest.raises(ValueError, match="instance factor"):
        tucker.TuckerTensor(np.zeros((1, 2, 2, 2, 2)), (np.zeros((2, 2)),) * 4, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        tucker.project(_latents()[:, :4], tucker.decompose(_latents()).factors)
    broken = _latents(1500)
    broken[1499, 0, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        tucker.decompose(broken)


def _svd_error(latents: np.ndarray, rank: int) -> float:
    return float(np.linalg.norm(tucker.reconstruct_svd(tucker.truncated_svd(latents, rank)) - latents))


def test_svd_is_exact_at_full_rank_and_the_mean_at_rank_0() -> None:
    latents = _latents(9)
    np.testing.assert_allclose(tucker.reconstruct_svd(tucker.truncated_svd(latents, 8)), latents, atol=1e-5)
    mean = np.broadcast_to(latents.mean(0), latents.shape)
    np.testing.assert_allclose(tucker.reconstruct_svd(tucker.truncated_svd(latents, 0)), mean, atol=1e-6)


def test_svd_error_is_that_of_eckart_and_young_and_below_any_projection() -> None:
    latents = _latents(30)
    flat = (latents - latents.mean(0)).reshape(30, -1)
    scales = np.linalg.svd(flat, compute_uv=False).astype(np.float64)
    generator = np.random.default_rng(5)
    for rank in (1, 4, 15):
        svd = tucker.truncated_svd(latents, rank)
        _assert_orthonormal(svd.right.T)
        error = _svd_error(latents, rank)
        assert error == pytest.approx(np.sqrt((scales[rank:] ** 2).sum()), rel=1e-4)
        for columns in (generator.normal(size=(flat.shape[1], rank)), flat[:rank].T):
            basis = np.linalg.qr(columns)[0]
            assert error < np.linalg.norm(flat - flat @ basis @ basis.T)


def test_svd_of_copies_and_constants() -> None:
    latents = np.repeat(_latents(2), 3, axis=0)
    assert _svd_error(latents, 1) <= 1e-5 * np.linalg.norm(latents)
    result = tucker.truncated_svd(np.full((4, 2, 2, 2, 2), 3.0), 3)
    np.testing.assert_allclose(tucker.reconstruct_svd(result), 3.0)
    _assert_orthonormal(result.right.T)


def test_svd_same_signs() -> None:
    right = tucker.truncated_svd(_latents(), 4).right
    assert (right[np.arange(4), np.abs(right).argmax(1)] > 0).all()


@given(num_clips=st.integers(1, 500), sizes=st.tuples(*[st.integers(1, 16)] * 4), num_bytes=st.integers(0, 10_000_000))
def test_svd_rank_is_the_largest_that_fits(num_clips: int, sizes: tuple[int, ...], num_bytes: int) -> None:
    smallest = float_coding.svd_num_bytes(num_clips, sizes, 0)
    if num_bytes < smallest:
        with pytest.raises(ValueError, match=f"{smallest} B as float32, {num_bytes} B are allowed"):
            tucker.svd_rank_for_bytes(num_clips, sizes, num_bytes)
        return
    rank = tucker.svd_rank_for_bytes(num_clips, sizes, num_bytes)
    limit = min(num_clips - 1, int(np.prod(sizes)))
    assert float_coding.svd_num_bytes(num_clips, sizes, rank) <= num_bytes
    assert rank == limit or float_coding.svd_num_bytes(num_clips, sizes, rank + 1) > num_bytes


def test_svd_at_the_bytes_of_a_tucker_form() -> None:
    latents = _latents(400)
    result = tucker.decompose(latents, ranks=(6, 4, 4, 3))
    allowed = len(float_coding.encode_tucker(result.core, result.factors))
    rank = tucker.svd_rank_for_bytes(400, latents.shape[1:], allowed)
    svd = tucker.truncated_svd(latents, rank)
    stored = len(float_coding.encode_svd(svd.mean, svd.left, svd.right))
    assert allowed - 4 * (400 + latents[0].size) < stored <= allowed


def test_svd_bad_input_names_both_numbers() -> None:
    with pytest.raises(ValueError, match="rank 6 is not in 0 … 5"):
        tucker.truncated_svd(_latents(), 6)
    with pytest.raises(ValueError, match="rank -1"):
        tucker.truncated_svd(_latents(), -1)
    with pytest.raises(ValueError, match="not finite"):
        tucker.truncated_svd(np.full((2, 2, 2, 2, 2), np.inf), 1)
    with pytest.raises(ValueError, match="belong together"):
        tucker.TruncatedSvd(np.zeros((1, 2, 2, 2)), np.zeros((3, 2)), np.zeros((2, 7)))

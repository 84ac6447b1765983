"""Coded classes come back as they went in, and damaged bytes are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lvdd_assets.distill import coding


def _factors(sizes: tuple[int, ...], ranks: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    parts = [
        np.linalg.qr(generator.normal(size=(size, size)))[0][:, :rank] for size, rank in zip(sizes, ranks, strict=True)
    ]
    return tuple(part.astype(np.float16).astype(np.float32) for part in parts)


def _core(shape: tuple[int, ...] = (5, 4, 3, 2, 2), scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(1).laplace(size=shape) * scale).astype(np.float32)


SIZES, RANKS = (4, 3, 4, 4), (4, 3, 2, 2)


@pytest.mark.parametrize("step", [0.01, 0.3, 1.0, 7.0])
def test_hosvd_lzma_errs_by_at_most_half_a_step(step: float) -> None:
    core, factors = _core(), _factors(SIZES, RANKS)
    decoded, read = coding.decode(coding.encode(core, factors, codec="hosvd-lzma", step=step))
    assert np.abs(decoded - core).max() <= step / 2 * (1 + 1e-5)
    for ours, theirs in zip(factors, read, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # they were float16 values


def test_rounding_has_no_dead_zone() -> None:
    core = np.array([0.4, 0.6, -0.6, -0.4, 1.4, 1.6], dtype=np.float32)
    assert coding.quantise(core, 1.0).tolist() == [0, 1, -1, 0, 1, 2]


def test_tucker_f32_is_exact() -> None:
    core, factors = _core(), _factors(SIZES, RANKS)
    coded = coding.encode(core, factors, codec="tucker-f32")
    assert len(coded.data) == 4 * (core.size + sum(factor.size for factor in factors))
    decoded, read = coding.decode(coded)
    np.testing.assert_array_equal(decoded, core)
    for ours, theirs in zip(factors, read, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_bytes_fall_with_the_step() -> None:
    core, factors = _core((24, 4, 3, 2, 2)), _factors(SIZES, RANKS)
    sizes = [len(coding.encode(core, factors, codec="hosvd-lzma", step=step).data) for step in (0.125, 0.5, 2.0, 8.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 3


@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=5, max_dims=5, max_side=4),
        elements=st.one_of(st.integers(-3, 3), st.integers(-(2**31) + 1, 2**31 - 1)),
    )
)
@settings(max_examples=80, deadline=None)
def test_integers_round_trip_including_extremes(values: np.ndarray) -> None:
    data = coding._encode_integers(values)
    np.testing.assert_array_equal(coding._decode_integers(data, values.shape), values)


def test_golden_bytes() -> None:
    """The bitstream of format 1: what an old release holds must decode for ever."""
    values = (np.arange(2 * 3 * 2 * 2 * 2).reshape(2, 3, 2, 2, 2) % 7 - 3).astype(np.int32)
    golden = bytes.fromhex(GOLDEN)
    np.testing.assert_array_equal(coding._decode_integers(golden, values.shape), values)


GOLDEN = "01e0002f00130000027ffca2351c2e103f04f0a19b5dc38519100000"


def test_ladder_round_trip() -> None:
    core, factors = _core(), _factors(SIZES, RANKS)
    rungs = [coding.encode(core[:n], factors, codec="hosvd-lzma", step=s) for n, s in [(5, 0.5), (5, 1.1), (2, 2.0)]]
    data, table = coding.pack_ladder(rungs)
    assert coding.unpack_ladder(data, table) == rungs
    assert coding.middle_rung(rungs) == rungs[1]
    with pytest.raises(ValueError, match="adds up to"):
        coding.unpack_ladder(data[:-1], table)


@pytest.mark.parametrize("codec", coding.CODECS)
def test_cut_and_damaged_bytes_are_refused(codec: str) -> None:
    coded = coding.encode(_core(), _factors(SIZES, RANKS), codec=codec, step=0.5 if codec == "hosvd-lzma" else 0.0)
    for length in (0, 1, len(coded.data) // 2, len(coded.data) - 8):
        with pytest.raises(ValueError, match=r"B|damaged"):
            coding.decode(replace(coded, data=coded.data[:length]))


def test_a_coder_that_claims_too_little_is_refused() -> None:
    coded = coding.encode(np.zeros((64, 4, 3, 2, 2)), _factors(SIZES, RANKS), codec="hosvd-lzma", step=1.0)
    with pytest.raises(ValueError, match="its shape"):
        coding.decode(replace(coded, num_clips=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "pickle"}, "unknown codec 'pickle'"),
        ({"num_clips": 0}, "N ≥ 1"),
        ({"ranks": (5, 3, 2, 2)}, "not within"),
        ({"step": 0.0}, "positive"),
    ],
    ids=["codec", "clips", "ranks", "step"],
)
def test_a_coded_class_checks_itself(changes: dict[str, object], message: str) -> None:
    coded = coding.encode(_core(), _factors(SIZES, RANKS), codec="hosvd-lzma", step=0.5)
    with pytest.raises(ValueError, match=message):
        replace(coded, **changes)


def test_quantise_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="positive"):
        coding.quantise(_core(), 0.0)
    with pytest.raises(ValueError, match="larger step"):
        coding.quantise(np.array([1e6]), 1e-9)

"""Integers come back as they went in, cost what information theory says, and damaged bytes do no harm."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lvdd_assets.distill import coefficient_coding as coding

INT32 = st.integers(-(2**31), 2**31 - 1)
ARRAYS = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=5, max_dims=5, max_side=4),
    elements=st.one_of(st.integers(-2, 2), st.integers(-300, 300), INT32),
)
SIZES = st.integers(1, 5)


def _structured(shape: tuple[int, ...] = (24, 8, 4, 8, 8), *, scale: float = 8.0, seed: int = 0) -> np.ndarray:
    """Laplacian integers whose scale falls away from position 0, as coefficients of a transform do."""
    indices = np.indices(shape[1:]).sum(0)
    laplace = np.random.default_rng(seed).laplace(size=shape)
    return np.rint(laplace * scale / (1 + indices) ** 2).astype(np.int32)


def _entropy_bytes(values: np.ndarray) -> float:
    """Zero-order entropy of all values together."""
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


@given(ARRAYS)
@example(np.full((2, 1, 1, 1, 1), -(2**31), dtype=np.int32))
@example(np.array([-(2**31), 2**31 - 1, 2**31 - 1], dtype=np.int32).reshape(3, 1, 1, 1, 1))
@settings(max_examples=150, deadline=None)
def test_round_trip(values: np.ndarray) -> None:
    decoded = coding.decode(coding.encode(values), values.shape)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, values)


@given(st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES), st.floats(0.01, 1e5), st.booleans(), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_round_trip_of_coefficients(shape: tuple[int, ...], scale: float, still: bool, seed: int) -> None:
    values = _structured(shape, scale=scale, seed=seed)
    values = values + _structured((1, *shape[1:]), scale=9 * scale, seed=seed) if still else values
    np.testing.assert_array_equal(coding.decode(coding.encode(values), shape), values)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64], ids=str)
def test_round_trip_of_other_integer_types_and_strides(dtype: type) -> None:
    values = np.abs(_structured()).astype(dtype)[::2, :, :, ::-1]
    np.testing.assert_array_equal(coding.decode(coding.encode(values), values.shape), values)


def test_a_shell_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What bounds memory for many clips changes no integer, and blocks of contexts no byte either."""
    values = _structured((50, 3, 2, 3, 3))
    expected = coding.encode(values)
    monkeypatch.setattr(coding, "_BLOCK", 1)
    assert coding.encode(values) == expected
    monkeypatch.setattr(coding, "_PART", 64)
    np.testing.assert_array_equal(coding.decode(coding.encode(values), values.shape), values)


def _golden_values() -> np.ndarray:
    """Zeros, signs, a background, split bits and escapes, without any random generator."""
    index = np.arange(3 * 2 * 2 * 3 * 3).reshape(3, 2, 2, 3, 3)
    small = index * index % 7 - 3
    small[small == -3] = 0
    background = np.zeros((2, 2, 3, 3), dtype=np.int64)
    background[0, 0, 0, 0], background[0, 1, 0, 0], background[1, 0, 1, 1] = 1000, -70, 2**31 - 5
    return (small + background).astype(np.int32)


def test_golden_bytes() -> None:
    """What a release holds must decode for ever, and every machine writes the same."""
    values = _golden_values()
    golden = bytes.fromhex(GOLDEN)
    np.testing.assert_array_equal(coding.decode(golden, values.shape), values)
    assert coding.encode(values) == golden


GOLDEN = (
    "ffd78769745fa7c300000000088c5fed2265583ab00000000000001d21eaf703a7efe3089dc2fd015ca6c9cde279845ebaa1"
    "5b8790dbb32195a464120a854276a150a81c"
)


@pytest.mark.parametrize(("bits", "extra"), [(1, 0.4), (4, 0.6), (8, 0.6), (11, 1.5), (16, 6), (31, 6)])
def test_noise_is_hardly_longer_than_raw(bits: int, extra: float) -> None:
    """Uniform numbers fit no geometric distribution, and above the levels each pays for its length too."""
    generator = np.random.default_rng(bits)
    values = generator.integers(-(2**bits), 2**bits, size=(16, 4, 4, 8, 8), dtype=np.int64).astype(np.int32)
    assert len(coding.encode(values)) * 8 <= values.size * (bits + 1 + extra)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 30.0])
def test_independent_values_cost_their_entropy(scale: float) -> None:
    values = np.rint(np.random.default_rng(0).laplace(size=(64, 8, 4, 8, 8)) * scale).astype(np.int32)
    assert len(coding.encode(values)) <= 1.03 * _entropy_bytes(values)


@pytest.mark.parametrize("scale", [2.0, 8.0, 40.0])
def test_structure_costs_less_than_entropy(scale: float) -> None:
    values = _structured(scale=scale)
    assert len(coding.encode(values)) < 0.9 * _entropy_bytes(values)


def test_a_background_is_paid_for_once() -> None:
    background = np.random.default_rng(1).integers(-50, 51, size=(1, 4, 3, 6, 6), dtype=np.int32)
    moving = _structured((12, 4, 3, 6, 6), scale=20)
    alone, one = len(coding.encode(moving)), len(coding.encode(background))
    assert len(coding.encode(moving + background)) < 1.25 * (alone + one)


def test_coarser_steps_cost_less() -> None:
    core = np.random.default_rng(2).laplace(size=(14, 4, 3, 6, 6)) * 5
    sizes = [len(coding.encode(np.rint(core / step).astype(np.int32))) for step in (0.25, 0.5, 1, 2, 4, 8, 16, 64)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 100 < 1000 < sizes[0]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (14, 8, 4, 8, 8), (400, 8, 4, 14, 14)], ids=str)
def test_zeros_are_tiny(shape: tuple[int, ...]) -> None:
    data = coding.encode(np.zeros(shape, dtype=np.int8))
    assert len(data) <= 1 + math.prod(shape) / 16_000
    assert not coding.decode(data, shape).any()


def test_no_byte_announces_more_than_the_bound() -> None:
    values = np.zeros((4096, 4, 4, 8, 8), dtype=np.int8)
    data = coding.encode(values)
    assert len(data) * coding.MOST_SYMBOLS_PER_BYTE >= values.size
    assert not coding.decode(data, values.shape).any()
    # The coder itself stays within the bound that the padding of its bytes enforces.
    least_bits = -math.log2(1 - (coding._NUM_SYMBOLS - 1) / coding._MOST)
    assert 8 / least_bits < coding.MOST_SYMBOLS_PER_BYTE


def test_a_lie_about_the_shape_is_refused_before_memory_is_taken() -> None:
    data = coding.encode(np.zeros((2, 2, 2, 2, 2), dtype=np.int32)).ljust(10, b"\x00")
    for shape in ((10**8, 10, 10, 10, 10), (1, 4096, 4096, 4096, 4096), (10**12, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match=r"10 B cannot hold"):
            coding.decode(data, shape)
    enough = bytes(1 << 15)  # for any number of coefficients below
    for shape, message in (
        ((1, 10**6, 1, 1, 1), "the longest is 1024"),
        ((1, 1, 32, 512, 512), "the largest product 4194304"),
        ((1 << 17, 2, 4, 16, 32), "at most 268435456 coefficients, keep fewer clips"),
    ):
        with pytest.raises(ValueError, match=message):
            coding.decode(enough, shape)


@given(st.binary(max_size=60), st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_integers_or_an_error(data: bytes, shape: tuple[int, ...]) -> None:
    try:
        decoded = coding.decode(data, shape)
    except ValueError:
        return
    assert decoded.shape == shape
    assert decoded.dtype == np.int32


REAL = coding.encode(_structured())


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255), st.integers(0, len(REAL)))
@settings(max_examples=60, deadline=None)
def test_cut_and_flipped_bytes_are_integers_or_an_error(place: int, byte: int, end: int) -> None:
    damaged = REAL[:place] + bytes([byte]) + REAL[place + 1 :]
    for data in (damaged, REAL[:end], damaged[:end]):
        try:
            assert coding.decode(data, _structured().shape).dtype == np.int32
        except ValueError as error:
            assert "damaged" in str(error)  # noqa: PT017


@given(hnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(0, coding.NUM_LEVELS - 1)), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_probabilities_are_positive_integers_within_bounds(levels: np.ndarray, seed: int) -> None:
    """Integers below 2²⁴ and their sums are exact in float32, which constriction takes."""
    distributions = coding._Distributions()
    for repeat in (1, 40):
        many = np.tile(levels, repeat)
        symbols = np.random.default_rng(seed).integers(0, coding._NUM_SYMBOLS, size=len(many)).astype(np.int32)
        for _ in range(4):
            distributions.learn(many, symbols)
            table = distributions.frequencies
            assert table.dtype == np.int64
            assert table.min() >= 1
            assert table.sum(1).max() <= coding._MOST < 2**24
            np.testing.assert_array_equal(distributions.of(many), table[many])


def test_contexts_are_exact_integers() -> None:
    """The largest sum of weighted magnitudes is far below 2⁵³, up to which float64 holds every integer."""
    largest = sum(64 * (of_clip + of_class) for *_, of_clip, of_class in coding._NEIGHBOURS) * coding._LARGEST_CONTEXT
    assert largest + 64 * (coding._FIRST + coding._ELSEWHERE + coding._LEAST) < 2**40
    assert np.array_equal(coding._ENDS, np.rint(coding._ENDS))
    assert np.all(np.diff(coding._ENDS) > 0)


def test_every_neighbour_is_coded_in_an_earlier_pass() -> None:
    done = np.zeros(3 * 4 * 5 * 6 + 1, dtype=bool)
    done[-1] = True  # outside
    for shell in coding._shells((3, 4, 5, 6)):
        assert done[shell.neighbours].all()
        assert not done[shell.positions].any()
        done[shell.positions] = True
    assert done.all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2, 2, 2)), r"expected integers \[N, T, C, h, w\].*\(2, 2, 2, 2\)"),
        (np.zeros((1, 1, 1, 1, 1)), "float64"),
        (np.zeros((0, 1, 1, 1, 1), dtype=np.int32), "not empty"),
        (np.full((1, 1, 1, 1, 1), 2**31), "larger step"),
        (np.zeros((1, 5000, 1, 1, 1), dtype=np.int32), "the longest is 1024"),
    ],
    ids=["axes", "float", "empty", "int64", "long"],
)
def test_encode_refuses(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding.encode(values)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (0, 1, 1, 1, 1), (1, 1, -2, 1, 1)], ids=str)
def test_decode_refuses_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        coding.decode(b"\x00", shape)

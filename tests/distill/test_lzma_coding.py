"""What releases of version 1 and 2 hold is read for ever, and damaged bytes are refused."""

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lvdd_assets.distill import lzma_coding

SIZES, RANKS = (4, 3, 4, 4), (4, 3, 2, 2)
SHAPE = (5, *RANKS)


def _write(values_NTChw: np.ndarray) -> bytes:
    """The integers as version 2 wrote them: signs in the lowest bit, each coefficient's clips side by side, byte planes
    apart."""
    wide = values_NTChw.astype(np.int64)
    folded = np.where(wide >= 0, 2 * wide, -2 * wide - 1)
    width = next(width for width in (1, 2, 4) if int(folded.max(initial=0)) < 2 ** (8 * width))
    by_coefficient = np.ascontiguousarray(np.moveaxis(folded, 0, -1)).astype(f"<u{width}")
    planes = np.ascontiguousarray(by_coefficient.reshape(-1, 1).view(np.uint8).T)
    return bytes([width]) + lzma.compress(planes.tobytes(), format=lzma.FORMAT_RAW, filters=lzma_coding._FILTERS)


def _factors() -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    parts = [
        np.linalg.qr(generator.normal(size=(size, size)))[0][:, :rank] for size, rank in zip(SIZES, RANKS, strict=True)
    ]
    return tuple(part.astype(np.float16) for part in parts)


def _integers() -> np.ndarray:
    return np.rint(np.random.default_rng(1).laplace(size=SHAPE) * 6).astype(np.int32)


def _coded() -> bytes:
    return b"".join(factor.astype("<f2").tobytes() for factor in _factors()) + _write(_integers())


def test_core_and_factors_are_read() -> None:
    core, factors = lzma_coding.decode(_coded(), 5, SIZES, RANKS, 0.25)
    np.testing.assert_array_equal(core, 0.25 * _integers())
    assert core.dtype == np.float32
    for read, written in zip(factors, _factors(), strict=True):
        np.testing.assert_array_equal(read, written)
        assert read.dtype == np.float32


@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=5, max_dims=5, max_side=4),
        elements=st.one_of(st.integers(-3, 3), st.integers(-(2**31) + 1, 2**31 - 1)),
    )
)
@settings(max_examples=60, deadline=None)
def test_integers_are_read_including_extremes(values: np.ndarray) -> None:
    np.testing.assert_array_equal(lzma_coding._decode_integers(_write(values), values.shape), values)


def test_golden_bytes() -> None:
    """The bitstream of format 1: what an old release holds must decode for ever."""
    values = (np.arange(2 * 3 * 2 * 2 * 2).reshape(2, 3, 2, 2, 2) % 7 - 3).astype(np.int32)
    golden = bytes.fromhex(GOLDEN)
    np.testing.assert_array_equal(lzma_coding._decode_integers(golden, values.shape), values)


GOLDEN = "01e0002f00130000027ffca2351c2e103f04f0a19b5dc38519100000"


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 120, -8])
def test_cut_bytes_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"cut or damaged|holds \d+ B"):
        lzma_coding.decode(_coded()[:length], 5, SIZES, RANKS, 1.0)


@given(st.integers(0, len(_coded()) - 1), st.integers(0, 255))
@settings(max_examples=80, deadline=None)
def test_flipped_bytes_are_numbers_or_an_error(place: int, byte: int) -> None:
    data = _coded()[:place] + bytes([byte]) + _coded()[place + 1 :]
    try:
        core, _ = lzma_coding.decode(data, 5, SIZES, RANKS, 1.0)
    except ValueError:
        return
    assert core.shape == SHAPE


def test_an_unknown_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width 3, expected one of"):
        lzma_coding._decode_integers(b"\x03" + _write(_integers())[1:], SHAPE)


@pytest.mark.parametrize("num_clips", [1, 4, 6])
def test_a_shape_that_the_bytes_do_not_have_is_refused(num_clips: int) -> None:
    with pytest.raises(ValueError, match="its shape"):
        lzma_coding.decode(_coded(), num_clips, SIZES, RANKS, 1.0)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = b"\x01" + lzma.compress(bytes(1 << 24), format=lzma.FORMAT_RAW, filters=lzma_coding._FILTERS)
    with pytest.raises(ValueError, match=r"holds 241 B"):
        lzma_coding._decode_integers(bomb, (5, 4, 3, 2, 2))


@pytest.mark.parametrize("ranks", [(5, 3, 2, 2), (0, 3, 2, 2), (4, 3, 2, -1)], ids=str)
def test_ranks_beyond_the_modes_are_refused(ranks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not within the modes' sizes"):
        lzma_coding.decode(_coded(), 5, SIZES, ranks, 1.0)

"""Integers of a transformed class to bytes, and back: adaptive range coding with contexts.

Quantised coefficients are mostly zero, and where they are not is foreseeable: near coefficients that are large in the
same clip, and near positions that are large in the whole class. So each magnitude is coded under one of `NUM_LEVELS`
distributions, chosen by what both sides know already, and each distribution learns as it goes (context modelling with
backward adaptation, as in EBCOT and CABAC, in passes instead of symbol by symbol). What clips have in common, a still
background, is taken out of them and coded once. The range coder is constriction's.

A pass is a shell t + c + y + x = constant, for all clips at once, so that numpy and not Python walks over the
coefficients. Everything that decides a probability is an integer: the same bytes decode to the same integers on every
machine. Signs are bits of their own; beyond what clips have in common they cannot be foreseen.

Legend: N clips; t, c, y, x indices of the transformed latents, P = T·C·h·w positions, S positions of one shell,
K neighbours.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

NUM_LEVELS = 60
# Expected magnitude at which the lowest level ends, as a power of two, and levels from one size to its double.
_LOWEST_OCTAVE, _PER_OCTAVE = -9, 3
# Magnitudes from here on are escaped; low bits are split off before, so that it is rarely needed.
_ESCAPE = 17
_NUM_SYMBOLS = _ESCAPE + 1
# Weight of one coded symbol (its neighbouring levels learn half of it), of all that is known beforehand, and where what
# was learnt is halved. The last bounds what one byte can announce: a symbol costs at least
# −log2(1 − _ESCAPE / _MOST) bits.
_SEEN, _PRIOR, _MOST = 64, 1 << 12, 1 << 16
MOST_SYMBOLS_PER_BYTE = 1 << 15
LONGEST_MODE, MOST_POSITIONS, MOST_COEFFICIENTS = 1 << 10, 1 << 22, 1 << 28
"""Longest mode, most positions of a clip and most coefficients of a class that are coded. A few damaged bytes could
announce any number of them: time is at most some microseconds a coefficient, memory some 250 B a position and 64 B a
coefficient."""

# Contexts as (steps back in t, c, y, x; weight of the clip's own magnitude; weight of the class's mean magnitude),
# weights in 1/1024. Fitted by training/fit_contexts.py, six clips a video, on the training part of the free videos that
# the embedded autoencoders' model cards list (57 files, 4 classes by name).
_NEIGHBOURS = (
    (0, 0, 1, 0, 126, 165),
    (0, 0, 0, 1, 126, 165),
    (0, 1, 0, 0, 58, 10),
    (0, 0, 2, 0, 94, 64),
    (0, 0, 0, 2, 94, 64),
    (0, 0, 1, 1, 24, 7),
    (0, 1, 1, 0, 6, 3),
    (0, 1, 0, 1, 6, 3),
    (1, 0, 0, 0, 29, 10),
)
# Expected magnitude where nothing is known: of position (0, 0), over (1 + t)²; elsewhere, over (1 + t + y + x)²; and
# everywhere.
_FIRST, _ELSEWHERE, _LEAST = 661, 77, 1
_MARGIN_BITS = 6  # that a mean must save beyond its own length
_UNIT = 1 << 16  # of an expected magnitude
_LARGEST_CONTEXT = 1 << 14  # larger magnitudes say no more
_PART = 1 << 15  # coefficients after which distributions learn, or at the end of a shell
_BLOCK = 1 << 19  # values worked on at a time: a few megabytes

_CATEGORICAL = constriction.stream.model.Categorical(perfect=False)
_UNIFORM = constriction.stream.model.Uniform()
_BIT = constriction.stream.model.Uniform(2)
_LENGTH = constriction.stream.model.Uniform(64)  # of an escaped number, in bits; up to 33 occur


def encode(values_NTChw: NDArray[np.integer]) -> bytes:
    """Bytes of integers [N, T, C, h, w] that fit int32; shape and type are not in them."""
    values = np.asarray(values_NTChw)
    if values.ndim != 5 or values.size == 0 or values.dtype.kind not in "iu":
        raise ValueError(f"expected integers [N, T, C, h, w], not empty, got {values.dtype} {values.shape}")
    if values.min() < -(2**31) or values.max() > 2**31 - 1:
        raise ValueError(f"integers from {values.min()} to {values.max()} do not fit int32: choose a larger step")
    check_shape(values.shape)

    own_PN = np.ascontiguousarray(values.reshape(len(values), -1).T, dtype=np.int64)
    common_P1 = _common(own_PN)
    shells, distributions = _shells(values.shape[1:]), _Distributions()
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(int(common_P1.any()), _BIT)
    if common_P1.any():
        _encode_part(coder, common_P1, shells, distributions)
    _encode_part(coder, own_PN - common_P1, shells, distributions)
    return _finish(coder, values.size)


def decode(data: bytes, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The integers, int32 [N, T, C, h, w].

    Raises:
        ValueError: the bytes hold less than the shape announces, or are damaged in a way that can be seen.
    """
    check_bytes(len(data), shape)
    check_shape(shape)

    words = np.frombuffer(data + bytes(-len(data) % 4), dtype=">u4").astype(np.uint32)
    shells, distributions = _shells(tuple(shape[1:])), _Distributions()
    coder = constriction.stream.queue.RangeDecoder(words)
    try:
        has_common = bool(coder.decode(_BIT))
        common_P1 = _decode_part(coder, 1, shells, distributions) if has_common else np.int64(0)
        values_PN = _decode_part(coder, shape[0], shells, distributions) + common_P1
    except AssertionError as error:  # what constriction raises on bytes that no encoder wrote
        raise ValueError(f"coefficients of shape {shape} are damaged: {error}") from error
    if values_PN.min() < -(2**31) or values_PN.max() > 2**31 - 1:
        raise ValueError(f"coefficients of shape {shape} are damaged: values beyond int32")
    return np.ascontiguousarray(values_PN.T, dtype=np.int32).reshape(shape)


def _common(values_PN: NDArray[np.int64]) -> NDArray[np.int64]:
    """What all clips are coded without, [P, 1]: the rounded mean, or 0 where it is not worth its bytes.

    Without it, N magnitudes that were `with_mean` in sum are `without` in sum; as of Laplacian values, that saves
    N · log2(with_mean / without) bits, at least 1.5 · N · (with_mean / without − 1) where little is saved. The mean is
    chosen after the fact, so that it must save more than it costs.
    """
    num_clips = values_PN.shape[1]
    mean = (2 * values_PN.sum(1) + num_clips) // (2 * num_clips)
    with_mean, without = np.abs(values_PN).sum(1), np.abs(values_PN - mean[:, None]).sum(1)
    num_bits = np.frexp(np.abs(mean).astype(np.float64))[1] + _MARGIN_BITS
    is_worth = (3 * num_clips * (with_mean - without) > 2 * num_bits * without) & (without + np.abs(mean) < with_mean)
    return np.where(is_worth, mean, 0)[:, None]


@dataclass(frozen=True)
class _Shell:
    """What one pass codes, [S] positions, and what it looks at.

    Attributes:
        positions: [S], indices into P.
        neighbours: [K, S], indices into P, or P where a neighbour lies outside.
        expected: [S], in 1/_UNIT.
    """

    positions: NDArray[np.intp]
    neighbours: NDArray[np.intp]
    expected: NDArray[np.int64]


@functools.lru_cache(maxsize=2)
def _shells(mode_sizes: tuple[int, ...]) -> list[_Shell]:
    """All passes for the modes T, C, h, w, in the order of coding."""
    _, channels, height, width = mode_sizes
    t, c, y, x = (axis.ravel() for axis in np.indices(mode_sizes))
    neighbours = np.empty((len(_NEIGHBOURS), len(t)), dtype=np.intp)
    for row, (back_t, back_c, back_y, back_x, *_) in zip(neighbours, _NEIGHBOURS, strict=True):
        inside = (t >= back_t) & (c >= back_c) & (y >= back_y) & (x >= back_x)
        back = ((back_t * channels + back_c) * height + back_y) * width + back_x
        row[:] = np.where(inside, np.arange(len(t)) - back, len(t))
    expected = _FIRST * 64 // (1 + t) ** 2 * (y + x == 0) + _ELSEWHERE * 64 // (1 + t + y + x) ** 2 + _LEAST * 64
    order = t + c + y + x
    ends = np.cumsum(np.bincount(order))[:-1]
    shells = np.split(np.argsort(order, kind="stable"), ends)
    return [_Shell(positions, neighbours[:, positions], expected[positions]) for positions in shells]


class _Magnitudes:
    """Magnitudes that both sides know so far, of all clips."""

    # float64 holds all of these integers and their sums exactly, and multiplies matrices of them by BLAS.
    _OF_CLIP, _OF_CLASS = np.array([[64 * row[4], row[5]] for row in _NEIGHBOURS], dtype=np.float64).T

    def __init__(self, num_positions: int, num_clips: int) -> None:
        # Where a neighbour lies outside, the row of zeros behind the last position is read.
        self._own_PN = np.zeros((num_positions + 1, num_clips))
        self._mean_P = np.zeros(num_positions + 1)

    def levels(self, shell: _Shell) -> NDArray[np.intp]:
        """Which distribution holds for each coefficient of a shell: [S · N]."""
        num_neighbours, num_positions = shell.neighbours.shape
        num_clips = self._own_PN.shape[1]
        of_class = self._OF_CLASS @ self._mean_P[shell.neighbours] + shell.expected
        levels_SN = np.empty((num_positions, num_clips), dtype=np.intp)
        block = max(1, _BLOCK // shell.neighbours.size)
        for start in range(0, num_clips, block):
            near_KSN = self._own_PN[:, start : start + block][shell.neighbours]
            own = (self._OF_CLIP @ near_KSN.reshape(num_neighbours, -1)).reshape(num_positions, -1)
            levels_SN[:, start : start + block] = _ENDS.searchsorted(own + of_class[:, None], side="right")
        return levels_SN.ravel()

    def remember(self, shell: _Shell, magnitudes_SN: NDArray[np.int64]) -> None:
        seen = np.minimum(magnitudes_SN, _LARGEST_CONTEXT)
        self._own_PN[shell.positions] = seen
        self._mean_P[shell.positions] = 64 * seen.sum(1) // seen.shape[1]


class _Distributions:
    """One adaptive distribution for each level: frequencies, int64 [NUM_LEVELS, _NUM_SYMBOLS]."""

    def __init__(self) -> None:
        self.frequencies = _PRIORS.copy()

    def of(self, levels: NDArray[np.intp]) -> NDArray[np.float32]:
        """Rows for constriction, which makes fixed-point numbers of them by one sum, one division, products and
        truncations. The frequencies and their sum are exact in float32, and the rest is rounded the same way by every
        machine that keeps IEEE 754."""
        return self.frequencies.astype(np.float32)[levels]

    def learn(self, levels: NDArray[np.intp], symbols: NDArray[np.int32]) -> None:
        """Adapts the distributions to symbols that were coded under them."""
        counts = np.bincount(levels * _NUM_SYMBOLS + symbols, minlength=_PRIORS.size).reshape(_PRIORS.shape)
        table = self.frequencies
        table += _SEEN * counts
        table[1:] += _SEEN // 2 * counts[:-1]
        table[:-1] += _SEEN // 2 * counts[1:]
        while (full := np.flatnonzero(table.sum(1) > _MOST)).size:
            table[full] = (table[full] + 1) >> 1


def _level_ends() -> NDArray[np.float64]:
    """Upper ends of all levels but the last, as expected magnitudes in 1/_UNIT (integers): _PER_OCTAVE to the
    octave."""
    mantissas = (65536, 82570, 104032)  # 2¹⁶, 2¹⁶⅓, 2¹⁶⅔
    ends = [mantissas[k % _PER_OCTAVE] * 2 ** (k // _PER_OCTAVE) >> -_LOWEST_OCTAVE for k in range(NUM_LEVELS - 1)]
    return np.array(ends, dtype=np.float64)


def _priors() -> NDArray[np.int64]:
    """Two-sided geometric distributions of each level's expected magnitude m: P(k) ∝ θᵏ, θ = m / (1 + √(1 + m²))."""
    table = np.zeros((NUM_LEVELS, _NUM_SYMBOLS), dtype=np.int64)
    ends = [int(end) for end in _ENDS]
    for level in range(NUM_LEVELS):
        low, high = ends[max(level - 1, 0)], ends[min(level, NUM_LEVELS - 2)]
        mean = (low + high) // 2 >> int(_SHIFTS[level])
        theta = _UNIT * mean // (_UNIT + math.isqrt(_UNIT**2 + mean**2))
        left, weight = _PRIOR, _PRIOR * (_UNIT - theta) // (_UNIT + theta)
        for k in range(_ESCAPE):
            table[level, k] = max(1, weight)
            left -= weight
            weight = (2 * weight if k == 0 else weight) * theta // _UNIT
        table[level, _ESCAPE] = max(1, left)
    return table


_ENDS = _level_ends()
# Low bits of a magnitude that are split off at a level: none up to an expected magnitude of 2, one up to 4, …
_SHIFTS = np.maximum(0, np.arange(NUM_LEVELS) // _PER_OCTAVE + _LOWEST_OCTAVE)
_PRIORS = _priors()


def _encode_part(coder: Any, values_PN: NDArray[np.int64], shells: list[_Shell], distributions: _Distributions) -> None:
    """Magnitudes shell by shell, then all signs."""
    magnitudes_PN = np.abs(values_PN)
    known = _Magnitudes(*values_PN.shape)
    for shell in shells:
        found_SN = magnitudes_PN[shell.positions]
        levels = known.levels(shell)
        for part in _slices(levels.size):
            _encode_magnitudes(coder, found_SN.ravel()[part], levels[part], distributions)
        known.remember(shell, found_SN)
    negative = (values_PN[values_PN != 0] < 0).astype(np.int32)
    if negative.size:
        coder.encode(negative, _BIT)


def _decode_part(coder: Any, num_clips: int, shells: list[_Shell], distributions: _Distributions) -> NDArray[np.int64]:
    values_PN = np.zeros((sum(len(shell.positions) for shell in shells), num_clips), dtype=np.int64)
    known = _Magnitudes(*values_PN.shape)
    for shell in shells:
        levels = known.levels(shell)
        found = [_decode_magnitudes(coder, levels[part], distributions) for part in _slices(levels.size)]
        found_SN = np.concatenate(found).reshape(-1, num_clips)
        values_PN[shell.positions] = found_SN
        known.remember(shell, found_SN)
    present = values_PN != 0
    if present.any():
        values_PN[present] *= 1 - 2 * coder.decode(_BIT, int(present.sum())).astype(np.int64)
    return values_PN


def _slices(size: int) -> Iterator[slice]:
    """Parts of a shell whose rows of frequencies are few enough; distributions learn after each."""
    return (slice(start, start + _PART) for start in range(0, size, _PART))


def _encode_magnitudes(
    coder: Any, magnitudes: NDArray[np.int64], levels: NDArray[np.intp], distributions: _Distributions
) -> None:
    shifts = _SHIFTS[levels]
    high = magnitudes >> shifts
    symbols = np.minimum(high, _ESCAPE).astype(np.int32)
    coder.encode(symbols, _CATEGORICAL, distributions.of(levels))
    distributions.learn(levels, symbols)
    escaped = high[high >= _ESCAPE] - (_ESCAPE - 1)
    if escaped.size:  # exponential Golomb: the number of bits, then the bits without the first
        lengths = np.frexp(escaped.astype(np.float64))[1].astype(np.int64) - 1
        coder.encode(lengths.astype(np.int32), _LENGTH)
        _encode_bits(coder, escaped - (1 << lengths), lengths)
    if shifts.any():
        _encode_bits(coder, magnitudes & ((1 << shifts) - 1), shifts)


def _decode_magnitudes(coder: Any, levels: NDArray[np.intp], distributions: _Distributions) -> NDArray[np.int64]:
    shifts = _SHIFTS[levels]
    symbols = coder.decode(_CATEGORICAL, distributions.of(levels))
    distributions.learn(levels, symbols)
    magnitudes = symbols.astype(np.int64)
    escaped = np.flatnonzero(symbols == _ESCAPE)
    if escaped.size:
        lengths = coder.decode(_LENGTH, len(escaped)).astype(np.int64)
        if lengths.max() > 33:
            raise ValueError("coefficients are damaged: a magnitude beyond int32")
        magnitudes[escaped] += (1 << lengths) - 1 + _decode_bits(coder, lengths)
    if shifts.any():
        magnitudes = magnitudes << shifts | _decode_bits(coder, shifts)
    return magnitudes


def _encode_bits(coder: Any, values: NDArray[np.int64], num_bits: NDArray[np.int64]) -> None:
    """Values below 2^num_bits as they are, 16 bits at a time; constriction's uniform model takes up to 23."""
    for low in range(0, int(num_bits.max()), 16):
        places = np.flatnonzero(num_bits > low)
        sizes = 1 << np.minimum(num_bits[places] - low, 16)
        coder.encode((values[places] >> low & (sizes - 1)).astype(np.int32), _UNIFORM, sizes.astype(np.int32))


def _decode_bits(coder: Any, num_bits: NDArray[np.int64]) -> NDArray[np.int64]:
    values = np.zeros(len(num_bits), dtype=np.int64)
    for low in range(0, int(num_bits.max()), 16):
        places = np.flatnonzero(num_bits > low)
        sizes = 1 << np.minimum(num_bits[places] - low, 16)
        values[places] |= coder.decode(_UNIFORM, sizes.astype(np.int32)).astype(np.int64) << low
    return values


def check_bytes(num_bytes: int, shape: tuple[int, ...]) -> None:
    """Raises a ValueError where so few bytes cannot hold coefficients [N, T, C, h, w]."""
    if len(shape) != 5 or min(shape) < 1:
        raise ValueError(f"expected five sizes N, T, C, h, w of at least 1, got {shape}")
    count = math.prod(map(int, shape))
    if num_bytes < _least_bytes(count):
        raise ValueError(f"{num_bytes} B cannot hold {count} coefficients of shape {shape}: they are cut or damaged")


def check_shape(shape: tuple[int, ...]) -> None:
    """Raises a ValueError where coefficients [N, T, C, h, w] are more than is coded."""
    modes, num_positions = tuple(map(int, shape[1:])), math.prod(map(int, shape[1:]))
    if max(modes) > LONGEST_MODE or num_positions > MOST_POSITIONS:
        raise ValueError(
            f"modes T, C, h, w of {modes} are not coded, the longest is {LONGEST_MODE}, the largest product "
            f"{MOST_POSITIONS}"
        )
    if int(shape[0]) * num_positions > MOST_COEFFICIENTS:
        raise ValueError(
            f"{shape[0]} clips of modes {modes} are not coded in one piece: expected at most {MOST_COEFFICIENTS} "
            "coefficients, keep fewer clips of the class"
        )


def _least_bytes(count: int) -> int:
    return 1 + count // MOST_SYMBOLS_PER_BYTE


def _finish(coder: Any, count: int) -> bytes:
    """The coder's bytes, most significant first, without zeros at the end, which the decoder fills in; but as many as
    `count` symbols need."""
    words = coder.get_compressed()
    num_words, (low, size) = coder.pos()
    data = words.astype(">u4").tobytes()
    if low + size <= 1 << 64:  # otherwise words before may still change by a carry, and constriction ends it
        # Any number within the last interval will do: the one with the fewest bytes.
        for num_bytes in range(9):
            unit = 1 << 8 * (8 - num_bytes)
            number = (low + unit - 1) // unit * unit
            if number < low + size:
                break
        data = data[: 4 * num_words] + number.to_bytes(8, "big")[:num_bytes]
    return data.rstrip(b"\x00").ljust(_least_bytes(count), b"\x00")

"""Coefficients as releases of version 1 and 2 hold them, `hosvd-lzma`: only read, never written any more.

Factors as float16, then one byte for the width and an LZMA stream of the rounded coefficients. How they are written
today belongs to `coefficient_coding`.
"""

import lzma
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One fixed filter without container, as the writer had it: no header was paid for.
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "lc": 0,
        "lp": 0,
        "pb": 0,
        "dict_size": 1 << 22,
    }
]
_UINT_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}


def decode(
    data: bytes, num_clips: int, mode_sizes: tuple[int, ...], ranks: tuple[int, ...], step: float
) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
    """Core (float32 [N, rT, rC, rh, rw]) and factors (float32 [size, rank]).

    Raises:
        ValueError: the bytes do not hold what shape and ranks announce.
    """
    num_factor_bytes = check(data, mode_sizes, ranks)
    shapes = list(zip(mode_sizes, ranks, strict=True))
    flat, factors, start = np.frombuffer(data[:num_factor_bytes], "<f2"), [], 0
    for size, rank in shapes:
        factors.append(flat[start : start + size * rank].reshape(size, rank).astype(np.float32))
        start += size * rank
    integers = _decode_integers(data[num_factor_bytes:], (num_clips, *ranks))
    return integers.astype(np.float32) * np.float32(step), tuple(factors)


def check(data: bytes, mode_sizes: tuple[int, ...], ranks: tuple[int, ...]) -> int:
    """Bytes of the factors; ValueError where ranks are impossible, or the factors alone take more than there is."""
    if any(not 1 <= rank <= size for rank, size in zip(ranks, mode_sizes, strict=True)):
        raise ValueError(f"ranks {ranks} are not within the modes' sizes {mode_sizes}")
    num_factor_bytes = 2 * sum(size * rank for size, rank in zip(mode_sizes, ranks, strict=True))
    if len(data) <= num_factor_bytes:
        raise ValueError(
            f"a coded class has {len(data)} B, its factors alone take {num_factor_bytes} B: it is cut or damaged"
        )
    return num_factor_bytes


def _decode_integers(data: bytes, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Signs are folded into the lowest bit (0, −1, 1, −2, … → 0, 1, 2, 3, …); byte planes lie apart, each coefficient's
    clips side by side."""
    width = data[0]
    if width not in _UINT_TYPES:
        raise ValueError(
            f"a coded class starts with width {width}, expected one of {sorted(_UINT_TYPES)}: it is damaged"
        )
    count = math.prod(map(int, shape))  # plain integers: an overflow would lift the limit below
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        # One byte more than announced is enough to see a lie; a bomb is never unpacked.
        raw = decompressor.decompress(data[1:], max_length=count * width + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"a coded class is damaged: {error}") from error
    if len(raw) != count * width:
        raise ValueError(f"a coded class holds {len(raw)} B of coefficients, its shape {shape} needs {count * width} B")
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(width, count)
    folded = np.ascontiguousarray(planes.T).view(_UINT_TYPES[width]).reshape(*shape[1:], shape[0]).astype(np.int64)
    values = np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0)).astype(np.int32)

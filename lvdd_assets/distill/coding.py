"""A class's core and factors as bytes, and back.

Two forms. `hosvd-lzma`: coefficients divided by one step, rounded, entropy-coded by LZMA; factors as float16.
`tucker-f32`: core and factors as raw float32, as the paper counts them. Shapes, ranks and step are not in the bytes:
who stores them keeps them beside. Where core and factors come from belongs to `tucker`.
"""

import lzma
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CODECS = ("hosvd-lzma", "tucker-f32")

# One fixed filter without container: the reader knows it, so no header is paid for. pb = 0: symbols are bytes.
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


@dataclass(frozen=True)
class CodedClass:
    """The coded clips of one class.

    Attributes:
        codec: one of `CODECS`.
        num_clips: N.
        mode_sizes: sizes of T, C, h, w.
        ranks: ranks of T, C, h, w.
        step: quantiser step in latent units; 0.0 for `tucker-f32`.
        data: the bytes.
    """

    codec: str
    num_clips: int
    mode_sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    step: float
    data: bytes

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"unknown codec {self.codec!r}; known: {', '.join(CODECS)}")
        if len(self.mode_sizes) != 4 or len(self.ranks) != 4 or self.num_clips < 1:
            raise ValueError(
                f"expected N ≥ 1, four mode sizes and four ranks, got {self.num_clips}, {self.mode_sizes}, {self.ranks}"
            )
        if any(not 1 <= rank <= size for rank, size in zip(self.ranks, self.mode_sizes, strict=True)):
            raise ValueError(f"ranks {self.ranks} are not within the modes' sizes {self.mode_sizes}")
        if (self.codec == "hosvd-lzma") != (self.step > 0):
            raise ValueError(f"codec {self.codec} with step {self.step}: a step belongs to hosvd-lzma, and is positive")


def encode(core: np.ndarray, factors: tuple[np.ndarray, ...], *, codec: str, step: float = 0.0) -> CodedClass:
    """Codes a core [N, rT, rC, rh, rw] and its factors [size, rank]; plain rounding, no dead zone.

    A dead zone costs fewer bytes and more accuracy: it removes the small coefficients that describe motion.
    """
    mode_sizes = tuple(int(factor.shape[0]) for factor in factors)
    if codec == "tucker-f32":
        data = b"".join(np.ascontiguousarray(part, dtype="<f4").tobytes() for part in (core, *factors))
    else:
        data = _encode_factors(factors) + _encode_integers(quantise(core, step))
    return CodedClass(codec, int(core.shape[0]), mode_sizes, tuple(core.shape[1:]), step, data)


def decode(coded: CodedClass) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Core (float32 [N, rT, rC, rh, rw]) and factors (float32 [size, rank]).

    Raises:
        ValueError: the bytes do not hold what shape and ranks announce.
    """
    shapes = list(zip(coded.mode_sizes, coded.ranks, strict=True))
    core_shape = (coded.num_clips, *coded.ranks)
    if coded.codec == "tucker-f32":
        return _decode_float32(coded.data, core_shape, shapes)
    num_factor_bytes = 2 * sum(size * rank for size, rank in shapes)
    if len(coded.data) <= num_factor_bytes:
        raise ValueError(
            f"a coded class has {len(coded.data)} B, its factors alone take {num_factor_bytes} B: it is cut or damaged"
        )
    factors = _split(coded.data[:num_factor_bytes], shapes, "<f2")
    integers = _decode_integers(coded.data[num_factor_bytes:], core_shape)
    return integers.astype(np.float32) * np.float32(coded.step), factors


def pack_ladder(rungs: Sequence[CodedClass]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Several codings of one class as one array of bytes (uint8 [M]) and a table of plain values, one row a rung."""
    table = [
        {
            "codec": rung.codec,
            "clips": rung.num_clips,
            "mode_sizes": list(rung.mode_sizes),
            "ranks": list(rung.ranks),
            "step": rung.step,
            "bytes": len(rung.data),
        }
        for rung in rungs
    ]
    return np.frombuffer(b"".join(rung.data for rung in rungs), dtype=np.uint8), table


def middle_rung(rungs: Sequence[CodedClass]) -> CodedClass:
    """The rung with all clips whose step is nearest to 1, the latents' own scale; the only one where there is no
    choice."""
    full = [rung for rung in rungs if rung.num_clips == rungs[0].num_clips]
    return min(full, key=lambda rung: abs(math.log2(rung.step)) if rung.step else 0.0)


def unpack_ladder(data: np.ndarray, table: Sequence[Mapping[str, Any]]) -> list[CodedClass]:
    """The rungs that `pack_ladder` packed."""
    rungs, start = [], 0
    for row in table:
        end = start + int(row["bytes"])
        sizes, ranks = tuple(row["mode_sizes"]), tuple(row["ranks"])
        rungs.append(CodedClass(row["codec"], row["clips"], sizes, ranks, row["step"], data[start:end].tobytes()))
        start = end
    if start != len(data):
        raise ValueError(f"a ladder's table adds up to {start} B, {len(data)} B are stored")
    return rungs


def quantise(core: np.ndarray, step: float) -> np.ndarray:
    """round(core / step) as int32; the error of each coefficient is at most step / 2.

    Raises:
        ValueError: the step is not positive, or a coefficient does not fit int32.
    """
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    scaled = np.rint(np.asarray(core, dtype=np.float64) / step)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) > 2**31 - 1:
        raise ValueError(
            f"coefficients up to {np.abs(core).max():.3g} do not fit int32 at step {step}: choose a larger step"
        )
    return scaled.astype(np.int32)


def _encode_factors(factors: tuple[np.ndarray, ...]) -> bytes:
    return b"".join(np.ascontiguousarray(factor, dtype="<f2").tobytes() for factor in factors)


def _encode_integers(values: np.ndarray) -> bytes:
    """One byte for the width, then LZMA of the values: each coefficient's clips side by side, byte planes apart.

    Signs are folded into the lowest bit (0, −1, 1, −2, … → 0, 1, 2, 3, …), so that upper planes are zero where values
    are small.
    """
    wide = values.astype(np.int64)
    folded = np.where(wide >= 0, 2 * wide, -2 * wide - 1)
    peak = int(folded.max(initial=0))
    width = next(width for width in _UINT_TYPES if peak < 2 ** (8 * width))
    by_coefficient = np.ascontiguousarray(np.moveaxis(folded, 0, -1)).astype(_UINT_TYPES[width])
    planes = np.ascontiguousarray(by_coefficient.reshape(-1, 1).view(np.uint8).T)
    return bytes([width]) + lzma.compress(planes.tobytes(), format=lzma.FORMAT_RAW, filters=_FILTERS)


def _decode_integers(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    width = data[0]
    if width not in _UINT_TYPES:
        raise ValueError(
            f"a coded class starts with width {width}, expected one of {sorted(_UINT_TYPES)}: it is damaged"
        )
    count = int(np.prod(shape, dtype=np.int64))
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


def _decode_float32(
    data: bytes, core_shape: tuple[int, ...], shapes: list[tuple[int, int]]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    num_core = int(np.prod(core_shape, dtype=np.int64))
    expected = 4 * (num_core + sum(size * rank for size, rank in shapes))
    if len(data) != expected:
        raise ValueError(f"a coded class has {len(data)} B, its shapes need {expected} B: it is cut or damaged")
    core = np.frombuffer(data, "<f4", count=num_core).reshape(core_shape).astype(np.float32)
    return core, _split(data[4 * num_core :], shapes, "<f4")


def _split(data: bytes, shapes: list[tuple[int, int]], dtype: str) -> tuple[np.ndarray, ...]:
    flat = np.frombuffer(data, dtype)
    factors, start = [], 0
    for size, rank in shapes:
        factors.append(flat[start : start + size * rank].reshape(size, rank).astype(np.float32))
        start += size * rank
    return tuple(factors)

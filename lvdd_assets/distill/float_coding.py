"""Float forms of a class as bytes, and back: `tucker-f32` and `svd-f32`, little-endian float32 without a header.

Shapes and ranks are not in the bytes: who stores them keeps them beside, and gives them to the reader, who checks them
against the bytes before anything is allocated. Quantised forms belong to `coding`; where the arrays come from, to
`tucker`.
"""

import math
from collections.abc import Sequence

import numpy as np

TUCKER_F32 = "tucker-f32"
SVD_F32 = "svd-f32"

_MODES = ("T", "C", "h", "w")


def tucker_num_bytes(
    num_clips: int, mode_sizes: Sequence[int], ranks: Sequence[int], *, instance_rank: int | None = None
) -> int:
    """Size of `tucker-f32`: 4 · (rN · Π rank + Σ size · rank), and 4 · N · rN with an instance factor (else rN = N).

    Raises:
        ValueError: a size is below 1, or a rank is not in 1 … its mode's size.
    """
    return 4 * sum(math.prod(shape) for shape in _tucker_shapes(num_clips, mode_sizes, ranks, instance_rank))


def svd_num_bytes(num_clips: int, mode_sizes: Sequence[int], rank: int) -> int:
    """Size of `svd-f32`: 4 · (D + r · (N + D)) with D = T · C · h · w; the mean is stored and counted.

    Raises:
        ValueError: a size is below 1, or the rank is not in 0 … min(N, D).
    """
    return 4 * sum(math.prod(shape) for shape in _svd_shapes(num_clips, mode_sizes, rank))


def encode_tucker(
    core: np.ndarray, factors: Sequence[np.ndarray], *, instance_factor: np.ndarray | None = None
) -> bytes:
    """Core, factors of T, C, h, w and, where there is one, the instance factor, one after the other.

    Args:
        core: float [N, rT, rC, rh, rw], [rN, …] with an instance factor.
        factors: four matrices [mode size, rank].
        instance_factor: [N, rN].

    Raises:
        ValueError: shapes do not belong together, or a value is not finite as float32.
    """
    parts = [core, *factors, *([] if instance_factor is None else [instance_factor])]
    if len(factors) != 4 or core.ndim != 5 or any(part.ndim != 2 for part in parts[1:]):
        raise ValueError(
            f"expected a core of five axes and four matrices, got {core.shape} and "
            f"{[factor.shape for factor in parts[1:]]}"
        )
    num_clips, instance_rank = len(core), None
    if instance_factor is not None:
        num_clips, instance_rank = instance_factor.shape
    shapes = _tucker_shapes(
        num_clips, [factor.shape[0] for factor in factors], [factor.shape[1] for factor in factors], instance_rank
    )
    return _encode(parts, shapes, TUCKER_F32)


def decode_tucker(
    data: bytes,
    *,
    num_clips: int,
    mode_sizes: Sequence[int],
    ranks: Sequence[int],
    instance_rank: int | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray | None]:
    """Core (float32 [N or rN, rT, rC, rh, rw]), factors (float32 [size, rank]) and instance factor ([N, rN] or None).

    Raises:
        ValueError: sizes and ranks are impossible, the bytes are not as many as they need, or a value is not finite.
    """
    core, *matrices = _decode(data, _tucker_shapes(num_clips, mode_sizes, ranks, instance_rank), TUCKER_F32)
    return core, tuple(matrices[:4]), None if instance_rank is None else matrices[4]


def encode_svd(mean: np.ndarray, left: np.ndarray, right: np.ndarray) -> bytes:
    """Mean, left and right, one after the other.

    Args:
        mean: float [T, C, h, w].
        left: float [N, r].
        right: float [r, T · C · h · w].

    Raises:
        ValueError: shapes do not belong together, or a value is not finite as float32.
    """
    if mean.ndim != 4 or left.ndim != 2:
        raise ValueError(f"expected a mean [T, C, h, w] and left [N, r], got {mean.shape} and {left.shape}")
    return _encode([mean, left, right], _svd_shapes(left.shape[0], mean.shape, left.shape[1]), SVD_F32)


def decode_svd(
    data: bytes, *, num_clips: int, mode_sizes: Sequence[int], rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (float32 [T, C, h, w]), left ([N, r]) and right ([r, T · C · h · w]).

    Raises:
        ValueError: sizes and rank are impossible, the bytes are not as many as they need, or a value is not finite.
    """
    mean, left, right = _decode(data, _svd_shapes(num_clips, mode_sizes, rank), SVD_F32)
    return mean, left, right


def _tucker_shapes(
    num_clips: int, mode_sizes: Sequence[int], ranks: Sequence[int], instance_rank: int | None
) -> list[tuple[int, ...]]:
    """Shapes in the order of the bytes; plain integers, so that a lie cannot overflow."""
    num_clips, sizes = _check_sizes(num_clips, mode_sizes)
    if len(ranks) != 4:
        raise ValueError(f"expected four ranks (T, C, h, w), got {list(ranks)}")
    kept = [_check_rank(mode, rank, size) for mode, rank, size in zip(_MODES, ranks, sizes, strict=True)]
    shapes: list[tuple[int, ...]] = list(zip(sizes, kept, strict=True))
    if instance_rank is None:
        return [(num_clips, *kept), *shapes]
    num_kept = _check_rank("N", instance_rank, num_clips)
    return [(num_kept, *kept), *shapes, (num_clips, num_kept)]


def _svd_shapes(num_clips: int, mode_sizes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
    num_clips, sizes = _check_sizes(num_clips, mode_sizes)
    num_values = math.prod(sizes)
    kept = _integer("rank", rank)
    if not 0 <= kept <= min(num_clips, num_values):
        raise ValueError(f"rank {kept} is not in 0 … {min(num_clips, num_values)}, the smaller of N and T · C · h · w")
    return [sizes, (num_clips, kept), (kept, num_values)]


def _check_sizes(num_clips: int, mode_sizes: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    count, sizes = _integer("number of clips", num_clips), tuple(_integer("mode size", size) for size in mode_sizes)
    if len(sizes) != 4 or min(count, *sizes) < 1:
        raise ValueError(f"expected N ≥ 1 and four mode sizes (T, C, h, w) of at least 1, got {count}, {sizes}")
    return count, sizes


def _check_rank(mode: str, rank: int, size: int) -> int:
    kept = _integer("rank", rank)
    if not 1 <= kept <= size:
        raise ValueError(f"rank {kept} of mode {mode} is not in 1 … {size}, the mode's size")
    return kept


def _integer(what: str, value: int) -> int:
    """A plain integer; what a table read from a file holds may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"expected an integer as {what}, got {value!r}: the table beside the bytes is damaged")
    return int(value)


def _encode(parts: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]], codec: str) -> bytes:
    if [part.shape for part in parts] != list(shapes):
        raise ValueError(f"{codec} stores arrays of shapes {list(shapes)}, got {[part.shape for part in parts]}")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused below
        floats = [np.ascontiguousarray(part, dtype="<f4") for part in parts]
    _check_finite(floats, codec)
    return b"".join(part.tobytes() for part in floats)


def _decode(data: bytes, shapes: Sequence[tuple[int, ...]], codec: str) -> list[np.ndarray]:
    expected = 4 * sum(math.prod(shape) for shape in shapes)
    if len(data) != expected:
        raise ValueError(f"{codec} has {len(data)} B, its shapes need {expected} B: it is cut or damaged")
    flat = np.frombuffer(data, "<f4")
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = [
        part.reshape(shape).astype(np.float32) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)
    ]
    _check_finite(parts, codec)
    return parts


def _check_finite(parts: Sequence[np.ndarray], codec: str) -> None:
    bad = sum(int(part.size - np.isfinite(part).sum()) for part in parts)
    if bad:
        raise ValueError(
            f"{codec} holds {bad} values that are not finite as float32: damaged, or made from latents that were"
        )

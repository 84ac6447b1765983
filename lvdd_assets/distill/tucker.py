"""Tucker form of a class's latents: ranks, higher-order SVD, reconstruction; and the truncated SVD it is compared with.

Modes are T (frames), C (latent channels), h, w. The mode of the N clips keeps its rank and gets no factor, so that
clips can be left out one by one, unless a rank is asked for it. How arrays become bytes belongs to `coding` and
`float_coding`.

HOSVD and reconstruction give the same bytes for any number of OpenBLAS's threads while modes are no longer than 64
(beyond, LAPACK divides its work). HOOI, the instance mode and the SVD need one thread for that. Another machine may
differ in the last bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MODES = ("T", "C", "h", "w")
_AXES = (1, 2, 3, 4)

# Values worked on at a time: a chunk and its float64 copy stay in the processor's cache.
_CHUNK_VALUES = 1 << 17

# Multiplications up to which OpenBLAS does a matrix product on one thread.
_ONE_THREAD_PRODUCTS = 1 << 18

_NOT_FINITE = "latents have values that are not finite: look at the autoencoder's weights"


@dataclass(frozen=True)
class TuckerTensor:
    """Core and factors of latents_NTChw.

    Attributes:
        core: float32 [N, rT, rC, rh, rw]; [rN, rT, rC, rh, rw] where there is an instance factor.
        factors: four float32 matrices [mode size, rank] with orthonormal columns, for T, C, h, w.
        instance_factor: float32 [N, rN] with orthonormal columns, or None. With it the clips' coefficients are
            instance_factor ×_N core, and a clip is left out by its row, not by a slice of the core.
    """

    core: np.ndarray
    factors: tuple[np.ndarray, ...]
    instance_factor: np.ndarray | None = None

    def __post_init__(self) -> None:
        ranks = tuple(factor.shape[1] for factor in self.factors)
        if len(self.factors) != 4 or self.core.ndim != 5 or self.core.shape[1:] != ranks:
            raise ValueError(
                f"a core [N, rT, rC, rh, rw] and four factors belong together, got {self.core.shape = }, {ranks = }"
            )
        instance = self.instance_factor
        if instance is not None and (instance.ndim != 2 or instance.shape[1] != self.core.shape[0]):
            raise ValueError(
                f"an instance factor [N, rN] and a core [rN, …] belong together, got {instance.shape = }, "
                f"{self.core.shape = }"
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of T, C, h, w."""
        return tuple(self.core.shape[1:])

    @property
    def num_clips(self) -> int:
        """N."""
        return int(self.core.shape[0] if self.instance_factor is None else self.instance_factor.shape[0])


@dataclass(frozen=True)
class TruncatedSvd:
    """Latents as mean + left · right, each clip flattened.

    Attributes:
        mean: float32 [T, C, h, w], the mean clip.
        left: float32 [N, r], U · S.
        right: float32 [r, T · C · h · w], orthonormal rows.
    """

    mean: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def __post_init__(self) -> None:
        mean, left, right = self.mean, self.left, self.right
        if mean.ndim != 4 or left.ndim != 2 or right.shape != (left.shape[1], mean.size):
            raise ValueError(
                "a mean [T, C, h, w], left [N, r] and right [r, T · C · h · w] belong together, got "
                f"{mean.shape = }, {left.shape = }, {right.shape = }"
            )

    @property
    def rank(self) -> int:
        """r."""
        return int(self.left.shape[1])


def rank_from_ratio(size: int, ratio: float) -> int:
    """Rank of a mode at a rank-compression ratio: max(1, ⌊r · size⌋).

    Raises:
        ValueError: the ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"rank ratio must be in (0, 1], got {ratio}: a rank cannot exceed its mode's size")
    return max(1, int(ratio * size + 1e-9))


def ranks_from_ratio(
    mode_sizes: tuple[int, ...], ratio: float, *, channels: float | None = None
) -> tuple[int, int, int, int]:
    """Ranks of T, C, h, w at a rank-compression ratio on T, h, w.

    Args:
        mode_sizes: of T, C, h, w.
        ratio: r in (0, 1], for T, h, w.
        channels: a ratio of its own for C; by default channels stay full, as in the released code.

    Raises:
        ValueError: a ratio is not in (0, 1].
    """
    frames, num_channels, height, width = mode_sizes
    kept_channels = num_channels if channels is None else rank_from_ratio(num_channels, channels)
    return (
        rank_from_ratio(frames, ratio),
        kept_channels,
        rank_from_ratio(height, ratio),
        rank_from_ratio(width, ratio),
    )


def decompose(
    latents_NTChw: np.ndarray,
    *,
    ranks: tuple[int, ...] | None = None,
    num_iterations: int = 0,
    instance_rank: int | None = None,
) -> TuckerTensor:
    """Higher-order SVD (De Lathauwer et al. 2000), refined by `num_iterations` rounds of HOOI.

    core = latents ×_T U_Tᵀ ×_C U_Cᵀ ×_h U_hᵀ ×_w U_wᵀ, U_m the leading eigenvectors of mode m's Gram matrix, all of the
    latents as they came in. Sequential truncation (Vannieuwenhoven et al. 2012) leaves up to a hundredth less error;
    but here a smaller rank's factor and core are parts of a larger one's, so that error falls with every rank, one
    pass over the clips gives all modes, and memory grows by the core alone. At full ranks the reconstruction is exact
    up to rounding.

    Args:
        latents_NTChw: float [N, T, C, h, w].
        ranks: of T, C, h, w; full by default.
        num_iterations: 0 is the HOSVD; the paper's released code allows 100.
        instance_rank: rank of the mode of the clips, which then gets a factor [N, rank], as in the released code: the
            leading left singular vectors of the core, best for the other four factors. Takes N² float64 of memory.

    Raises:
        ValueError: a rank is below 1 or above its mode's size, or a latent is not finite.
    """
    latents = _check_latents(latents_NTChw)
    sizes = latents.shape[1:]
    wanted = tuple(sizes if ranks is None else ranks)
    if len(wanted) != 4:
        raise ValueError(f"expected four ranks (T, C, h, w), got {wanted}")
    for mode, rank, size in zip(MODES, wanted, sizes, strict=True):
        _check_rank(mode, rank, size)
    if instance_rank is not None:
        _check_rank("N", instance_rank, len(latents))
    grams = _gram_matrices(latents)
    factors = tuple(_leading_eigenvectors(gram, rank) for gram, rank in zip(grams, wanted, strict=True))
    if num_iterations > 0 and np.trace(grams[0]) > 0:  # HOOI divides by the latents' norm
        factors = _iterate(latents, factors, num_iterations)
    core = project(latents, factors)
    if instance_rank is None:
        return TuckerTensor(core, factors)
    unfolded = core.reshape(len(core), -1)
    instance_factor = _leading_eigenvectors(_instance_gram(unfolded), instance_rank)
    return TuckerTensor((instance_factor.T @ unfolded).reshape(instance_rank, *wanted), factors, instance_factor)


def singular_values(latents_NTChw: np.ndarray) -> tuple[np.ndarray, ...]:
    """Singular values of the unfoldings along T, C, h, w, largest first: float64 [size] each, at least 0."""
    grams = _gram_matrices(_check_latents(latents_NTChw))
    return tuple(np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)) for gram in grams)


def project(latents_NTChw: np.ndarray, factors: tuple[np.ndarray, ...]) -> np.ndarray:
    """Coefficients of latents in the factors' basis: float32 [N, rT, rC, rh, rw]."""
    return _multiply(np.asarray(latents_NTChw), factors)


def reconstruct(tucker: TuckerTensor) -> np.ndarray:
    """Latents from core and factors: float32 [N, T, C, h, w]."""
    core = tucker.core
    if tucker.instance_factor is not None:
        # The core has rN clips, the latents N: the small one is multiplied.
        core = (tucker.instance_factor @ core.reshape(len(core), -1)).reshape(-1, *tucker.ranks)
    return _multiply(core, tuple(factor.T for factor in tucker.factors))


def truncated_svd(latents_NTChw: np.ndarray, rank: int) -> TruncatedSvd:
    """The best rank-`rank` form of the clips around their mean (Eckart & Young 1936): the paper's ablation of HOSVD.

    Args:
        latents_NTChw: float [N, T, C, h, w].
        rank: 0 (the mean alone) to min(N − 1, T · C · h · w), all that clips around their mean can have.

    Raises:
        ValueError: the rank is out of range, or a latent is not finite.
    """
    latents = _check_latents(latents_NTChw)
    num_clips, num_values = len(latents), latents[0].size
    limit = min(num_clips - 1, num_values)
    if not 0 <= rank <= limit:
        raise ValueError(
            f"rank {rank} is not in 0 … {limit}, what {num_clips} clips of {num_values} values have around their mean"
        )
    flat = latents.reshape(num_clips, -1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise ValueError(_NOT_FINITE)
    mean = flat.mean(0).astype(np.float32)
    flat -= mean  # as it is stored: its rounding goes into the rest
    left, scales, right = np.linalg.svd(flat, full_matrices=False)
    left, right = left[:, :rank] * scales[:rank], right[:rank]
    signs = _signs(right.T)
    return TruncatedSvd(
        mean.reshape(latents.shape[1:]), (left * signs).astype(np.float32), (right * signs[:, None]).astype(np.float32)
    )


def reconstruct_svd(svd: TruncatedSvd) -> np.ndarray:
    """Latents from mean, left and right: float32 [N, T, C, h, w]."""
    flat = np.asarray(svd.left @ svd.right, dtype=np.float32)
    flat += svd.mean.reshape(-1)
    return flat.reshape(-1, *svd.mean.shape)


def svd_rank_for_bytes(num_clips: int, mode_sizes: tuple[int, ...], num_bytes: int) -> int:
    """Largest rank whose mean, left and right fit `num_bytes` as float32: 4 · (D + r · (N + D)) with D = T · C · h · w.

    Raises:
        ValueError: the mean alone does not fit.
    """
    num_values = int(np.prod(mode_sizes, dtype=np.int64))
    left = num_bytes // 4 - num_values
    if left < 0:
        raise ValueError(f"the mean clip alone takes {4 * num_values} B as float32, {num_bytes} B are allowed")
    return min(left // (num_clips + num_values), num_clips - 1, num_values)


def _check_latents(latents_NTChw: np.ndarray) -> np.ndarray:
    latents = np.asarray(latents_NTChw)
    if latents.ndim != 5 or 0 in latents.shape:
        raise ValueError(f"latents are [N, T, C, h, w] and not empty, got {latents.shape = }")
    return latents


def _check_rank(mode: str, rank: int, size: int) -> None:
    if not 1 <= rank <= size:
        raise ValueError(f"rank {rank} of mode {mode} is not in 1 … {size}, the mode's size")


def _chunks(num_clips: int, values_per_clip: int) -> Iterator[slice]:
    """Slices of clips, cut by the shape alone, so that sums are always taken in the same order."""
    length = max(1, _CHUNK_VALUES // values_per_clip)
    return (slice(start, start + length) for start in range(0, num_clips, length))


def _gram_matrices(latents_NTChw: np.ndarray) -> list[np.ndarray]:
    """X_m X_mᵀ of the unfoldings X_m along T, C, h, w: float64 [size, size] each.

    A Gram matrix squares the singular values; float64 keeps those that float32 latents can have.
    """
    num_clips, *sizes = latents_NTChw.shape
    grams = [np.zeros((size, size)) for size in sizes]
    for part in _chunks(num_clips, latents_NTChw[0].size):
        chunk = latents_NTChw[part].astype(np.float32).astype(np.float64)
        if not np.isfinite(chunk).all():
            raise ValueError(_NOT_FINITE)
        for axis, gram in zip(_AXES, grams, strict=True):
            if len(gram) == 1:  # the vector is 1 whatever the sum, and BLAS sums one row in an order of its threads
                gram += float((chunk * chunk).sum())
                continue
            # One small product a clip: BLAS computes it on one thread, in one order.
            unfolded = np.moveaxis(chunk, axis, 1).reshape(len(chunk), len(gram), -1)
            gram += (unfolded @ unfolded.swapaxes(1, 2)).sum(0)
    return grams


def _instance_gram(core_NR: np.ndarray) -> np.ndarray:
    """X Xᵀ of the clips' coefficients: float64 [N, N], by blocks of columns."""
    num_clips, num_values = core_NR.shape
    gram = np.zeros((num_clips, num_clips))
    for part in _chunks(num_values, num_clips):
        block = core_NR[:, part].astype(np.float64)
        gram += block @ block.T
    return gram


def _leading_eigenvectors(gram: np.ndarray, rank: int) -> np.ndarray:
    """Eigenvectors of the largest eigenvalues, largest first: float32 [size, rank]."""
    _, vectors = np.linalg.eigh(gram)
    factor = vectors[:, ::-1][:, :rank].astype(np.float32)
    return np.ascontiguousarray(factor * _signs(factor))


def _signs(vectors: np.ndarray) -> np.ndarray:
    """Signs that make each column's largest entry positive: a decomposition leaves them open, bytes must not."""
    largest = vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])]
    return np.where(largest < 0, -1, 1).astype(vectors.dtype)


def _iterate(latents_NTChw: np.ndarray, factors: tuple[np.ndarray, ...], num_iterations: int) -> tuple[np.ndarray, ...]:
    """Factors after rounds of HOOI (De Lathauwer et al. 2000b) that start from `factors`."""
    import tensorly  # late: the HOSVD does without it
    from tensorly.decomposition import partial_tucker

    latents = tensorly.tensor(np.asarray(latents_NTChw, dtype=np.float32))
    ranks = [factor.shape[1] for factor in factors]
    start = (project(latents, factors), list(factors))
    (_core, refined), _errors = partial_tucker(
        latents, rank=ranks, modes=list(_AXES), init=start, n_iter_max=num_iterations
    )
    return tuple(np.ascontiguousarray(factor * _signs(factor), dtype=np.float32) for factor in refined)


def _multiply(tensor: np.ndarray, matrices: tuple[np.ndarray, ...]) -> np.ndarray:
    """tensor ×_T A_Tᵀ ×_C A_Cᵀ ×_h A_hᵀ ×_w A_wᵀ for A_m [mode size, new size]: float32, clips stay."""
    sizes, new_sizes = zip(*(matrix.shape for matrix in matrices), strict=True)
    if tensor.ndim != 5 or tensor.shape[1:] != sizes:
        raise ValueError(f"factors for the mode sizes {sizes} do not fit a tensor of {tensor.shape = }")
    result = np.empty((len(tensor), *new_sizes), dtype=np.float32)
    for part in _chunks(len(tensor), max(int(np.prod(sizes)), int(np.prod(new_sizes)))):
        chunk = np.asarray(tensor[part], dtype=np.float32)
        num_clips = len(chunk)
        for matrix in matrices:
            # The first mode is multiplied and comes out last; after four turns the modes stand as before.
            chunk = _product(chunk.reshape(num_clips, matrix.shape[0], -1).swapaxes(1, 2), matrix)
        result[part] = chunk.reshape(num_clips, *new_sizes)
    return result


def _product(stack: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """stack [n, rows, size] @ matrix [size, new size], by rows so few that BLAS keeps to one thread and one order."""
    num_rows, length = stack.shape[1], max(64, _ONE_THREAD_PRODUCTS // matrix.size)
    if num_rows <= length:
        return np.asarray(stack @ matrix)
    result = np.empty((len(stack), num_rows, matrix.shape[1]), dtype=np.float32)
    for start in range(0, num_rows, length):
        np.matmul(stack[:, start : start + length], matrix, out=result[:, start : start + length])
    return result

"""Tucker form of a class's latents: ranks, higher-order SVD, reconstruction.

Modes are T (frames), C (latent channels), h, w; the mode of the N clips keeps its rank and gets no factor, so that
clips can be left out one by one. How core and factors become bytes belongs to `coding`.
"""

from dataclasses import dataclass

import numpy as np
import tensorly
from tensorly.decomposition import partial_tucker

MODES = ("T", "C", "h", "w")
_AXES = (1, 2, 3, 4)


@dataclass(frozen=True)
class TuckerTensor:
    """Core and factors of latents_NTChw.

    Attributes:
        core: float32 [N, rT, rC, rh, rw].
        factors: four float32 matrices [mode size, rank] with orthonormal columns, for T, C, h, w.
    """

    core: np.ndarray
    factors: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        ranks = tuple(factor.shape[1] for factor in self.factors)
        if len(self.factors) != 4 or self.core.ndim != 5 or self.core.shape[1:] != ranks:
            raise ValueError(
                f"a core [N, rT, rC, rh, rw] and four factors belong together, got {self.core.shape = }, {ranks = }"
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of T, C, h, w."""
        return tuple(self.core.shape[1:])


def ranks_from_ratio(mode_sizes: tuple[int, ...], ratio: float) -> tuple[int, ...]:
    """Ranks of T, C, h, w at a rank-compression ratio: max(1, ⌊r · size⌋) on T, h, w; channels stay full (released
    code).

    Raises:
        ValueError: the ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"rank ratio must be in (0, 1], got {ratio}: a rank cannot exceed its mode's size")
    frames, channels, height, width = mode_sizes
    scaled = [max(1, int(ratio * size + 1e-9)) for size in (frames, height, width)]
    return (scaled[0], channels, scaled[1], scaled[2])


def decompose(
    latents_NTChw: np.ndarray, *, ranks: tuple[int, ...] | None = None, num_iterations: int = 0
) -> TuckerTensor:
    """Higher-order SVD (De Lathauwer et al. 2000), refined by `num_iterations` rounds of HOOI.

    core = latents ×_T U_Tᵀ ×_C U_Cᵀ ×_h U_hᵀ ×_w U_wᵀ. At full ranks the reconstruction is exact up to rounding.

    Args:
        latents_NTChw: float [N, T, C, h, w].
        ranks: of T, C, h, w; full by default.
        num_iterations: 0 is the HOSVD; the paper's released code allows 100.

    Raises:
        ValueError: a rank is below 1 or above its mode's size, or a latent is not finite.
    """
    latents = np.asarray(latents_NTChw, dtype=np.float32)
    if latents.ndim != 5 or 0 in latents.shape:
        raise ValueError(f"latents are [N, T, C, h, w] and not empty, got {latents.shape = }")
    if not np.isfinite(latents).all():
        raise ValueError("latents have values that are not finite: look at the autoencoder's weights")
    wanted = latents.shape[1:] if ranks is None else ranks
    if len(wanted) != 4:
        raise ValueError(f"expected four ranks (T, C, h, w), got {wanted}")
    for mode, rank, size in zip(MODES, wanted, latents.shape[1:], strict=True):
        if not 1 <= rank <= size:
            raise ValueError(f"rank {rank} of mode {mode} is not in 1 … {size}, the mode's size")
    (_core, factors), _ = partial_tucker(
        tensorly.tensor(latents), rank=list(wanted), modes=list(_AXES), init="svd", n_iter_max=num_iterations
    )
    # An SVD leaves the sign of each singular vector open; fix it, so that the same input gives the same bytes.
    signs = [
        np.where(factor[np.abs(factor).argmax(0), np.arange(factor.shape[1])] < 0, -1.0, 1.0) for factor in factors
    ]
    fixed = tuple((factor * sign).astype(np.float32) for factor, sign in zip(factors, signs, strict=True))
    return TuckerTensor(project(latents, fixed), fixed)


def project(latents_NTChw: np.ndarray, factors: tuple[np.ndarray, ...]) -> np.ndarray:
    """Coefficients of latents in the factors' basis: float32 [N, rT, rC, rh, rw]."""
    core = tensorly.tenalg.multi_mode_dot(latents_NTChw, list(factors), modes=list(_AXES), transpose=True)
    return np.ascontiguousarray(core, dtype=np.float32)


def reconstruct(tucker: TuckerTensor) -> np.ndarray:
    """Latents from core and factors: float32 [N, T, C, h, w]."""
    latents = tensorly.tenalg.multi_mode_dot(tucker.core, list(tucker.factors), modes=list(_AXES))
    return np.ascontiguousarray(latents, dtype=np.float32)

"""A class's latents as bytes, and back: HOSVD as a transform coder, and the paper's float forms.

`hosvd-range` (recipe tight): latents are turned into an orthonormal basis, divided by one step, rounded and
range-coded. Nothing of the basis is cut off; what does not matter rounds to zero, and zeros cost next to nothing. There
is no dead zone: it removes the small coefficients that describe motion. `tucker-f32` and `svd-f32` (recipe paper and
its ablation) keep a truncated part in float32. `hosvd-lzma` is what releases of version 1 and 2 hold; it is only
read.

The basis of a class is the cheapest of three: its own HOSVD (one byte a rotation), the HOSVD of the whole dataset
(stored once), or cosines in time and space with a channel basis of its own. What cheap means is rate plus distortion.

Legend: N clips, T frames, C channels, h, w of the latents.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill import coefficient_coding, float_coding, lzma_coding, rotations, tucker
from lvdd_assets.distill.tucker import TuckerTensor

CODECS = ("hosvd-range", "tucker-f32", "svd-f32", "hosvd-lzma")
Basis = Literal["own", "shared", "cosine"]
_BASES: tuple[Basis, ...] = ("cosine", "own", "shared")  # the first byte of a coded class is an index into this

# The first temporal component, in effect the mean over time, is quantised finer than the rest. What a trained network
# sees of a clip suffers most from errors that stay for all frames: at equal bytes its features err a sixth less than
# with one step for all (docs/coding.md).
_FIRST_STEP = 0.6
# Squared error that one bit is worth, in squared steps: the slope of rate against distortion of this coder, measured on
# latents of several autoencoders at steps of 1 to 2 (at high rate, theory has 0.12).
_BIT_IN_SQUARED_STEPS = 0.07


TRIAL_STEPS = tuple(2.0 ** (half / 2) for half in range(-6, 5))
"""Steps at which a class is coded on trial, two to the octave: enough to foresee its bytes at any step between."""


@dataclass(frozen=True)
class CodedClass:
    """The coded clips of one class.

    Attributes:
        codec: one of `CODECS`.
        num_clips: N.
        mode_sizes: sizes of T, C, h, w.
        ranks: `tucker-f32`, `hosvd-lzma`: ranks of T, C, h, w, and then of the mode of the clips where it has a factor;
            `svd-f32`: its rank; empty for `hosvd-range`, which keeps all.
        step: quantiser step in latent units, of all temporal components but the first, which has a finer one; 0.0 for
            the float forms.
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
        if len(self.mode_sizes) != 4 or min(self.num_clips, *self.mode_sizes) < 1:
            raise ValueError(f"expected N ≥ 1 and four mode sizes, got {self.num_clips}, {self.mode_sizes}")
        expected = {"hosvd-range": (0,), "tucker-f32": (4, 5), "svd-f32": (1,), "hosvd-lzma": (4,)}[self.codec]
        if len(self.ranks) not in expected:
            raise ValueError(f"codec {self.codec} with ranks {self.ranks}: expected {expected[0]} of them")
        if self.codec.startswith("hosvd") != (0 < self.step < math.inf):
            raise ValueError(f"codec {self.codec} with step {self.step}: a step belongs to hosvd, and is positive")


@dataclass(frozen=True)
class SharedBasis:
    """A basis of all classes, as it is stored: one byte for each rotation of the modes T, C, h, w."""

    mode_sizes: tuple[int, ...]
    angles: bytes

    def __post_init__(self) -> None:
        coefficient_coding.check_shape((1, *self.mode_sizes))
        expected = sum(map(rotations.num_angles, self.mode_sizes))
        if len(self.angles) != expected:
            raise ValueError(f"a basis of modes {self.mode_sizes} has {expected} angles, got {len(self.angles)}")

    @functools.cached_property
    def factors(self) -> tuple[NDArray[np.float64], ...]:
        """Four orthonormal matrices [size, size]."""
        return _factors_from_angles(self.angles, self.mode_sizes)


def share_basis(grams: Sequence[Sequence[NDArray[np.floating]]]) -> SharedBasis:
    """The HOSVD basis of all clips of all classes, from each class's Gram matrices of its modes.

    Args:
        grams: for each class four matrices [size, size], of T, C, h, w.
    """
    sums = [np.sum([np.asarray(of_class[mode], dtype=np.float64) for of_class in grams], axis=0) for mode in range(4)]
    factors = [np.linalg.eigh(gram)[1][:, ::-1] for gram in sums]
    return SharedBasis(tuple(len(gram) for gram in sums), b"".join(map(rotations.to_angles, factors)))


def gram_matrices(hosvd: TuckerTensor) -> tuple[NDArray[np.float64], ...]:
    """X_m X_mᵀ of the latents' unfoldings along T, C, h, w, float64 [size, size], from their HOSVD at full ranks."""
    grams = []
    for axis, factor in enumerate(hosvd.factors, start=1):
        unfolded = np.moveaxis(hosvd.core, axis, 0).reshape(hosvd.core.shape[axis], -1).astype(np.float64)
        grams.append(factor @ (unfolded @ unfolded.T) @ factor.T)
    return tuple(grams)


class ClassCoder:
    """Codes one class at any step, in the basis that is cheapest there.

    Attributes:
        hosvd: the class's HOSVD at full ranks.
        shared: the dataset's basis, where there is one.
    """

    def __init__(self, hosvd: TuckerTensor, shared: SharedBasis | None = None) -> None:
        self.hosvd, self.shared = hosvd, shared
        self._headers = {basis: self._header(basis) for basis in _BASES if basis != "shared" or shared is not None}
        self._coefficients: dict[Basis, NDArray[np.float32]] = {}

    @property
    def bases(self) -> tuple[Basis, ...]:
        """Which bases there are to choose from."""
        return tuple(self._headers)

    def encode(self, step: float, *, num_clips: int | None = None, basis: Basis | None = None) -> CodedClass:
        """The first `num_clips` clips (all by default) at a step, in a basis or the cheapest one.

        Raises:
            ValueError: the step is not positive, or a coefficient does not fit int32 at it.
        """
        costs = self.costs(step) if basis is None else {basis: 0.0}
        return self._encode(step, num_clips, min(costs, key=costs.__getitem__))[1]

    def costs(self, step: float) -> dict[Basis, float]:
        """What the class costs at a step in each basis: bytes, and squared error in the bytes that would mend it."""
        byte = 8 * _BIT_IN_SQUARED_STEPS
        tried = {basis: self._encode(step, None, basis) for basis in self.bases}
        return {basis: len(coded.data) + error / byte for basis, (error, coded) in tried.items()}

    def _encode(self, step: float, num_clips: int | None, basis: Basis) -> tuple[float, CodedClass]:
        """Squared error in squared steps, and the coded class."""
        core = self._project(basis)[:num_clips]
        steps = _steps(step, core.shape[1])
        integers = quantise(core, steps)
        data = self._headers[basis] + coefficient_coding.encode(integers)
        error = float(((core / steps - integers) ** 2).sum())
        return error, CodedClass("hosvd-range", len(core), tuple(core.shape[1:]), (), step, data)

    def _header(self, basis: Basis) -> bytes:
        factors = self.hosvd.factors
        angles = {
            "own": lambda: b"".join(map(rotations.to_angles, factors)),
            "cosine": lambda: rotations.to_angles(factors[1]),
            "shared": lambda: b"",
        }[basis]()
        return bytes([_BASES.index(basis)]) + angles

    def _project(self, basis: Basis) -> NDArray[np.float32]:
        """Coefficients in a basis as the reader will have it: the HOSVD's core, turned from its factors to those."""
        if basis not in self._coefficients:
            sizes = tuple(self.hosvd.core.shape[1:])
            factors, _ = _read_basis(self._headers[basis], sizes, self.shared)
            turns = tuple(own.T.astype(np.float64) @ new for own, new in zip(self.hosvd.factors, factors, strict=True))
            self._coefficients[basis] = tucker.project(self.hosvd.core, turns)
        return self._coefficients[basis]


def encode_tucker(result: TuckerTensor) -> CodedClass:
    """Core and factors in float32, as the paper counts them; with an instance factor where there is one."""
    sizes = tuple(int(factor.shape[0]) for factor in result.factors)
    ranks = result.ranks if result.instance_factor is None else (*result.ranks, result.core.shape[0])
    data = float_coding.encode_tucker(result.core, result.factors, instance_factor=result.instance_factor)
    return CodedClass("tucker-f32", result.num_clips, sizes, ranks, 0.0, data)


def encode_svd(svd: tucker.TruncatedSvd) -> CodedClass:
    """Mean, left and right in float32: the paper's ablation of HOSVD."""
    data = float_coding.encode_svd(svd.mean, svd.left, svd.right)
    return CodedClass("svd-f32", len(svd.left), tuple(svd.mean.shape), (svd.rank,), 0.0, data)


def decode(coded: CodedClass, shared: SharedBasis | None = None) -> NDArray[np.float32]:
    """Latents, float32 [N, T, C, h, w].

    Args:
        coded: the class.
        shared: the release's shared basis, for classes that are coded in it.

    Raises:
        ValueError: the bytes do not hold what the header announces.
    """
    check(coded, shared)
    with np.errstate(all="ignore"):  # what is damaged may overflow, which is refused below
        latents = _decode(coded, shared)
    if not np.isfinite(latents).all():
        raise ValueError(f"latents of a class coded as {coded.codec} are not finite: its bytes or its step are damaged")
    return latents


def check(coded: CodedClass, shared: SharedBasis | None = None) -> None:
    """All that can be said of a class without decoding it: nothing of the announced size is allocated.

    Raises:
        ValueError: it is larger than any class that is coded, or its bytes cannot hold what the header announces.
    """
    sizes, count, data = coded.mode_sizes, coded.num_clips, coded.data
    if coded.codec == "hosvd-range":
        _, start = _find_basis(data, sizes, shared)
        coefficient_coding.check_bytes(len(data) - start, (count, *sizes))
    elif coded.codec == "hosvd-lzma":
        lzma_coding.check(data, sizes, coded.ranks)
    else:
        expected = (
            float_coding.svd_num_bytes(count, sizes, coded.ranks[0])
            if coded.codec == "svd-f32"
            else float_coding.tucker_num_bytes(count, sizes, coded.ranks[:4], instance_rank=_instance_rank(coded))
        )
        if len(data) != expected:
            raise ValueError(f"{coded.codec} has {len(data)} B, its shapes need {expected} B: it is cut or damaged")
    coefficient_coding.check_shape((count, *sizes))


def _instance_rank(coded: CodedClass) -> int | None:
    return coded.ranks[4] if len(coded.ranks) == 5 else None


def _decode(coded: CodedClass, shared: SharedBasis | None) -> NDArray[np.float32]:
    if coded.codec == "hosvd-range":
        factors, start = _read_basis(coded.data, coded.mode_sizes, shared)
        integers = coefficient_coding.decode(coded.data[start:], (coded.num_clips, *coded.mode_sizes))
        return _turn_back(integers * _steps(coded.step, coded.mode_sizes[0]), factors)
    sizes, count = coded.mode_sizes, coded.num_clips
    if coded.codec == "svd-f32":
        mean, left, right = float_coding.decode_svd(coded.data, num_clips=count, mode_sizes=sizes, rank=coded.ranks[0])
        return tucker.reconstruct_svd(tucker.TruncatedSvd(mean, left, right))
    if coded.codec == "tucker-f32":
        core, matrices, instance_factor = float_coding.decode_tucker(
            coded.data,
            num_clips=count,
            mode_sizes=sizes,
            ranks=coded.ranks[:4],
            instance_rank=_instance_rank(coded),
        )
        return tucker.reconstruct(TuckerTensor(core, matrices, instance_factor))
    core, matrices = lzma_coding.decode(coded.data, count, sizes, coded.ranks, coded.step)
    return tucker.reconstruct(TuckerTensor(core, matrices))


def is_in_shared_basis(coded: CodedClass) -> bool:
    """Whether the class needs the dataset's shared basis to be decoded."""
    return coded.codec == "hosvd-range" and coded.data[:1] == bytes([_BASES.index("shared")])


def quantise(core: NDArray[np.floating], step: float | NDArray[np.float64]) -> NDArray[np.int32]:
    """round(core / step) as int32; the error of each coefficient is at most step / 2.

    Raises:
        ValueError: the step is not positive, or a coefficient does not fit int32.
    """
    if not 0 < np.min(step) <= np.max(step) < math.inf:
        raise ValueError(f"step must be positive, got {step}")
    scaled = np.rint(np.asarray(core, dtype=np.float64) / step)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) > 2**31 - 1:
        raise ValueError(
            f"coefficients up to {np.abs(core).max():.3g} do not fit int32 at step {np.min(step):.3g}: choose a larger "
            "step"
        )
    return scaled.astype(np.int32)


def _steps(step: float, frames: int) -> NDArray[np.float64]:
    """Steps of the temporal components, to be multiplied with [N, T, C, h, w]: [T, 1, 1, 1]."""
    return np.where(np.arange(frames) == 0, _FIRST_STEP * step, step).reshape(-1, 1, 1, 1)


def _find_basis(data: bytes, sizes: tuple[int, ...], shared: SharedBasis | None) -> tuple[Basis, int]:
    """In which basis a class is coded, and where its coefficients begin."""
    if not data or data[0] >= len(_BASES):
        raise ValueError(f"a coded class starts with {data[:1].hex() or 'nothing'}, expected a basis: it is damaged")
    basis = _BASES[data[0]]
    if basis == "shared":
        if shared is None or shared.mode_sizes != sizes:
            raise ValueError(f"a class of modes {sizes} is coded in a shared basis that is not there")
        return basis, 1
    end = 1 + sum(map(rotations.num_angles, (sizes[1],) if basis == "cosine" else sizes))
    if len(data) < end:
        raise ValueError(f"a coded class has {len(data)} B, its basis alone takes {end} B: it is cut or damaged")
    return basis, end


def _read_basis(
    data: bytes, sizes: tuple[int, ...], shared: SharedBasis | None
) -> tuple[tuple[NDArray[np.float64], ...], int]:
    """Four factors, and where the coefficients begin."""
    basis, end = _find_basis(data, sizes, shared)
    if basis == "shared":
        assert shared is not None
        return shared.factors, end
    factors = _factors_from_angles(data[1:end], (sizes[1],) if basis == "cosine" else sizes)
    if basis == "cosine":
        cosines = [rotations.cosine_basis(size) for size in sizes]
        factors = (cosines[0], factors[0], cosines[2], cosines[3])
    return factors, end


def _factors_from_angles(angles: bytes, sizes: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    ends = np.cumsum([rotations.num_angles(size) for size in sizes])
    starts = [0, *ends[:-1]]
    return tuple(
        rotations.from_angles(angles[start:end], size) for start, end, size in zip(starts, ends, sizes, strict=True)
    )


def _turn_back(core: NDArray[np.float64], factors: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Latents from coefficients, in float64 and rounded once at the end, so that machines agree."""
    latents = core
    for axis, factor in enumerate(factors, start=1):
        latents = np.moveaxis(np.tensordot(latents, factor, axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(latents, dtype=np.float32)

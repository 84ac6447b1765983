"""Features of a class's clips, by which they are compared: latents flattened, pooled or projected, and the distances
between them.

N clips, T frames, C channels, h, w latent height and width, D feature dimensions. What is made of the distances
belongs to `kernels` and `coresets`. Nothing here holds an N×N matrix unless it is asked for N×N distances.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

FEATURES = ("flat", "pooled", "projected")

# Up to this size features are held in float64; larger ones stay as they are stored and are converted by blocks.
_MAX_DOUBLE_BYTES = 2**28
_BLOCK_BYTES = 2**25

# |x − y|² from |x|² + |y|² − 2x·y is rounding below this share of |x|² + |y|².
_SAME = 1e-12

# Values that differ by less than this share of the scale are tied: rounding differs between machines.
_TIE = 1e-9


@dataclass(frozen=True)
class Features:
    """Points of N clips; every product and distance of them is in float64.

    Attributes:
        values_ND: float16, float32 or float64 [N, D], finite.
        squares_N: squared norms, float64 [N].
    """

    values_ND: np.ndarray
    squares_N: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.values_ND)
        if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] == 0:
            raise ValueError(f"features are [N, D] with N ≥ 1 and D ≥ 1, got {values.shape = }")
        if values.dtype.kind != "f" or values.size * 8 <= _MAX_DOUBLE_BYTES:
            values = values.astype(np.float64, copy=False)
        object.__setattr__(self, "values_ND", values)
        squares = np.concatenate([np.einsum("nd,nd->n", block, block) for block in self._blocks()])
        if not np.isfinite(squares).all():
            raise ValueError("features have values that are not finite: look for NaN in the latents")
        object.__setattr__(self, "squares_N", squares)

    @property
    def num_items(self) -> int:
        """N."""
        return int(self.values_ND.shape[0])

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.values_ND.shape[1])

    def _blocks(self) -> Iterator[np.ndarray]:
        step = max(1, _BLOCK_BYTES // (8 * self.values_ND.shape[1]))
        for start in range(0, len(self.values_ND), step):
            yield self.values_ND[start : start + step].astype(np.float64, copy=False)

    def mean(self) -> np.ndarray:
        """Mean of all items, float64 [D]."""
        return np.sum([block.sum(0) for block in self._blocks()], axis=0) / self.num_items

    def deviation(self) -> np.ndarray:
        """Standard deviation of each dimension, float64 [D]."""
        mean = self.mean()
        return np.sqrt(np.sum([((block - mean) ** 2).sum(0) for block in self._blocks()], axis=0) / self.num_items)

    def subset(self, items: np.ndarray) -> "Features":
        """The items' features in that order."""
        return Features(self.values_ND[np.asarray(items, dtype=np.int64)])

    def standardised(self) -> "Features":
        """Each dimension with mean 0 and deviation 1 over the items; dimensions that do not vary are 0."""
        mean, deviation = self.mean(), self.deviation()
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12 * np.abs(mean))
        kept = np.float64 if self.values_ND.size * 8 <= _MAX_DOUBLE_BYTES else np.float32
        return Features(np.concatenate([((block - mean) * scale).astype(kept) for block in self._blocks()]))

    def dots(self, others: "Features") -> np.ndarray:
        """Scalar products with M others, float64 [N, M]."""
        right = others.values_ND.astype(np.float64, copy=False).T
        return np.concatenate([block @ right for block in self._blocks()])

    def squared_distances(self, others: "Features") -> np.ndarray:
        """|x − y|² to M others, float64 [N, M]; exactly 0 where they are equal.

        Points nearer than a millionth of their norm count as equal: float64 cannot tell.
        """
        squares = self.dots(others)
        squares *= -2.0
        scale = self.squares_N[:, None] + others.squares_N
        squares += scale
        squares[squares < _SAME * scale] = 0.0
        return squares


def prepare(latents: np.ndarray, *, kind: str = "flat", dimension: int = 512, seed: int = 0) -> Features:
    """Features of latents.

    `flat` takes every value. `pooled` averages over a grid of time and space, the finest whose dimension does not
    exceed the given one. `projected` multiplies the flattened latents by a Gaussian matrix; squared distances keep
    their size in the mean, with a relative deviation of about √(2 / dimension) (Johnson & Lindenstrauss 1984).

    Args:
        latents: float [N, T, C, h, w]; for `flat` and `projected` any [N, …].
        kind: one of `FEATURES`.
        dimension: D of `projected`, upper bound on D of `pooled`.
        seed: of the Gaussian matrix.

    Raises:
        ValueError: unknown kind, or a dimension that the latents cannot give. The message has both numbers.
    """
    latents = np.asarray(latents)
    if latents.ndim < 2 or latents.size == 0:
        raise ValueError(f"latents are [N, …] with N ≥ 1, got {latents.shape = }")
    if kind not in FEATURES:
        raise ValueError(f"unknown features {kind!r}; known: {', '.join(FEATURES)}")
    if kind == "pooled":
        return _pool(latents, dimension)
    flat = Features(latents.reshape(len(latents), -1))
    return flat if kind == "flat" else _project(flat, dimension, seed)


def _project(flat: Features, dimension: int, seed: int) -> Features:
    if not 1 <= dimension < flat.dimension:
        raise ValueError(
            f"features: projected to {dimension} dimensions, the latents have {flat.dimension}: "
            f"ask for 1 to {flat.dimension - 1}, or use features: flat"
        )
    # RandomState, not Generator: numpy promises that its normal deviates stay the same in every later version.
    matrix = np.random.RandomState(seed % 2**32).standard_normal((dimension, flat.dimension)) / np.sqrt(dimension)
    return Features(flat.dots(Features(matrix)))


def _pool(latents_NTChw: np.ndarray, dimension: int) -> Features:
    if latents_NTChw.ndim != 5:
        raise ValueError(f"features: pooled needs latents [N, T, C, h, w], got {latents_NTChw.shape = }")
    _, frames, channels, height, width = latents_NTChw.shape
    if dimension < channels:
        raise ValueError(
            f"features: pooled to {dimension} dimensions, the latents have {channels} channels: ask for {channels} or "
            "more, or use features: projected"
        )
    grid = pooling_grid(frames, height, width, dimension // channels)
    time, rows, columns = (_averages(size, parts) for size, parts in zip((frames, height, width), grid, strict=True))
    step = max(1, _BLOCK_BYTES // (8 * frames * channels * height * width))
    pooled = [
        np.einsum("ntchw,at,bh,dw->nacbd", block.astype(np.float64), time, rows, columns, optimize=True)
        for block in (latents_NTChw[start : start + step] for start in range(0, len(latents_NTChw), step))
    ]
    return Features(np.concatenate(pooled).reshape(len(latents_NTChw), -1))


def pooling_grid(frames: int, height: int, width: int, max_cells: int) -> tuple[int, int, int]:
    """The finest grid over time, height and width with at most so many cells; of equally fine ones that with more
    steps in time, since a class is made of motion. Space keeps its proportions."""
    best = (1, 1, 1)
    for time in range(1, frames + 1):
        for rows in range(1, height + 1):
            columns = max(1, round(rows * width / height))
            cells = time * rows * columns
            if cells <= max_cells and (cells, time) > (best[0] * best[1] * best[2], best[0]):
                best = (time, rows, columns)
    return best


def _averages(size: int, parts: int) -> np.ndarray:
    """Matrix [parts, size] that averages over windows which cover `size`, as adaptive pooling does."""
    matrix = np.zeros((parts, size))
    for part in range(parts):
        start, stop = part * size // parts, -((part + 1) * size // -parts)
        matrix[part, start:stop] = 1.0 / (stop - start)
    return matrix


def first_largest(values: np.ndarray, scale: float) -> int:
    """Index of the largest value; among those that rounding cannot tell apart, the first one.

    Args:
        values: float [N]; −inf where an item is out of question.
        scale: size of the values, to which a tie is relative.
    """
    return int(np.flatnonzero(values >= values.max() - _TIE * scale)[0])

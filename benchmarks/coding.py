"""Coding coefficients: bytes and speed beside LZMA, zstd and PCodec, and what an embedded stream would cost.

    OMP_NUM_THREADS=1 python benchmarks/coding.py [--dataset NAME | --latents FILE.npz] [--repeats 3]

Latents are the demo generator's clips through the autoencoder that ships; or the train clips of a dataset of the
benchmarks' registry, as the pipeline stores them; or an array of a file ([N, T, C, h, w], with an array of labels [N]).
Each class is turned into its HOSVD basis, divided by a step and rounded. The first tables code the same integers by
every coder; LZMA as releases of version 2 had it (byte planes, the clips of a coefficient side by side, which zstd gets
too). The entropy is of the single integer, for each class, its table for nothing. Seconds are processor time, the best
of the repeats.

The last table asks what a release would lose if one stream of layers were cut to its allowance, instead of coding
again at the release's own step. Layers are (i) bit planes: the quantiser of each has a dead zone of twice its step; or
(ii) trit planes, which nest plain rounding: steps s, s/3, s/9. Rates are those of ideal adaptive coders (Krichevsky and
Trofimov) under the contexts of coefficient_coding, for direct coding and for layers. A layer also looks at the
coefficient itself and at neighbours on all sides in the layer before. Half-way between two layers, in bits, either the
shells that come first are refined (then every earlier neighbour is known as finely as the context takes it, and a coder
can do just that), or what gains most for a bit (a bound: its contexts know more than a reader would). Every quantiser
has its best point of reconstruction. SNR is of the latents; loss is against direct coding at the same bytes.
"""

import argparse
import importlib.metadata
import lzma
import os
import time
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import pcodec
from pcodec import standalone
from registered import class_latents
from scipy.special import gammaln
from threadpoolctl import threadpool_limits

from lvdd_assets.distill import coefficient_coding, lzma_coding, tucker
from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.vae import load_autoencoder

STEPS = (0.5, 1.0, 1.5, 2.0, 4.0)
FINEST, LAYERS = 0.5, {"bit planes, dead zone": (2, 4), "trit planes, plain rounding": (3, 3)}  # ratio, number
Coder = tuple[Callable[[np.ndarray], bytes], Callable[[bytes, tuple[int, ...]], np.ndarray]]


def demo_classes(num_clips: int = 14) -> list[np.ndarray]:
    """Latents of the demo's motions, [N, T, C, h, w] each."""
    autoencoder = load_autoencoder("embedded-2d", base=None)
    clips = [np.stack([render_clip(motion, seed=i)[:8] for i in range(num_clips)]) for motion in MOTIONS]
    return [autoencoder.encode(np.ascontiguousarray(of_class.transpose(0, 1, 4, 2, 3))) for of_class in clips]


def file_classes(path: Path, latents_name: str, labels_name: str) -> list[np.ndarray]:
    with np.load(path) as arrays:
        latents, labels = arrays[latents_name].astype(np.float32), arrays[labels_name]
    return [latents[labels == label] for label in np.unique(labels)]


def _folded(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Signs in the lowest bit, each coefficient's clips side by side: bytes by planes, and their number."""
    wide = np.moveaxis(values, 0, -1).astype(np.int64)
    folded = np.where(wide >= 0, 2 * wide, -2 * wide - 1)
    width = next(width for width in (1, 2, 4) if int(folded.max(initial=0)) < 2 ** (8 * width))
    return np.ascontiguousarray(folded.astype(f"<u{width}").reshape(-1, 1).view(np.uint8).T), width


def _unfolded(planes: np.ndarray, width: int, shape: tuple[int, ...]) -> np.ndarray:
    by_value = np.ascontiguousarray(planes.reshape(width, -1).T).view(f"<u{width}")
    folded = by_value.reshape(*shape[1:], shape[0]).astype(np.int64)
    return np.moveaxis(np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2), -1, 0)


def _lzma_encode(values: np.ndarray) -> bytes:
    planes, width = _folded(values)
    return bytes([width]) + lzma.compress(planes.tobytes(), format=lzma.FORMAT_RAW, filters=lzma_coding._FILTERS)


def _zstd_encode(values: np.ndarray) -> bytes:
    planes, width = _folded(values)
    return bytes([width]) + numcodecs.Zstd(level=22).encode(planes)


def _zstd_decode(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return _unfolded(np.frombuffer(numcodecs.Zstd().decode(data[1:]), np.uint8), data[0], shape)


def _pcodec_encode(values: np.ndarray) -> bytes:
    flat = np.ascontiguousarray(np.moveaxis(values, 0, -1)).reshape(-1)
    return standalone.simple_compress(flat, pcodec.ChunkConfig(compression_level=12))


def _pcodec_decode(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(standalone.simple_decompress(data).reshape(*shape[1:], shape[0]), -1, 0)


CODERS: dict[str, Coder] = {
    "**`coefficient_coding`**": (coefficient_coding.encode, coefficient_coding.decode),
    "LZMA, as version 2": (_lzma_encode, lzma_coding._decode_integers),
    "zstd 22": (_zstd_encode, _zstd_decode),
    "PCodec 12": (_pcodec_encode, _pcodec_decode),
}


def _entropy_bytes(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def measure(coder: Coder, classes: list[np.ndarray], repeats: int) -> tuple[float, float, float]:
    """Bytes a clip, and clips a second of encode and decode."""
    encode, decode = coder
    num_clips = sum(map(len, classes))
    times = np.full((repeats, 2), np.inf)
    for repeat in range(repeats):
        start = time.process_time()
        coded = [encode(values) for values in classes]
        middle = time.process_time()
        decoded = [decode(data, values.shape) for data, values in zip(coded, classes, strict=True)]
        times[repeat] = middle - start, time.process_time() - middle
    for values, read in zip(classes, decoded, strict=True):
        np.testing.assert_array_equal(values, read)
    seconds = times.min(0)
    return sum(map(len, coded)) / num_clips, num_clips / seconds[0], num_clips / seconds[1]


def print_coders(cores: list[np.ndarray], repeats: int) -> None:
    quantised = {step: [np.rint(core / step).astype(np.int32) for core in cores] for step in STEPS}
    num_clips = sum(map(len, cores))
    results = {
        name: [measure(coder, classes, repeats) for classes in quantised.values()] for name, coder in CODERS.items()
    }
    head = " | ".join(f"step {step:g}" for step in STEPS)
    print(f"\nBytes a clip\n\n| | {head} |\n| --- |" + " ---: |" * len(STEPS))
    for name, rows in results.items():
        print(f"| {name} | " + " | ".join(f"{row[0]:.1f}" for row in rows) + " |")
    ideal = [sum(map(_entropy_bytes, classes)) / num_clips for classes in quantised.values()]
    print("| entropy of the single integer | " + " | ".join(f"{size:.1f}" for size in ideal) + " |")
    print(f"\nClips a second, encode / decode\n\n| | {head} |\n| --- |" + " ---: |" * len(STEPS))
    for name, rows in results.items():
        print(f"| {name} | " + " | ".join(f"{row[1]:,.0f} / {row[2]:,.0f}" for row in rows) + " |")


def levels_of(magnitudes: np.ndarray) -> np.ndarray:
    """Contexts of coefficient_coding from all magnitudes [N, T, C, h, w] before each one in its order."""
    num_clips = len(magnitudes)
    shells = coefficient_coding._shells(magnitudes.shape[1:])
    by_position = magnitudes.reshape(num_clips, -1).T.astype(np.int64)
    known = coefficient_coding._Magnitudes(len(by_position), num_clips)
    for shell in shells:
        known.remember(shell, by_position[shell.positions])
    levels = np.empty(by_position.shape, dtype=np.int64)
    for shell in shells:
        levels[shell.positions] = known.levels(shell).reshape(-1, num_clips)
    return levels.T.reshape(magnitudes.shape)


def around(magnitudes: np.ndarray) -> np.ndarray:
    """0 to 3: sum of the magnitudes behind each one along t, c, y and x, which direct coding does not know yet."""
    total = np.zeros_like(magnitudes)
    for axis in range(1, 5):
        inside, behind = [slice(None)] * 5, [slice(None)] * 5
        inside[axis], behind[axis] = slice(None, -1), slice(1, None)
        total[tuple(inside)] += magnitudes[tuple(behind)]
    return np.minimum(total, 3)


def adaptive_bits(contexts: np.ndarray, symbols: np.ndarray, num_symbols: int) -> tuple[float, np.ndarray]:
    """Bits of symbols under adaptive distributions, one a context: in all, with learning, and of each symbol."""
    size = int(contexts.max()) + 1
    counts = np.bincount(contexts * num_symbols + symbols, minlength=size * num_symbols).reshape(size, num_symbols)
    half = 0.5
    total = gammaln(num_symbols * half) - gammaln(counts.sum(1) + num_symbols * half)
    total = -(total + (gammaln(counts + half) - gammaln(half)).sum(1)).sum() / np.log(2)
    each = np.log2(counts.sum(1)[contexts] / counts[contexts, symbols])
    return float(total), each * (total / max(each.sum(), 1e-9))


def snr(values: np.ndarray, decoded: np.ndarray) -> float:
    return float(10 * np.log10((values**2).sum() / ((values - decoded) ** 2).sum()))


class Quantised:
    """Coefficients [M] of all classes at a step, with or without a dead zone, and what they become."""

    def __init__(self, cores: list[np.ndarray], step: float, *, dead_zone: bool) -> None:
        classes = [np.abs(core).astype(np.float64) / step for core in cores]
        found = [np.floor(scaled) if dead_zone else np.floor(scaled + 0.5) for scaled in classes]
        self.by_class = [magnitudes.astype(np.int64) for magnitudes in found]
        self.magnitudes = np.concatenate([magnitudes.ravel() for magnitudes in self.by_class])
        self.levels = np.concatenate([levels_of(magnitudes).ravel() for magnitudes in self.by_class])
        self.around = np.concatenate([around(magnitudes).ravel() for magnitudes in self.by_class])
        self.shells = np.concatenate(
            [np.broadcast_to(np.indices(core.shape[1:]).sum(0), core.shape).ravel() for core in cores]
        )
        true = np.concatenate([scaled.ravel() for scaled in classes])
        present = self.magnitudes > 0
        shift = (true - self.magnitudes)[present].mean() if present.any() else 0.0
        self.decoded = (self.magnitudes + shift * present) * step

    def direct_bits(self) -> float:
        """Of magnitudes and signs, coded at once."""
        symbols = np.minimum(self.magnitudes, 17)
        total, _ = adaptive_bits(self.levels, symbols, 18)
        escaped = self.magnitudes[symbols == 17] - 16
        return total + (self.magnitudes > 0).sum() + (2 * np.floor(np.log2(escaped)) + 1).sum()


def refine(
    coarse: Quantised, fine: Quantised, values: np.ndarray, ratio: int
) -> tuple[float, list[tuple[float, float]]]:
    """Bits of a layer; and bits and SNR where half of them are spent, shell by shell and by gain for a bit."""
    # With a dead zone children are 2q and 2q + 1; of plain rounding 3q − 1, 3q and 3q + 1, or 0 and 1 of 0.
    symbols = fine.magnitudes - ratio * coarse.magnitudes + (ratio == 3)
    contexts = (np.minimum(coarse.magnitudes, 3) * 4 + coarse.around) * coefficient_coding.NUM_LEVELS + fine.levels
    total, bits = adaptive_bits(contexts, symbols, ratio)
    signs = (coarse.magnitudes == 0) & (fine.magnitudes > 0)
    bits, total = bits + signs, total + signs.sum()
    gain = (values - coarse.decoded) ** 2 - (values - fine.decoded) ** 2
    spent, gained = (np.bincount(contexts, weights) for weights in (bits, gain))
    slopes = gained / np.maximum(spent, 1e-9)
    halves = []
    for keys in (fine.shells, -slopes[contexts]):
        order = np.argsort(keys, kind="stable")
        first = order[: int(np.searchsorted(np.cumsum(bits[order]), total / 2))]
        decoded = coarse.decoded.copy()
        decoded[first] = fine.decoded[first]
        halves.append((float(bits[first].sum()), snr(values, decoded)))
    return total, halves


def print_embedded(cores: list[np.ndarray]) -> None:
    num_clips = sum(map(len, cores))
    values = np.concatenate([np.abs(core).ravel() for core in cores]).astype(np.float64)
    grid = FINEST * 2 ** np.arange(-0.5, 4.6, 0.125)
    curve = []
    for step in grid:
        direct = Quantised(cores, float(step), dead_zone=False)
        curve.append((direct.direct_bits() / 8 / num_clips, snr(values, direct.decoded)))
    sizes, snrs = np.array(curve[::-1]).T
    print(
        "\nOne stream of layers, cut, against direct coding at a step of its own, at the same bytes\n\n"
        "| layers | cut | bytes a clip | SNR, dB | direct, dB | loss, dB |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    for name, (ratio, number) in LAYERS.items():
        steps = [FINEST * ratio**i for i in reversed(range(number))]
        layers = [Quantised(cores, step, dead_zone=ratio == 2) for step in steps]
        bits = layers[0].direct_bits()
        rows = [(f"step {steps[0]:g}", bits, snr(values, layers[0].decoded))]
        for step, coarse, layer in zip(steps[1:], layers, layers[1:], strict=False):
            total, halves = refine(coarse, layer, values, ratio)
            for order, (half, at_half) in zip(("by shells", "by gain"), halves, strict=True):
                rows.append((f"half-way to {step:g}, {order}", bits + half, at_half))
            bits += total
            rows.append((f"step {step:g}", bits, snr(values, layer.decoded)))
        for cut, spent, found in rows:
            size = spent / 8 / num_clips
            same = float(np.interp(np.log(size), np.log(sizes), snrs))
            print(f"| {name} | {cut} | {size:.1f} | {found:.2f} | {same:.2f} | {same - found:+.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", help="name in the benchmarks' registry")
    source.add_argument("--latents", type=Path, help="a .npz file")
    parser.add_argument("--latents-name", default="latents", help="array in the file")
    parser.add_argument("--labels-name", default="labels", help="array in the file")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with threadpool_limits(int(os.environ.get("OMP_NUM_THREADS", "0")) or None):
        if options.latents:
            classes = file_classes(options.latents, options.latents_name, options.labels_name)
        else:
            classes = class_latents(options.dataset) if options.dataset else demo_classes()
        counts = [len(latents) for latents in classes]
        versions = (f"{name} {importlib.metadata.version(name)}" for name in ("constriction", "numcodecs", "pcodec"))
        print(
            f"{len(classes)} classes of {min(counts)} to {max(counts)} clips, latents {classes[0].shape[1:]}; "
            f"{len(os.sched_getaffinity(0))} cores, one used; {', '.join(versions)}, NumPy {np.__version__}"
        )
        cores = [tucker.decompose(latents).core for latents in classes]
        print_coders(cores, options.repeats)
        print_embedded(cores)


if __name__ == "__main__":
    main()

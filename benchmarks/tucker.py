"""Tucker form of a class: how long it takes and what it leaves out, beside tensorly as the paper's code calls it.

    python benchmarks/tucker.py [--clips 400] [--latents FILE.npy] [--skip-demo]

All rows of a table work on the same latents [N, 16, 4, 14, 14] at the ranks of ratio 0.75 on T, h, w, in turn. Errors
are relative, ‖X − X̂‖ / ‖X‖. Latents are a smooth random field, white noise (no structure: the hardest case to agree
on), the demo generator's clips through the encoder that ships, and a file's, where one is given. Peak memory is what
numpy allocates beside the latents and before anything is reconstructed.
"""

import argparse
import os
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import tensorly
from tensorly.decomposition import partial_tucker, tucker
from threadpoolctl import threadpool_info

from lvdd_assets.distill import float_coding
from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.paper import RANK_RATIO, RELEASED_TUCKER_ITERATIONS
from lvdd_assets.distill.tucker import (
    TuckerTensor,
    decompose,
    ranks_from_ratio,
    reconstruct,
    reconstruct_svd,
    svd_rank_for_bytes,
    truncated_svd,
)
from lvdd_assets.distill.vae import load_autoencoder

SHAPE = (16, 4, 14, 14)
Job = tuple[str, Callable[[], object], Callable[[object], np.ndarray]]


def smooth_field(num_clips: int, seed: int = 0) -> np.ndarray:
    """Gaussian field whose amplitude falls as 1 / frequency² along T, h, w; channels mixed; a tenth of white noise."""
    generator = np.random.default_rng(seed)
    white = generator.normal(size=(num_clips, *SHAPE))
    axes = (1, 3, 4)
    squares = [
        np.fft.fftfreq(SHAPE[axis - 1]).reshape([-1 if i == axis else 1 for i in range(5)]) ** 2 for axis in axes
    ]
    spectrum = np.fft.fftn(white, axes=axes) / (sum(squares) + 0.05**2)
    field = np.einsum("ntchw,cd->ntdhw", np.fft.ifftn(spectrum, axes=axes).real, generator.normal(size=(4, 4)))
    return (field / field.std() + 0.1 * generator.normal(size=field.shape)).astype(np.float32)


def demo_latents(num_clips: int) -> np.ndarray:
    """The demo generator's clips, doubled to 128 pixels and cut to 112, encoded."""
    autoencoder = load_autoencoder("embedded-2d", base=None)
    found = []
    for start in range(0, num_clips, 16):
        clips = np.stack(
            [render_clip(MOTIONS[i % len(MOTIONS)], seed=i)[:16] for i in range(start, min(start + 16, num_clips))]
        )
        doubled = clips.repeat(2, axis=2).repeat(2, axis=3)[:, :, 8:120, 8:120]
        found.append(autoencoder.encode(np.ascontiguousarray(doubled.transpose(0, 1, 4, 2, 3))))
    return np.concatenate(found)


def sequentially_truncated(latents: np.ndarray, ranks: tuple[int, ...]) -> TuckerTensor:
    """ST-HOSVD (Vannieuwenhoven et al. 2012): each mode's factor from what the modes before it left."""
    core, factors = latents, []
    for axis, rank in enumerate(ranks, start=1):
        unfolded = np.moveaxis(core, axis, 0).reshape(core.shape[axis], -1)
        factor = np.linalg.eigh(unfolded @ unfolded.T)[1][:, ::-1][:, :rank]
        core = tensorly.tenalg.mode_dot(core, factor.T, axis)
        factors.append(factor)
    return TuckerTensor(core, tuple(factors))


def jobs(latents: np.ndarray, ranks: tuple[int, ...]) -> Iterator[Job]:
    """The peer first."""
    num_clips = len(latents)
    num_bytes = float_coding.tucker_num_bytes(num_clips, latents.shape[1:], ranks)
    svd_rank = svd_rank_for_bytes(num_clips, latents.shape[1:], num_bytes)
    whole, modes = [num_clips, *ranks], [1, 2, 3, 4]
    iterations = RELEASED_TUCKER_ITERATIONS

    def theirs(result: object) -> np.ndarray:
        return tensorly.tenalg.multi_mode_dot(result[0], result[1])

    def theirs_without_clips(result: object) -> np.ndarray:
        return tensorly.tenalg.multi_mode_dot(result[0][0], result[0][1], modes=modes)

    yield (
        f"tensorly `tucker`, ≤ {iterations} iterations, as LVDD calls it",
        lambda: tucker(latents, rank=whole, n_iter_max=iterations, init="svd"),
        theirs,
    )
    yield (
        "tensorly `partial_tucker`, 0 iterations: HOSVD",
        lambda: partial_tucker(latents, rank=list(ranks), modes=modes, n_iter_max=0, init="svd"),
        theirs_without_clips,
    )
    yield "sequentially truncated HOSVD", lambda: sequentially_truncated(latents, ranks), reconstruct
    yield "**`decompose`: HOSVD**", lambda: decompose(latents, ranks=ranks), reconstruct
    for rounds in (1, iterations):
        yield (
            f"`decompose`, ≤ {rounds} iterations",
            lambda rounds=rounds: decompose(latents, ranks=ranks, num_iterations=rounds),
            reconstruct,
        )
    yield (
        "`decompose`, with an instance factor N × N",
        lambda: decompose(latents, ranks=ranks, instance_rank=num_clips),
        reconstruct,
    )
    yield (
        f"`truncated_svd` at the same bytes: r = {svd_rank}",
        lambda: truncated_svd(latents, svd_rank),
        reconstruct_svd,
    )


def measure(latents: np.ndarray, *, repeats: int) -> None:
    """Prints a table: one warm-up with memory traced, then all jobs in turn, `repeats` times."""
    ranks = ranks_from_ratio(latents.shape[1:], RANK_RATIO)
    rows, norm = list(jobs(latents, ranks)), float(np.linalg.norm(latents))
    errors, peaks = [], []
    for _, run, rebuild in rows:
        tracemalloc.start()
        result = run()
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
        errors.append(float(np.linalg.norm(rebuild(result) - latents)) / norm)
    times: list[list[float]] = [[] for _ in rows]
    for _ in range(repeats):
        for row, (_, run, _) in zip(times, rows, strict=True):
            start = time.perf_counter()
            run()
            row.append(time.perf_counter() - start)
    seconds = [statistics.median(row) for row in times]
    print("| what | s (median) | times as fast | peak MB | error | error / first row |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for (name, _, _), taken, peak, error in zip(rows, seconds, peaks, errors, strict=True):
        print(
            f"| {name} | {taken:.3f} | {seconds[0] / taken:.1f} | {peak:.0f} | {error:.5f} | {error / errors[0]:.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--latents", help="a file with more latents, float [N, T, C, h, w]")
    parser.add_argument("--skip-demo", action="store_true", help="do not render and encode clips (about a minute)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Trying to compute SVD")  # N is above what the last mode's unfolding has
    threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    print(f"{len(os.sched_getaffinity(0))} cores, BLAS on {', '.join(map(str, sorted(threads)))} threads")
    sources: list[tuple[str, Callable[[], np.ndarray]]] = [
        ("smooth random field", lambda: smooth_field(options.clips)),
        ("white noise", lambda: np.random.default_rng(0).normal(size=(options.clips, *SHAPE)).astype(np.float32)),
    ]
    if not options.skip_demo:
        sources.append(("latents of the demo's clips", lambda: demo_latents(options.clips)))
    if options.latents:
        sources.append((options.latents, lambda: np.load(options.latents).astype(np.float32)))
    for name, make in sources:
        latents = make()
        size = latents.nbytes / 1e6
        print(f"\n{name}: {' × '.join(map(str, latents.shape))}, {size:.0f} MB, ", end="")
        print(f"ranks {ranks_from_ratio(latents.shape[1:], RANK_RATIO)}\n")
        measure(latents, repeats=options.repeats)


if __name__ == "__main__":
    main()

"""Choosing clips: time and memory beside DPPy, and what each method's subset is worth beside uniform draws.

    OMP_NUM_THREADS=1 python benchmarks/selection.py [--repeats 5] [--skip-large] [--skip-figures]

The first table draws k = 24 of N items from the same rbf kernel of Gaussian points, all rows in turn, the best of the
repeats: DPPy's exact k-DPP (a fresh object a draw: its eigendecomposition is part of the draw), ours, and greedy MAP
both from the kernel matrix and from features of 2,048 dimensions alone. The second draws from N = 20,000, each row in a
process of its own whose peak resident memory is read at the end; "before" is what it had once its features stood. The
third takes the train clips of real sets (where they lie beside the project) through the autoencoder that ships.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from registered import REGISTRY, class_latents
from threadpoolctl import threadpool_info, threadpool_limits

from lvdd_assets.distill import coresets, dpp
from lvdd_assets.distill.features import Features, prepare
from lvdd_assets.distill.kernels import build_kernel
from lvdd_assets.distill.selection import METHODS, Rules, measure, select

K = 24
LARGE = 20_000
SETS = {"ut_interaction": 5, "surv_fight": 24}
FIGURES = ("log_det", "nearest", "coverage_share")


def points(num_items: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Points like latents: a few directions that all share, and noise of their own. float32 [N, D]."""
    shared = np.random.default_rng(0).normal(size=(20, dimension)).astype(np.float32)
    generator = np.random.default_rng([seed, 1])
    weights = generator.normal(size=(num_items, 20)).astype(np.float32)
    return weights @ shared + generator.standard_normal((num_items, dimension), dtype=np.float32)


def compare_with_dppy(num_items: int, repeats: int) -> dict[str, float]:
    """Seconds of each way, best of the repeats."""
    from dppy.finite_dpps import FiniteDPP

    lazy = build_kernel(Features(points(num_items, 2048)))
    kernel = lazy.dense()
    jobs: dict[str, Callable[[int], object]] = {
        "DPPy, exact": lambda seed: FiniteDPP("likelihood", L=kernel.matrix).sample_exact_k_dpp(
            size=K, random_state=np.random.RandomState(seed)
        ),
        "ours, exact": lambda seed: dpp.sample(kernel, K, seed=seed),
        "ours, greedy MAP, matrix": lambda seed: dpp.greedy_map(kernel, K),
        "ours, greedy MAP, features": lambda seed: dpp.greedy_map(lazy, K),
    }
    best = dict.fromkeys(jobs, float("inf"))
    for repeat in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job(repeat)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def print_speed(repeats: int) -> None:
    sizes = (400, 1000, 2000)
    results = [compare_with_dppy(size, repeats) for size in sizes]
    print(f"\nk = {K}, seconds\n\n| | " + " | ".join(f"N = {size:,}" for size in sizes) + " |")
    print("| --- |" + " ---: |" * len(sizes))
    for name in results[0]:
        print(f"| {name} | " + " | ".join(f"{result[name]:.4f}" for result in results) + " |")
    for name in list(results[0])[1:]:
        times = " | ".join(f"{result['DPPy, exact'] / result[name]:.1f}×" for result in results)
        print(f"| {name}, times as fast as DPPy | {times} |")


LARGE_ROWS: dict[str, tuple[int, Callable[[Features], object]]] = {
    "greedy MAP, rbf, D = 512": (512, lambda features: dpp.greedy_map(build_kernel(features), K)),
    "greedy MAP, rbf, D = 2,048": (2048, lambda features: dpp.greedy_map(build_kernel(features), K)),
    "greedy MAP, rbf, D = 12,544, float16": (12_544, lambda features: dpp.greedy_map(build_kernel(features), K)),
    "k-DPP, cosine, D = 512 (dual, exact)": (
        512,
        lambda features: dpp.draw(build_kernel(features, kind="cosine"), K, seed=0),
    ),
    "k-DPP, rbf, D = 512 (Nyström of rank 512)": (512, lambda features: dpp.draw(build_kernel(features), K, seed=0)),
    "k-center, D = 512": (512, lambda features: coresets.k_center(features, K)),
    "facility location, D = 512": (512, lambda features: coresets.facility_location(features, K)),
}


def _peak_megabytes() -> float:
    """Peak resident memory of this process. Not `getrusage`'s, which a child inherits from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run_large(name: str) -> tuple[float, float, float, str]:
    """Seconds, peak memory before and after in MiB, and what a draw says of itself."""
    dimension, job = LARGE_ROWS[name]
    values = np.empty((LARGE, dimension), dtype=np.float16 if dimension > 10_000 else np.float32)
    for start in range(0, LARGE, 500):
        # In parts: the peak must be the method's and not the generator's.
        values[start : start + 500] = points(500, dimension, seed=start)
    features = Features(values)
    before = _peak_megabytes()
    start_seconds = time.perf_counter()
    result = job(features)
    seconds = time.perf_counter() - start_seconds
    said = f"{result.kept_trace:.1%} of the trace" if isinstance(result, dpp.Draw) else ""
    return seconds, before, _peak_megabytes(), said


def print_large() -> None:
    print(
        f"\nN = {LARGE:,}, k = {K}\n\n| | seconds | MiB before | MiB at the peak | |\n"
        "| --- | ---: | ---: | ---: | --- |"
    )
    context = multiprocessing.get_context("spawn")
    for name in LARGE_ROWS:
        with context.Pool(1) as pool:
            seconds, before, peak, said = pool.apply(run_large, (name,))
        print(f"| {name} | {seconds:.2f} | {before:,.0f} | {peak:,.0f} | {said} |", flush=True)


def print_figures(dataset: str, k: int, num_seeds: int = 10) -> None:
    """Mean over classes and seeds; in the last row mean and range over uniform draws."""
    by_class = class_latents(dataset)
    counts = [len(latents) for latents in by_class]
    print(
        f"\n{dataset}, {len(by_class)} classes of {min(counts)} to {max(counts)} train clips, k = {k}: "
        f"mean over classes and {num_seeds} seeds\n\n"
        "| method | log det | nearest kept neighbour | coverage / spread |\n| --- | ---: | ---: | ---: |"
    )
    rows: dict[str, Rules] = {method: Rules(method=method) for method in METHODS}
    rows["k-dpp, quality 4"] = Rules(quality=4.0)
    rows["map, quality 4"] = Rules(method="map", quality=4.0)
    rows["k-dpp, kernel exp"] = Rules(kernel="exp")
    plain = Rules(method="random")
    uniform: list[list[float]] = []
    for name, rules in rows.items():
        found = []
        for latents in by_class:
            features = prepare(latents)
            kernel = build_kernel(features).dense()  # figures of every row by the default kernel
            for seed in range(num_seeds):
                chosen = select(latents, k, rules, seed=seed, num_uniform_draws=1)
                figures = measure(features, kernel, chosen.items)
                found.append([getattr(figures, figure) for figure in FIGURES])
                if rules == plain:
                    drawn = select(latents, k, plain, seed=seed).uniform
                    uniform += [[getattr(figures, figure) for figure in FIGURES] for figures in drawn]
        print(f"| {name} | " + " | ".join(_cell(value) for value in np.mean(found, axis=0)) + " |", flush=True)
    mean, least, most = np.mean(uniform, axis=0), np.min(uniform, axis=0), np.max(uniform, axis=0)
    cells = (f"{_cell(m)} ({_cell(low)} to {_cell(high)})" for m, low, high in zip(mean, least, most, strict=True))
    print(f"| uniform draws, range over classes | {' | '.join(cells)} |")


def _cell(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--skip-figures", action="store_true")
    options = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or None
    with threadpool_limits(threads):
        used = max(pool["num_threads"] for pool in threadpool_info())
        print(
            f"{len(os.sched_getaffinity(0))} cores, {used} BLAS threads, DPPy {importlib.metadata.version('dppy')}, "
            f"NumPy {np.__version__}, SciPy {importlib.metadata.version('scipy')}"
        )
        if not options.skip_speed:
            print_speed(options.repeats)
        if not options.skip_large:
            print_large()
        if not options.skip_figures:
            for dataset, k in SETS.items():
                if (REGISTRY.parent / f"../../shared/data/{dataset}").is_dir():
                    print_figures(dataset, k)


if __name__ == "__main__":
    main()

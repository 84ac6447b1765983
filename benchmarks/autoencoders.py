"""Encoding against the bare forward pass, integer against float arithmetic, memory, and what an import costs.

    python benchmarks/autoencoders.py [--autoencoder FOLDER]

The clips are the demo generator's, 8 frames of 64 × 64. `latents` is the asset as it is: clips read from zarr, encoded,
stored as float16. Its peer is the encoder alone on one batch in memory, in the same number format, on as many threads.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lvdd_assets.assets.latents import STEP, LatentsConfig
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.devices import find_device, precision_for
from lvdd_assets.distill.registry import load_catalog
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import VideoAutoencoder, load_autoencoder
from lvdd_assets.steps import Task

SHAPE = ClipShape(8, 4, 64)
REGISTRY = """
default: bench
datasets:
  bench:
    root: videos
    layout: folders
    split: folders
    classes: [clips]
    clip: 8x64
    budget: {{bytes: 1MB}}
    vae: {vae}
"""


def demo_clips(num_clips: int) -> np.ndarray:
    """uint8 [N, T, C, H, W]; the same few scenes over and over, which no encoder is quicker on."""
    clips = [render_clip(MOTIONS[i % len(MOTIONS)], seed=i)[::3] for i in range(min(32, num_clips))]
    return np.stack(clips).transpose(0, 1, 4, 2, 3)[np.arange(num_clips) % len(clips)]


def median_seconds(run: Callable[[], object], *, repeats: int = 5) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def make_task(folder: Path, vae: str, num_clips: int) -> Task:
    """A task of `latents` over a stored class of demo clips."""
    (folder / "datasets.yaml").write_text(REGISTRY.format(vae=vae))
    spec = load_catalog(folder / "datasets.yaml").dataset("bench")
    with ZarrStore(folder / "data", "raw_clips").write("bench/clips", "x", settings={}, inputs={}) as out:
        for start in range(0, num_clips, 64):
            out.append("train", demo_clips(min(64, num_clips - start)))
    return Task(
        "latents", spec, "clips", ("clips",), LatentsConfig().model_dump(), {}, {"vae": "x"}, "f", folder / "data"
    )


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def print_encoding(vae: str, num_clips: int) -> None:
    """As many clips both ways, in turn, so that what else the machine does meets both."""
    device = find_device()
    autoencoder = load_autoencoder(vae, dtype=precision_for(device), device=device)
    batch = demo_clips(autoencoder.clips_per_batch(SHAPE))
    num_batches = num_clips // len(batch)

    def bare() -> None:
        for _ in range(num_batches):
            autoencoder.encode(batch)

    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder), vae, num_batches * len(batch))
        STEP.compute(task)
        pairs = [(seconds_of(bare), seconds_of(lambda: STEP.compute(task))) for _ in range(7)]
    frames = num_batches * len(batch) * SHAPE.frames
    alone, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(
        f"| {Path(vae).name} | {precision_for(device)} | {frames / alone:.0f} | {frames / whole:.0f} | {ratio:.2f} |",
        flush=True,
    )


def print_decoding(vae: str) -> None:
    """Frames a second of one decoder: float32, bfloat16 where it is computed, static int8."""
    from lvdd_assets.distill.int8_arithmetic import compiled, static_int8

    autoencoder: VideoAutoencoder = load_autoencoder(vae)
    latents = torch.from_numpy(autoencoder.encode(demo_clips(8))).flatten(0, 1)
    decoder = autoencoder.decoder()
    has_vnni = torch.cpu._is_vnni_supported()
    rows: list[tuple[str, Callable[[], object]]] = [("float32", lambda: decoder(latents))]

    def in_bfloat16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return decoder(latents)

    rows.append(("bfloat16", in_bfloat16))
    static = static_int8(decoder, calibration=[latents], reduced_range=not has_vnni)
    start = time.perf_counter()
    fast = compiled(static)
    with torch.inference_mode():
        fast(latents)
    seconds = time.perf_counter() - start
    rows.append((f"static int8, compiled in {seconds:.0f} s", lambda: fast(latents)))
    first = None
    for name, run in rows:
        with torch.inference_mode():
            taken = median_seconds(run)
        first = first or taken
        print(f"| {Path(vae).name} | {name} | {len(latents) / taken:.0f} | {first / taken:.2f} |", flush=True)


def print_memory(vae: str, counts: tuple[int, ...]) -> None:
    """Peak memory of the asset's computation, each number of clips in a process of its own."""
    for num_clips in counts:
        command = [sys.executable, __file__, "--only-memory", str(num_clips), "--autoencoder", vae]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"| {Path(vae).name} | {num_clips} | {output.strip()} |", flush=True)


def peak_of(vae: str, num_clips: int) -> int:
    """Peak resident bytes of this process once the task has run."""
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder), vae, num_clips)
        STEP.compute(task)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def print_imports() -> None:
    for module in ("lvdd_assets", "lvdd_assets.cli", "lvdd_assets.definitions"):
        command = [sys.executable, "-c", f"import {module}"]
        empty = median_seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
        taken = median_seconds(lambda command=command: subprocess.run(command, check=True))
        print(f"| {module} | {taken - empty:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", action="append", help="name or folder; repeatable")
    parser.add_argument("--clips", type=int, default=400, help="clips to encode")
    parser.add_argument("--only-memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.autoencoder or ["embedded-2d", "embedded-2d-large", "embedded-3d"]
    if args.only_memory:
        print(f"{peak_of(names[0], args.only_memory) / 1e6:.0f}")
        return
    vnni = "VNNI" if torch.cpu._is_vnni_supported() else "no VNNI"
    print(f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {vnni}, device {find_device()}\n")
    print(
        "| autoencoder | computes in | bare forward, frames/s | `latents`, frames/s | ratio |\n|---|---|---:|---:|---:|"
    )
    for name in names:
        print_encoding(name, args.clips)
    print("\n| decoder | arithmetic | frames/s | against float32 |\n|---|---|---:|---:|")
    for name in names:
        if not load_autoencoder(name).decoder_spec.is_temporal:
            print_decoding(name)
    print("\n| autoencoder | clips | peak MB |\n|---|---:|---:|")
    print_memory(names[0], (100, 1000))
    print("\n| import | seconds |\n|---|---:|")
    print_imports()


if __name__ == "__main__":
    main()

"""What a large dataset costs, from rates that are measured here and now: core-hours, GPU-hours, bytes, objects.

    OMP_NUM_THREADS=1 python benchmarks/cost_model.py [--videos FOLDER] [--frames 16] [--size 112] [--kept 100]
        [--workers 64] [--encode-per-core RATE | --encode-per-gpu RATE]

The chain runs over a small dataset whose two classes have 12 and 48 clips of ten seconds in one process with one
thread; each step's seconds of the processor, bytes and files then give what a class costs and what a clip adds.
Selection, which grows faster than its class, is measured at the classes' real sizes. Dagster's events are those of a
bare asset. A large dataset is the sum; nothing that was not measured is in it, so a GPU's rate (clips encoded a second)
is an argument. What training for `eval_report` takes is up to its protocol and not in it.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

NUM_FILMS = 14  # different ones; each class has them again and again
SIZES = {"few": 12, "many": 48}  # train clips of the two classes
ENTRY = """
default: sample
datasets:
  sample:
    root: videos
    layout: folders
    split: folders
    frames: {frames}
    stride: 4
    size: {size}
    budget: {{bytes: {budget}}}
    clips_per_class: {kept}
"""
CLASS_STEPS = ("raw_clips", "latents", "hosvd_cores")
# Names, clips and classes of what is reckoned.
DATASETS = (("Kinetics-400", 240_000, 400), ("100 M clips", 100_000_000, 10_000))


@dataclass(frozen=True)
class Rate:
    """What something costs: so much for each class, and so much for each clip in it.

    Attributes:
        per_class: seconds of the processor, bytes or files.
        per_clip: likewise.
    """

    per_class: float
    per_clip: float

    def total(self, num_classes: int, num_clips: int) -> float:
        """Of a dataset."""
        return num_classes * self.per_class + num_clips * self.per_clip


def rate_of(few: float, many: float, *, sizes: tuple[int, int]) -> Rate:
    """The straight line through two classes; nothing is negative."""
    per_clip = max(0.0, (many - few) / (sizes[1] - sizes[0]))
    return Rate(max(0.0, few - sizes[0] * per_clip), per_clip)


def cpu_seconds() -> float:
    """Of this process and all that it has started; videos are decoded by children that stay."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (own, *own.children(recursive=True)))


def spent(run: Callable[[], object]) -> float:
    before = cpu_seconds()
    run()
    return cpu_seconds() - before


def film(path: Path, seed: int) -> None:
    """Ten seconds at 340 x 256 and 25 frames a second, as Kinetics is mostly kept: texture that moves, and noise."""
    from lvdd_assets.distill.video import write_clip

    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (90, 110, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    frames = np.stack([np.roll(texture, (shift, 2 * shift), axis=(0, 1))[:256, :340] for shift in range(250)])
    noise = rng.integers(0, 12, frames.shape[1:]).astype(np.uint8)
    write_clip(path, np.clip(frames.astype(np.int16) + noise, 0, 255).astype(np.uint8), fps=25, crf=23)


def films(folder: Path, given: Path | None) -> list[bytes]:
    """Different videos, generated unless some are given.

    Raises:
        ValueError: fewer than are needed.
    """
    if given is None:
        for seed in range(NUM_FILMS):
            film(folder / f"{seed:02d}.mp4", seed)
    paths = sorted((given or folder).glob("*.mp4"))[:NUM_FILMS]
    if len(paths) < NUM_FILMS:
        raise ValueError(f"{given} has {len(paths)} files *.mp4, expected {NUM_FILMS}: add some, or leave out --videos")
    return [path.read_bytes() for path in paths]


def make_sample(folder: Path, options: argparse.Namespace) -> float:
    """The small dataset; bytes of one of its videos, on average."""
    (folder / "films").mkdir()
    data = films(folder / "films", options.videos)
    for name, count in SIZES.items():
        for split, number in (("train", count), ("test", 1)):
            (folder / "videos" / split / name).mkdir(parents=True)
            for index in range(number):
                # A free box at the end: other bytes, the same film.
                box = (16).to_bytes(4, "big") + b"free" + f"{split[1]}{index:07d}".encode()
                path = folder / "videos" / split / name / f"{index:04d}.mp4"
                path.write_bytes(data[index % NUM_FILMS] + box)
    budget = 100_000_000
    (folder / "datasets.yaml").write_text(
        ENTRY.format(frames=options.frames, size=options.size, budget=budget, kept=min(12, options.kept))
    )
    return float(np.mean([len(one) for one in data]))


def disk_use(folder: Path) -> tuple[int, int]:
    """Bytes and number of files."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(sizes), len(sizes)


@dataclass
class Rates:
    """All that was measured; seconds are of the processor.

    Attributes:
        seconds: by step; of hosvd_cores for the kept clips alone.
        stored: bytes by step.
        files: by step.
        video_bytes: of one video.
        latent_shape: of one clip, (T', C, h, w).
        decoder_seconds: `quantized_vae`, which looks at so many clips whatever the dataset has.
        fill_seconds: `release`, by kept clips.
        event_seconds: Dagster's, for a partition.
    """

    seconds: dict[str, Rate]
    stored: dict[str, Rate]
    files: dict[str, Rate]
    video_bytes: float
    latent_shape: tuple[int, ...]
    decoder_seconds: float
    fill_seconds: Rate
    event_seconds: float


def measure(folder: Path, options: argparse.Namespace) -> Rates:
    """Runs the chain over the small dataset."""
    video_bytes = make_sample(folder, options)
    os.environ |= {"LVDD_DATASETS": str(folder / "datasets.yaml"), "LVDD_DATA_ROOT": str(folder / "data")}
    os.environ["LVDD_WORKERS"] = "1"
    from lvdd_assets.definitions import build_pipeline
    from lvdd_assets.distill.stores import ZarrStore
    from lvdd_assets.resources import workspace_from_environment

    pipeline = replace(build_pipeline(workspace_from_environment()), progress=False)
    sizes = (SIZES["few"], SIZES["many"])
    seconds: dict[str, Rate] = {}
    stored: dict[str, Rate] = {}
    files: dict[str, Rate] = {}
    for step in ("raw_clips", "latents", "dpp_subsets", "hosvd_cores"):
        run = _runner(pipeline, step)
        run("few")  # what is loaded once for all classes
        taken, use = [], []
        for name in ("few", "many"):
            taken.append(spent(lambda run=run, name=name: run(name, force=True)))  # type: ignore[misc]
            use.append(_use_of(folder / "data" / f"{step}.zarr", name))
        if step in CLASS_STEPS[:2]:
            seconds[step] = rate_of(*taken, sizes=sizes)
            stored[step] = rate_of(use[0][0], use[1][0], sizes=sizes)
            files[step] = rate_of(use[0][1], use[1][1], sizes=sizes)
        elif step == "hosvd_cores":  # as many clips are kept of either class
            kept = min(12, options.kept)
            seconds[step] = Rate(0.0, taken[1] / kept)
            stored[step] = Rate(0.0, use[1][0] / kept)
            files[step] = Rate(use[1][1], 0.0)
        print(f"{step}: {taken[0]:.2f} and {taken[1]:.2f} s", file=sys.stderr, flush=True)
    shape = ZarrStore(folder / "data", "latents").open("sample/few").read("latents").shape[1:]
    kept_clips = 2 * min(12, options.kept)
    decoder, fill = (
        spent(lambda step=step: pipeline.bring_up_to_date(step, ["sample"], dict(pipeline.step(step).defaults)))  # type: ignore[misc]
        for step in ("quantized_vae", "release")
    )
    return Rates(
        seconds, stored, files, video_bytes, shape, decoder, Rate(0.0, fill / kept_clips), event_seconds(folder)
    )


def _runner(pipeline: Any, step: str) -> Callable[..., None]:
    def run(name: str, *, force: bool = False) -> None:
        pipeline.bring_up_to_date(step, [f"sample/{name}"], dict(pipeline.step(step).defaults), force=force)

    return run


def _use_of(store: Path, class_name: str) -> tuple[int, int]:
    """Bytes and files of one class's partition."""
    found = [path for path in store.rglob("*") if path.is_dir() and path.name == class_name]
    if not found:
        raise ValueError(f"no folder of class {class_name} in {store}")
    return disk_use(found[0])


def event_seconds(folder: Path, *, num_partitions: int = 200) -> float:
    """Of the processor, for one partition of an asset that does nothing, in a run over many, kept in SQLite."""
    import dagster as dg

    keys = [f"key {number}" for number in range(num_partitions)]

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(keys), backfill_policy=dg.BackfillPolicy.single_run())
    def bare() -> None:
        pass

    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        config: Mapping[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        taken = spent(lambda: dg.materialize([bare], tags=tags, run_config=config, instance=instance))
    return taken / num_partitions


def selection_seconds(num_clips: int, kept: int, shape: tuple[int, ...]) -> float:
    """Selection in one class of this size, of latents at random."""
    from lvdd_assets.distill import selection

    latents = np.random.default_rng(0).standard_normal((num_clips, *shape)).astype(np.float16)
    return spent(lambda: selection.select(latents, min(kept, num_clips), selection.Rules(), seed=0))


@dataclass(frozen=True)
class Line:
    """One stage over a whole dataset.

    Attributes:
        stage: its name.
        core_hours: of processors; None where a GPU does it.
        gpu_hours: None where processors do it.
        read_bytes: from the stage before.
        stored_bytes: left behind.
        objects: left behind.
        spreads: whether more machines make it shorter.
    """

    stage: str
    core_hours: float | None
    gpu_hours: float | None
    read_bytes: float
    stored_bytes: float
    objects: float
    spreads: bool = True


def reckon(rates: Rates, num_clips: int, num_classes: int, options: argparse.Namespace, selection: float) -> list[Line]:
    """All stages over a dataset.

    Args:
        rates: what was measured.
        num_clips: train clips, one a video.
        num_classes: all of the same size.
        options: `kept`, `encode_per_core`, `encode_per_gpu`.
        selection: seconds for one class.
    """
    kept = min(options.kept, num_clips // num_classes) * num_classes
    clips, frames = rates.stored["raw_clips"], rates.stored["latents"]
    lines = []
    for step in ("raw_clips", "latents"):
        core: float | None = rates.seconds[step].total(num_classes, num_clips) / 3600
        gpu = None
        if step == "latents" and options.encode_per_gpu:
            core, gpu = None, num_clips / options.encode_per_gpu / 3600
        elif step == "latents" and options.encode_per_core:
            core = num_clips / options.encode_per_core / 3600
        before = num_clips * rates.video_bytes if step == "raw_clips" else clips.total(num_classes, num_clips)
        stored, files = (rates.__dict__[name][step].total(num_classes, num_clips) for name in ("stored", "files"))
        lines.append(Line(step, core, gpu, before, stored, files))
    read = frames.total(num_classes, num_clips)
    lines.append(Line("dpp_subsets", num_classes * selection / 3600, None, read, 0, 0))
    coded, files = (rates.__dict__[name]["hosvd_cores"].total(num_classes, kept) for name in ("stored", "files"))
    core = rates.seconds["hosvd_cores"].total(num_classes, kept) / 3600
    lines.append(Line("hosvd_cores", core, None, kept * frames.per_clip, coded, files))
    lines.append(Line("quantized_vae", rates.decoder_seconds / 3600, None, 0, 0, 0, spreads=False))
    fill = rates.fill_seconds.total(num_classes, kept) / 3600
    lines.append(Line("release", fill, None, coded, 0, 1, spreads=False))
    events = 4 * num_classes * rates.event_seconds / 3600
    lines.append(Line("Dagster's events", events, None, 0, 0, 0, spreads=False))
    return lines


def bottlenecks(lines: list[Line], workers: int) -> str:
    """What takes longest with so many workers, and from how many on it is what cannot be spread."""
    spread = {line.stage: line.core_hours for line in lines if line.spreads and line.core_hours is not None}
    alone = {line.stage: line.core_hours for line in lines if not line.spreads and line.core_hours is not None}
    most, slowest = max(spread, key=spread.__getitem__), max(alone, key=alone.__getitem__)
    hours = sum(spread.values()) / workers + sum(alone.values())
    largest = max(lines, key=lambda line: line.stored_bytes)
    even = sum(spread.values()) / sum(alone.values())
    return (
        f"{hours:,.1f} h with {workers} cores for the stages that spread, GPUs apart. Most work: {most}. "
        f"What more machines do not shorten takes {sum(alone.values()):,.2f} h, most of it {slowest}: "
        f"as long as all the rest from {even:,.0f} cores on. "
        f"Most room: {largest.stage}, {largest.stored_bytes / 1e9:,.0f} GB."
    )


def show(name: str, lines: list[Line], workers: int) -> None:
    print(f"\n{name}:\n")
    print("| stage | core-hours | GPU-hours | reads, GB | stores, GB | objects |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for line in lines:
        hours = [f"{value:,.2f}" if value is not None else "–" for value in (line.core_hours, line.gpu_hours)]
        sizes = [f"{size / 1e9:,.1f}" if size else "–" for size in (line.read_bytes, line.stored_bytes)]
        print(f"| {line.stage} | {' | '.join(hours + sizes)} | {f'{line.objects:,.0f}' if line.objects else '–'} |")
    print(f"\n{bottlenecks(lines, workers)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help=f"folder of {NUM_FILMS} mp4 files like yours; generated without")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--kept", type=int, default=100, help="clips of each class")
    parser.add_argument("--workers", type=int, default=64, help="cores for the stages that spread")
    parser.add_argument("--encode-per-core", type=float, help="clips a second, instead of what is measured")
    parser.add_argument("--encode-per-gpu", type=float, help="clips a second on a GPU of yours")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cost-model-") as name:
        rates = measure(Path(name), options)
    print("| measured | each class | each clip |\n| --- | ---: | ---: |")
    for step, rate in rates.seconds.items():
        print(f"| {step}, s of CPU | {rate.per_class:.3f} | {rate.per_clip:.4f} |")
    for step, rate in rates.stored.items():
        print(f"| {step}, bytes | {rate.per_class:,.0f} | {rate.per_clip:,.0f} |")
    print(f"| release, s of CPU for a kept clip | – | {rates.fill_seconds.per_clip:.4f} |")
    print(f"| a partition in Dagster's events, s of CPU | {rates.event_seconds:.4f} | – |")
    for name, num_clips, num_classes in DATASETS:
        seconds = selection_seconds(num_clips // num_classes, options.kept, rates.latent_shape)
        print(f"\nSelection in a class of {num_clips // num_classes}: {seconds:.1f} s of CPU.", flush=True)
        show(name, reckon(rates, num_clips, num_classes, options, seconds), options.workers)
    print(f"\n{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()

"""Samples a second of a release, against the same clips as mp4 files and as a WebDataset shard.

    python benchmarks/loading.py [RELEASE]    # by default data/release/demo.zarr.zip

Every source goes through a torch DataLoader in batches of 16, in one order. Cold is the first pass of a fresh dataset
with all that it takes: workers start, the decoder is built, every class is decoded into a new folder. Warm is a later
pass. mp4 files are decoded by
PyAV at each access, as nobody keeps them decoded; the shard holds raw pixels and is read by webdataset.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
import webdataset
from av.video.reformatter import VideoReformatter
from torch.utils.data import DataLoader, Dataset

from lvdd_assets import Release, load_release
from lvdd_assets.distill.exporting import export
from lvdd_assets.distill.tables import Table

BATCH = 16


class Mp4Dataset(Dataset):
    """A folder of videos, decoded at each access."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*/*.mp4"))
        names = sorted({path.parent.name for path in self._paths})
        self._labels = [names.index(path.parent.name) for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with av.open(self._paths[index]) as container:
            container.streams.video[0].thread_count = 1
            reformat = VideoReformatter().reformat  # one for all frames, by one thread: ten times as fast as without
            frames = [reformat(frame, format="rgb24", threads=1).to_ndarray() for frame in container.decode(video=0)]
        return torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).copy()), self._labels[index]


def open_shards(folder: Path) -> Iterable:
    """What webdataset makes of the shards."""
    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    return webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode().to_tuple("npy", "cls")


def measure(make: Callable[[], Iterable], expected: int) -> float:
    """Samples a second, the median of at least three passes and three seconds; `make` is part of each."""
    rates: list[float] = []
    begun = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - begun < 3:
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in make())
        rates.append(count / (time.perf_counter() - start))
        assert count == expected
    return median(rates)


def loader(dataset: Dataset, workers: int, method: str = "fork") -> DataLoader:
    context = method if workers else None
    return DataLoader(
        dataset, BATCH, num_workers=workers, persistent_workers=workers > 0, multiprocessing_context=context
    )


def warm(dataset: Dataset, workers: int) -> Callable[[], Iterable]:
    """The loader after a first pass, with its workers running."""
    made = loader(dataset, workers)
    for _ in made:
        pass
    return lambda: made


def run(release: Release, folder: Path, worker_counts: tuple[int, ...]) -> Table:
    """All sources; the clips are the same but for the mp4 files' 4:2:0."""
    mp4, shards = (export(release, to, folder / to) for to in ("folder", "webdataset"))
    video_bytes = sum(path.stat().st_size for path in mp4.folder.rglob("*.mp4"))
    shard_bytes = sum(path.stat().st_size for path in shards.folder.glob("*.tar"))
    numbers = itertools.count()

    def cold(workers: int) -> Callable[[], Iterable]:
        return lambda: loader(release.dataset(cache=folder / f"cold-{next(numbers)}"), workers)

    sources: dict[str, tuple[int, Callable[[int], Callable[[], Iterable]]]] = {
        "release, cold": (release.stored_bytes, cold),
        "release, warm in memory": (release.stored_bytes, lambda n: warm(release.dataset(), n)),
        "release, warm in a folder": (release.stored_bytes, lambda n: warm(release.dataset(cache=folder / "warm"), n)),
        "mp4 by PyAV": (video_bytes, lambda n: warm(Mp4Dataset(mp4.folder), n)),
        "WebDataset shard": (shard_bytes, lambda n: warm(open_shards(shards.folder), min(n, 1))),
    }
    if torch.cuda.is_available():  # a forked worker cannot use it

        def cold_on_gpu(workers: int) -> Callable[[], Iterable]:
            return lambda: loader(
                release.dataset(cache=folder / f"cold-{next(numbers)}", device="cuda"), workers, "spawn"
            )

        sources[f"release, cold on {torch.cuda.get_device_name()}"] = (release.stored_bytes, cold_on_gpu)
    rows = []
    for name, (num_bytes, make) in sources.items():
        rates = [measure(make(count), release.num_clips) for count in worker_counts]
        rows.append((name, num_bytes, *(round(rate) for rate in rates)))
    shape = release.shape
    return Table(
        f"Loading {release.num_clips} clips of {shape.frames} frames at {shape.size} pixels",
        ("source", "bytes", *(f"samples/s, {count or 'no'} workers" for count in worker_counts)),
        tuple(rows),
        (
            f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s) a process, torch {torch.__version__}; one "
            "shard can feed one worker alone.",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("release", nargs="?", default="data/release/demo.zarr.zip")
    parser.add_argument("--workers", type=int, nargs="*", default=(0, 2))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(run(load_release(options.release), Path(folder), tuple(options.workers)).to_markdown())


if __name__ == "__main__":
    main()

"""How long it takes to know a large dataset: the index of 240,000 files, their hashes, and the keys of 1,600 classes.

    python benchmarks/scale.py [--files 240000]

Files are empty of video: none of them is opened for the index, and a few bytes are enough to be hashed.
"""

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lvdd_assets.distill.digests import DigestCache
from lvdd_assets.distill.listing import list_dataset
from lvdd_assets.distill.registry import load_catalog

NUM_LABELS = 400
LOAD = """
import time
times = [time.perf_counter()]
import dagster
import lvdd_assets.resources
times.append(time.perf_counter())
from lvdd_assets.partitions import BY_CLASS  # reads the registry, the lists and the folders
times.append(time.perf_counter())
from lvdd_assets.definitions import defs
defs.get_repository_def()
times.append(time.perf_counter())
print(len(BY_CLASS.get_partition_keys()), *times)
"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"| {what} | {time.perf_counter() - start:.2f} |", flush=True)


def make_kinetics(root: Path, num_files: int) -> None:
    """A copy of Kinetics-400 that lacks every tenth file."""
    rows: dict[str, list[str]] = {"train": [], "validate": []}
    for index in range(num_files):
        label, start = f"label {index % NUM_LABELS:03d}", index % 300
        split = "validate" if index % 13 == 0 else "train"
        rows[split].append(f"{label},{index:011d},{start},{start + 10},{split}\n")
        folder = root / "videos" / label
        if index < NUM_LABELS:
            folder.mkdir(parents=True)
        if index % 10 != 9:
            (folder / f"{index:011d}_{start:06d}_{start + 10:06d}.mp4").write_bytes(b"%d" % index)
    for split, lines in rows.items():
        (root / f"{split}.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "".join(lines))


def make_registry(path: Path, roots: dict[str, str]) -> None:
    entry = "layout: kinetics400, split: official, clip: 8x64, budget: {ipc: 1}"
    path.write_text("datasets:\n" + "".join(f"  {name}: {{root: {root}, {entry}}}\n" for name, root in roots.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=240_000, help="rows of the lists; nine of ten files are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_kinetics(root, options.files)
        make_registry(root / "datasets.yaml", {"k400": "videos"})
        spec = load_catalog(root / "datasets.yaml").dataset("k400")
        print(f"{len(os.sched_getaffinity(0))} cores, {options.files} rows, {NUM_LABELS} labels\n")
        print("| what | s |\n| --- | ---: |")
        with timed("index of all files, nothing opened"):
            listings = list_dataset(spec)
        with timed("again, lists and folders unchanged"):
            list_dataset(spec)
        paths = [spec.root / clip.name for listing in listings.values() for clip in listing.clips]
        num_missing = sum(len(listing.missing) for listing in listings.values())
        assert len(paths) + num_missing == options.files
        time.sleep(4)  # files that changed within the last seconds are not remembered
        cache = DigestCache(root / "digests.sqlite")
        with timed(f"content hashes of {len(paths)} files of a few bytes"):
            first = cache.digests(paths, num_threads=2)
        with timed("again, remembered by size and times"):
            assert cache.digests(paths, num_threads=2) == first
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"\n{num_missing} files missing, peak memory {peak:.0f} MB")
        print_loading(root)


def print_loading(root: Path) -> None:
    """Four copies of the lists, each with a root of its own; a fresh process loads them."""
    names = ["a", "b", "c", "d"]
    for name in names:
        (root / name / "videos").mkdir(parents=True)
        for split in ("train", "validate"):
            shutil.copy(root / f"{split}.csv", root / name)
    make_registry(root / "four.yaml", {name: f"{name}/videos" for name in names})
    environment = {**os.environ, "LVDD_DATASETS": str(root / "four.yaml"), "LVDD_DATA_ROOT": str(root / "data")}
    run = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, env=environment)
    num_keys, *times = run.stdout.split()
    imported, partitions, definitions = (float(end) - float(start) for start, end in itertools.pairwise(times))
    print(
        f"\nA fresh process with 4 such datasets: import dagster {imported:.2f} s, {num_keys} partition keys ", end=""
    )
    print(f"(all lists read) {partitions:.2f} s, the other definitions (torch included) {definitions:.2f} s.")


if __name__ == "__main__":
    main()

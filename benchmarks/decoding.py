"""How fast `raw_clips` reads videos, beside a plain PyAV loop and other decoders that are installed; and its memory.

    python benchmarks/decoding.py [--clips 200] [--skip-memory]

Prints tables of clips a second on `ut_interaction` (where it lies beside the project) and on generated files of 10 s
and of 5 min at 320×240, and of the peak memory for 100 and for 1,000 clips. All rows of a table read the same frames of
the same files (centre window, 16 frames, stride 4), once the files are in the page cache.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.sampling import choose_windows
from lvdd_assets.distill.video import write_clip
from lvdd_assets.incremental import Pipeline
from lvdd_assets.resources import Workspace

SHAPE = ClipShape(16, 4, 112)
SHARED = Path(__file__).parents[2] / "shared" / "data" / "ut_interaction"
ENTRY = """
default: videos
datasets:
  videos:
    root: {root}
    layout: folders
    split: {{test_fraction: 0.25}}
    clip: 16x112
    budget: {{ipc: 1}}
"""


def generate(root: Path, *, num_files: int, seconds: int, num_classes: int = 2) -> None:
    """Moving texture with a bit of noise, 320×240 at 30 frames a second; one film, written once and linked."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, size=(60, 80, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    frames = np.stack([np.roll(texture, (shift, 2 * shift), axis=(0, 1))[:240, :320] for shift in range(300)])
    one = root / "one.mp4"
    root.mkdir(parents=True)
    write_clip(one, frames, fps=30, crf=23)
    if seconds > 10:
        _repeat(one, root / "long.mp4", seconds // 10)
        one = root / "long.mp4"
    for index in range(num_files):
        folder = root / "videos" / f"class{index % num_classes}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(one, folder / f"{index:05d}.mp4")


def _repeat(source: Path, target: Path, times: int) -> None:
    """The same packets again and again: a long file with a key frame wherever the short one had one."""
    with av.open(source) as reader, av.open(target, "w") as writer:
        stream = reader.streams.video[0]
        packets = [packet for packet in reader.demux(stream) if packet.size]
        copy = writer.add_stream_from_template(stream)
        length = max(packet.pts for packet in packets) + packets[0].duration
        for round_number in range(times):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + round_number * length, packet.dts + round_number * length
                again.time_base, again.is_keyframe, again.stream = packet.time_base, packet.is_keyframe, copy
                writer.mux(again)


def wanted_frames(num_frames: int) -> list[int]:
    """The same frames for every reader: the centre window, at a smaller stride where the file is short."""
    return choose_windows(np.arange(num_frames), SHAPE, Sampling(), name="")[0].frames.tolist()


def plain_pyav(path: Path) -> np.ndarray:
    """What one writes first: decode from the start to the last wanted frame, scale and crop the wanted ones."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        wanted = wanted_frames(stream.frames)
        frames = []
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                scale = SHAPE.size / min(frame.width, frame.height)
                width, height = round(frame.width * scale), round(frame.height * scale)
                pixels = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
                top, left = (height - SHAPE.size) // 2, (width - SHAPE.size) // 2
                frames.append(pixels[top : top + SHAPE.size, left : left + SHAPE.size])
            if index == wanted[-1]:
                return np.stack(frames)
    raise ValueError(f"{path} ended early")


def other_decoders() -> dict[str, Callable[[Path], object]]:
    """Decoders that happen to be installed; they return frames of the file's size (decord scales, without crop)."""
    found: dict[str, Callable[[Path], object]] = {}
    try:
        from torchcodec.decoders import VideoDecoder

        def torchcodec(path: Path) -> object:
            decoder = VideoDecoder(path, num_ffmpeg_threads=1)
            return decoder.get_frames_at(wanted_frames(decoder.metadata.num_frames)).data

        found[f"torchcodec {importlib.metadata.version('torchcodec')} (no scaling)"] = torchcodec
    except Exception as error:
        print(f"torchcodec: left out ({type(error).__name__})", file=sys.stderr)
    try:
        import decord

        def decord_reader(path: Path) -> object:
            reader = decord.VideoReader(str(path), width=149, height=112, num_threads=1)
            return reader.get_batch(wanted_frames(len(reader))).asnumpy()

        found[f"decord {decord.__version__} (no crop)"] = decord_reader
    except Exception as error:
        print(f"decord: left out ({type(error).__name__})", file=sys.stderr)
    return found


@contextmanager
def timed() -> Iterator[list[float]]:
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


def raw_clips(root: Path, *, num_workers: int) -> int:
    """Materializes `raw_clips` of a folder into a new data root; the number of clips stored."""
    from lvdd_assets.assets.raw_clips import STEP
    from lvdd_assets.distill.listing import class_names

    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "datasets.yaml"
        registry.write_text(ENTRY.format(root=root))
        pipeline = Pipeline(Workspace(registry, Path(folder) / "data", num_workers), (STEP,), progress=False)
        names = class_names(pipeline.workspace.catalog().dataset("videos"))
        outcomes = pipeline.bring_up_to_date("raw_clips", [f"videos/{name}" for name in names], {})
        return sum(outcome.commit.metrics["num_train"] + outcome.commit.metrics["num_test"] for outcome in outcomes)


def compare(title: str, root: Path) -> None:
    files = sorted(root.rglob("*.mp4"))
    for path in files:
        path.read_bytes()
    rows: list[tuple[str, float]] = []
    readers = {"plain PyAV loop, one process": plain_pyav, **other_decoders()}
    for name, reader in readers.items():
        with timed() as seconds:
            for path in files:
                reader(path)
        rows.append((name, len(files) / seconds[0]))
    for name, num_workers in (
        ("raw_clips, 1 worker", 1),
        ("raw_clips, 2 workers, pool cold", 2),
        ("raw_clips, 2 workers", 2),
    ):
        with timed() as seconds:
            num_clips = raw_clips(root, num_workers=num_workers)
        assert num_clips == len(files), f"{num_clips} of {len(files)} clips"
        rows.append((name, num_clips / seconds[0]))
    plain = rows[0][1]
    print(f"\n{title}: {len(files)} files\n\n| reader | clips/s | times the plain loop |\n| --- | ---: | ---: |")
    for name, rate in rows:
        print(f"| {name} | {rate:.1f} | {rate / plain:.2f} |")


def print_memory(root: Path, counts: tuple[int, ...]) -> None:
    """Peak of the summed resident memory of a fresh process and all that it starts."""
    import psutil

    print("\nPeak memory of raw_clips (process and children, one class)\n\n| clips | MB |\n| ---: | ---: |")
    for count in counts:
        folder = root / f"memory{count}"
        generate(folder, num_files=count, seconds=10, num_classes=1)
        process = psutil.Popen([sys.executable, __file__, "--only", str(folder / "videos")], stdout=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            tree = [process, *process.children(recursive=True)]
            total = 0
            for member in tree:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)
            time.sleep(0.02)
        if process.returncode:
            raise RuntimeError(f"reading {count} clips failed")
        print(f"| {count} | {peak / 1e6:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="generated files of 10 s (a quarter as many of 5 min)")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        raw_clips(options.only, num_workers=2)
        return
    print(f"{len(os.sched_getaffinity(0))} cores, PyAV {av.__version__}")
    if SHARED.is_dir():
        compare("ut_interaction, 128×128, H.264", SHARED)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root / "short", num_files=options.clips, seconds=10)
        compare("generated, 10 s, 320×240", root / "short" / "videos")
        generate(root / "long", num_files=max(2, options.clips // 4), seconds=300)
        compare("generated, 5 min, 320×240", root / "long" / "videos")
        if not options.skip_memory:
            print_memory(root, (100, 1000))


if __name__ == "__main__":
    main()

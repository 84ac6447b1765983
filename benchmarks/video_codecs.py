"""Clips as AV1, HEVC and H.264: bytes a clip and PSNR, at several qualities and frame sizes.

    python benchmarks/video_codecs.py [--dataset NAME] [--clips N] [--budgets]

Clips are a dataset's of the registry (all of its train clips, or N of each class), else the demo generator's. `plain`
is packets alone, as `video_budget.fill_budget` counts; `kept` is with the frames' headers stored once for a class
(`video_coding`), that pattern and the stream headers included. Smaller frames are scaled back before PSNR is taken.
With --budgets, what `video_coding.fill` makes of 30 to 800 B a clip, all classes at one slope.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lvdd_assets.distill.bitstreams import CODECS, Codec, learn_pattern, split_units
from lvdd_assets.distill.codec import decode_clip, encode_clip
from lvdd_assets.distill.coded_videos import CodedVideos, Head
from lvdd_assets.distill.demo import MOTIONS, render_clip
from lvdd_assets.distill.listing import list_dataset
from lvdd_assets.distill.registry import load_catalog
from lvdd_assets.distill.video import read_clips
from lvdd_assets.distill.video_coding import fill
from lvdd_assets.distill.video_ladders import build_ladder, frame_sizes

CRFS = {"av1": (30, 40, 50, 58, 63, 70), "hevc": (25, 32, 40, 46, 51), "h264": (25, 32, 40, 46, 51)}
BUDGETS = (30, 60, 100, 200, 400, 800)
Clips = dict[str, np.ndarray]


def demo_clips(per_class: int) -> Clips:
    """uint8 [N, 8, 3, 64, 64] of each motion, every third frame."""
    return {
        motion: np.stack([render_clip(motion, seed=seed)[::3].transpose(0, 3, 1, 2) for seed in range(per_class)])
        for motion in MOTIONS
    }


def dataset_clips(name: str, per_class: int | None) -> Clips:
    """The train clips of a dataset of the registry."""
    catalog = load_catalog(Path(os.environ.get("LVDD_DATASETS", "data/datasets.yaml")))
    spec = catalog.dataset(name)
    found = {}
    for class_name, listed in list_dataset(spec).items():
        files = [clip.name for clip in listed.clips if not clip.is_test][:per_class]
        read = [read_clips(spec.root / file, spec.shape, spec.sampling, name=file)[0].frames_TCHW for file in files]
        found[class_name] = np.stack(read)
    return found


def psnr(errors: list[int], num_values: int) -> float:
    return 10 * np.log10(255**2 * num_values / sum(errors))


def measure(clips: Clips, codec: Codec, size: tuple[int, int], crf: int) -> tuple[float, float, float, float]:
    """Bytes a clip plain and kept, PSNR, and clips encoded and decoded a second."""
    start, plain, kept, errors = time.perf_counter(), 0, 0, []
    for rows in clips.values():
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            encoded = list(pool.map(lambda clip: encode_clip(clip, codec=codec, crf=crf, size=size), rows))
            decoded = list(pool.map(decode_clip, encoded))
        errors += [int(np.square(a.astype(np.int64) - b).sum()) for a, b in zip(rows, decoded, strict=True)]
        pattern = learn_pattern([split_units(clip.packets, codec) for clip in encoded])
        heads = tuple(dict.fromkeys(Head(size, clip.header, pattern) for clip in encoded))
        packets = tuple(clip.packets for clip in encoded)
        videos = CodedVideos(codec, rows.shape[1], *rows.shape[-2:], heads, (0,) * len(rows), packets)
        plain, kept = plain + sum(map(len, packets)), kept + len(videos.to_bytes())
    count = sum(map(len, clips.values()))
    rate = count / (time.perf_counter() - start)
    return plain / count, kept / count, psnr(errors, sum(rows.size for rows in clips.values())), rate


def print_table(clips: Clips) -> None:
    print("| codec | frames | crf | plain, B a clip | kept, B a clip | PSNR, dB | clips/s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    height, width = next(iter(clips.values())).shape[-2:]
    for codec in CODECS:
        for size in frame_sizes(height, width)[::2]:
            for crf in CRFS[codec]:
                plain, kept, quality, rate = measure(clips, codec, size, crf)
                frames = f"{size[0]}×{size[1]}"
                print(
                    f"| {codec} | {frames} | {crf} | {plain:.1f} | {kept:.1f} | {quality:.2f} | {rate:.0f} |",
                    flush=True,
                )


def print_budgets(clips: Clips) -> None:
    print(
        "\n| codec | B a clip allowed | used | clips kept | PSNR of these, dB | s to fill |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    count = sum(map(len, clips.values()))
    for codec in CODECS:
        start = time.perf_counter()
        ladders = {name: build_ladder(rows, codec=codec) for name, rows in clips.items()}
        built = time.perf_counter() - start
        for budget in BUDGETS:
            start = time.perf_counter()
            videos = fill(ladders, budget * count)
            taken = time.perf_counter() - start
            used = sum(len(kept.to_bytes()) for kept in videos.values())
            pairs = [(kept.decode(), clips[name][: kept.num_clips]) for name, kept in videos.items()]
            quality = psnr(
                [int(np.square(a.astype(np.int64) - b).sum()) for a, b in pairs], sum(b.size for _, b in pairs)
            )
            num_clips = sum(kept.num_clips for kept in videos.values())
            print(
                f"| {codec} | {budget} | {used / count:.1f} | {num_clips} of {count} | {quality:.2f} | {taken:.2f} |",
                flush=True,
            )
        print(f"| {codec} | ladders | | {count} | | {built:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="a dataset of the registry; without it the demo generator's clips")
    parser.add_argument("--clips", type=int, help="clips of each class; all, or 8 of the demo's")
    parser.add_argument("--budgets", action="store_true", help="also what budgets are filled with")
    args = parser.parse_args()
    clips = dataset_clips(args.dataset, args.clips) if args.dataset else demo_clips(args.clips or 8)
    shape = " × ".join(map(str, next(iter(clips.values())).shape[1:]))
    count = sum(map(len, clips.values()))
    print(f"{count} clips of {shape} in {len(clips)} classes, {len(os.sched_getaffinity(0))} cores\n")
    print_table(clips)
    if args.budgets:
        print_budgets(clips)


if __name__ == "__main__":
    main()

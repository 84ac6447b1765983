"""Accuracy at a number of bytes a clip: what is kept as latents, by the paper's recipe, and as AV1.

    python benchmarks/rate_accuracy.py DATASET --rows full "tight 99" paper "codec 100" "plain 48 63" --seeds 0 1 2 \
        --scores FILE.csv [--vae NAME]

Bytes are those of the coded clips of all classes, for latents without the decoder. Rows:

    full                  the originals
    latents               through the autoencoder, nothing coded
    paper                 Tucker at the published rank ratio, float32
    tight BYTES           recipe tight at the finest step that takes at most BYTES a clip
    codec BYTES           recipe codec (AV1, rates and frame sizes clip by clip, what clips share stored once)
    plain SIZE CRF        AV1 packets as they come, frames of SIZE pixels scaled back up
    av1 BYTES             AV1 packets as they come, in at most BYTES a clip: of frames of the clips' size, of three
                          quarters and of half of it, scaled back up, and of all qualities, one for all clips, what
                          keeps most clips and of those the highest PSNR; the stream header once

Bytes a clip are shared among all clips of the set, also where a row has no room for all of them: `codec` then keeps the
first of each class, `av1` some of each class drawn at random. PSNR is that of the clips that are kept.

Every network is a ConvNet3D trained alike (50 epochs of the originals, batch 16, one cycle to 0.01, flips). Each score
is appended to FILE.csv when it is there; what the file has is not trained again, so that a run can be cut and go on.
Without --rows the table of the scores in the file is printed.
"""

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from signal_kept import Clips, read
from torch.utils.data import TensorDataset

from lvdd_assets.distill import class_coding, codec, evaluation, paper, tucker, video_budget, video_coding
from lvdd_assets.distill.budget import BudgetError, fit_allowance
from lvdd_assets.distill.class_coding import ClassCoder, CodedClass
from lvdd_assets.distill.devices import find_device
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.distill.video_budget import TooSmallError
from lvdd_assets.distill.video_ladders import VideoLadder, build_ladder, frame_sizes

PROTOCOL = evaluation.Protocol(epochs=50, batch_size=16, learning_rate=0.01, augmentation=("flip",))
COLUMNS = (
    *("dataset", "vae", "row", "bytes_per_clip", "psnr_db", "seed", "top1", "test_clips", "updates", "seconds"),
    *("train_clips", "device"),
)


class Autoencoder(Protocol):
    """Clips to latents and back, as `vae.VideoAutoencoder` does."""

    def encode(self, clips_NTCHW: np.ndarray, /) -> np.ndarray: ...

    def decode(self, latents_NTChw: np.ndarray, /, *, num_frames: int | None = None) -> np.ndarray: ...


@dataclass(frozen=True)
class Kept:
    """What a row keeps: bytes of all clips together, which of the train clips, and these decoded."""

    num_bytes: int
    items: np.ndarray
    decoded: np.ndarray


def keep(row: str, clips: Clips, vae: Autoencoder) -> Kept:
    """What a row keeps of the train clips.

    Raises:
        ValueError: not even one clip of each class fits.
    """
    name, *numbers = row.split()
    everything = np.arange(len(clips.train))
    if name == "full":
        return Kept(clips.train.nbytes, everything, clips.train)
    if name == "plain":
        size, crf = map(int, numbers)
        kept = [codec.encode_clip(clip, codec="av1", crf=crf, size=(size, size)) for clip in clips.train]
        decoded = np.stack([codec.decode_clip(clip) for clip in kept])
        return Kept(sum(clip.stored_bytes for clip in kept), everything, decoded)
    allowed = int(numbers[0]) * len(everything) if numbers else 0
    if name == "av1":
        return _as_plain_video(clips, allowed)
    if name == "codec":
        return _as_video(clips, allowed, video_ladders(clips))
    latents = vae.encode(clips.train)
    if name == "latents":
        return Kept(latents.nbytes, everything, _pixels(latents, clips, vae))
    groups = [latents[clips.train_labels == label] for label in np.unique(clips.train_labels)]
    coded = [_by_paper(group) for group in groups] if name == "paper" else _tight(groups, allowed)
    decoded_latents = np.empty_like(latents)
    for label, of_class in enumerate(coded):
        decoded_latents[clips.train_labels == label] = class_coding.decode(of_class)
    return Kept(sum(len(of_class.data) for of_class in coded), everything, _pixels(decoded_latents, clips, vae))


def _by_paper(latents: np.ndarray) -> CodedClass:
    ranks = tucker.ranks_from_ratio(latents.shape[1:], paper.RANK_RATIO)
    return class_coding.encode_tucker(tucker.decompose(latents, ranks=ranks))


def _tight(groups: Sequence[np.ndarray], allowed: int) -> list[CodedClass]:
    coders = [ClassCoder(tucker.decompose(group)) for group in groups]
    fit = fit_allowance(
        lambda step, _share: sum(len(coder.encode(step).data) for coder in coders),
        allowed=allowed,
        most_clips=1,
        coarsest=16.0,
    )
    return [coder.encode(fit.step) for coder in coders]


def video_ladders(clips: Clips) -> dict[str, VideoLadder]:
    """Each class's clips at every rung, which serve every number of bytes."""
    groups = {str(label): clips.train[clips.train_labels == label] for label in np.unique(clips.train_labels)}
    return {name: build_ladder(group) for name, group in groups.items()}


def _as_video(clips: Clips, allowed: int, ladders: Mapping[str, VideoLadder]) -> Kept:
    kept = video_coding.fill(ladders, allowed)
    items = [np.flatnonzero(clips.train_labels == int(name))[: videos.num_clips] for name, videos in kept.items()]
    decoded = [videos.decode() for videos in kept.values()]
    num_bytes = sum(len(videos.to_bytes()) for videos in kept.values())
    return Kept(num_bytes, np.concatenate(items), np.concatenate(decoded))


def _as_plain_video(clips: Clips, allowed: int) -> Kept:
    sizes = frame_sizes(*clips.train.shape[-2:])[:3]
    kept = video_budget.fill_budget(
        clips.train, clips.train_labels, num_bytes=allowed, codec="av1", seed=0, sizes=sizes
    )
    return Kept(kept.stored_bytes, kept.items_N, kept.clips_NTCHW)


def _pixels(latents: np.ndarray, clips: Clips, vae: Autoencoder) -> np.ndarray:
    frames = clips.train.shape[1]
    return np.concatenate(
        [vae.decode(latents[start : start + 32], num_frames=frames) for start in range(0, len(latents), 32)]
    )


def score(clips: Clips, kept: Kept, seed: int, device: str) -> evaluation.Score:
    """Trains on what is kept for as long as on the originals, and tests on the test clips."""
    train = TensorDataset(torch.from_numpy(kept.decoded), torch.from_numpy(clips.train_labels[kept.items]))
    test = TensorDataset(torch.from_numpy(clips.test), torch.from_numpy(clips.test_labels))
    return evaluation.train_and_test(
        train,
        test,
        num_classes=int(clips.train_labels.max()) + 1,
        protocol=PROTOCOL,
        seed=seed,
        num_updates=evaluation.updates_for(len(clips.train), PROTOCOL),
        device=device,
    )


def line_of(dataset: str, vae: str, row: str, clips: Clips, kept: Kept, result: evaluation.Score, device: str) -> tuple:
    """A line of the file, in the order of COLUMNS."""
    size = f"{kept.num_bytes / len(clips.train):.1f}"
    quality = "" if row == "full" else f"{psnr(clips.train[kept.items], kept.decoded):.2f}"
    figures = (result.seed, f"{result.top1:.4f}", len(clips.test), result.num_updates, f"{result.seconds:.0f}")
    return (dataset, vae, row, size, quality, *figures, len(kept.items), device)


def stored(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(dataset: str, vae_name: str | None, rows: Sequence[str], seeds: Sequence[int], path: Path, device: str) -> None:
    clips, registered = read(dataset)
    vae = load_autoencoder(vae_name or registered)
    label = Path(vae_name or registered).name
    known: dict[str, Kept] = {}
    refused: set[str] = set()
    for seed in seeds:
        for row in rows:
            if row in refused or any(
                (line["dataset"], line["row"], line["seed"]) == (dataset, row, str(seed)) for line in stored(path)
            ):
                continue
            try:
                if row not in known:
                    known[row] = keep(row, clips, vae)
            except (BudgetError, TooSmallError) as error:
                print(f"{dataset}, {row}: {error}", file=sys.stderr)
                refused.add(row)
                continue
            result = score(clips, known[row], seed, device)
            is_new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if is_new:
                    writer.writerow(COLUMNS)
                writer.writerow(line_of(dataset, label, row, clips, known[row], result, device))


def print_table(paths: Sequence[Path]) -> None:
    lines = [line for path in paths for line in stored(path)]
    rows = defaultdict(list)
    for line in lines:
        rows[line["dataset"], line["row"]].append(line)
    print("| dataset | kept as | clips | B a clip | PSNR, dB | top-1 by seed, % | mean ± deviation |")
    print("|---|---|---:|---:|---:|---|---:|")
    for (dataset, row), scores in sorted(
        rows.items(), key=lambda item: (item[0][0], -float(item[1][0]["bytes_per_clip"]))
    ):
        found = [100 * float(line["top1"]) for line in sorted(scores, key=lambda line: int(line["seed"]))]
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        first, by_seed = scores[0], ", ".join(f"{value:.1f}" for value in found)
        print(
            f"| {dataset} | {row} | {first.get('train_clips') or '–'} | {float(first['bytes_per_clip']):,.0f} "
            f"| {first['psnr_db'] or '–'} | {by_seed} | {statistics.fmean(found):.1f}{spread} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--rows", nargs="*", default=())
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="where scores lie; one to write to")
    parser.add_argument("--vae", help="instead of the registry's")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.rows:
        device = find_device(options.device)
        run(options.dataset, options.vae, options.rows, options.seeds, options.scores[0], device)
    print_table(options.scores)


if __name__ == "__main__":
    main()

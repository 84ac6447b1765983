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

Every network is a ConvNet3D trained alike (50 epochs of the originals, batch 16, one cycle to 0.01, flips). Each score
is appended to FILE.csv when it is there; what the file has is not trained again, so that a run can be cut and go on.
Without --rows the table of the scores in the file is printed.
"""

import argparse
import csv
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from signal_kept import Clips, read
from torch.utils.data import TensorDataset

from lvdd_assets.distill import class_coding, codec, evaluation, paper, tucker, video_coding
from lvdd_assets.distill.budget import fit_allowance
from lvdd_assets.distill.class_coding import ClassCoder, CodedClass
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.vae import VideoAutoencoder, load_autoencoder

PROTOCOL = evaluation.Protocol(epochs=50, batch_size=16, learning_rate=0.01, augmentation=("flip",))
COLUMNS = ("dataset", "vae", "row", "bytes_per_clip", "psnr_db", "seed", "top1", "test_clips", "updates", "seconds")


def keep(row: str, clips: Clips, vae: VideoAutoencoder) -> tuple[float, np.ndarray]:
    """Bytes a clip and decoded clips of a row."""
    name, *numbers = row.split()
    count = len(clips.train)
    if name == "full":
        return clips.train.nbytes / count, clips.train
    if name == "plain":
        size, crf = map(int, numbers)
        kept = [codec.encode_clip(clip, codec="av1", crf=crf, size=(size, size)) for clip in clips.train]
        return sum(clip.stored_bytes for clip in kept) / count, np.stack([codec.decode_clip(clip) for clip in kept])
    if name == "codec":
        return _as_video(clips, int(numbers[0]))
    latents = vae.encode(clips.train)
    if name == "latents":
        return latents.nbytes / count, _pixels(latents, clips, vae)
    groups = [latents[clips.train_labels == label] for label in np.unique(clips.train_labels)]
    coded = [_by_paper(group) for group in groups] if name == "paper" else _tight(groups, int(numbers[0]) * count)
    decoded = np.empty_like(latents)
    for label, of_class in enumerate(coded):
        decoded[clips.train_labels == label] = class_coding.decode(of_class)
    return sum(len(of_class.data) for of_class in coded) / count, _pixels(decoded, clips, vae)


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


def _as_video(clips: Clips, bytes_per_clip: int) -> tuple[float, np.ndarray]:
    groups = {str(label): clips.train[clips.train_labels == label] for label in np.unique(clips.train_labels)}
    ladders = {name: video_coding.build_ladder(group) for name, group in groups.items()}
    kept = video_coding.fill(ladders, bytes_per_clip * len(clips.train))
    decoded = np.empty_like(clips.train)
    for name, videos in kept.items():
        if videos.num_clips < len(groups[name]):
            raise ValueError(f"{bytes_per_clip} B a clip do not hold all clips; expected enough for every one")
        decoded[clips.train_labels == int(name)] = videos.decode()
    return sum(len(videos.to_bytes()) for videos in kept.values()) / len(clips.train), decoded


def _pixels(latents: np.ndarray, clips: Clips, vae: VideoAutoencoder) -> np.ndarray:
    frames = clips.train.shape[1]
    return np.concatenate(
        [vae.decode(latents[start : start + 32], num_frames=frames) for start in range(0, len(latents), 32)]
    )


def score(clips: Clips, decoded: np.ndarray, seed: int) -> evaluation.Score:
    train = TensorDataset(torch.from_numpy(decoded), torch.from_numpy(clips.train_labels))
    test = TensorDataset(torch.from_numpy(clips.test), torch.from_numpy(clips.test_labels))
    classes = int(clips.train_labels.max()) + 1
    return evaluation.train_and_test(train, test, num_classes=classes, protocol=PROTOCOL, seed=seed)


def stored(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(dataset: str, vae_name: str | None, rows: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    clips, registered = read(dataset)
    vae = load_autoencoder(vae_name or registered)
    label = Path(vae_name or registered).name
    known: dict[str, tuple[float, np.ndarray]] = {}
    for seed in seeds:
        for row in rows:
            if any((line["dataset"], line["row"], line["seed"]) == (dataset, row, str(seed)) for line in stored(path)):
                continue
            if row not in known:
                known[row] = keep(row, clips, vae)
            size, decoded = known[row]
            result = score(clips, decoded, seed)
            quality = "" if row == "full" else f"{psnr(clips.train, decoded):.2f}"
            figures = (f"{size:.1f}", quality, seed, f"{result.top1:.4f}", len(clips.test), result.num_updates)
            is_new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if is_new:
                    writer.writerow(COLUMNS)
                writer.writerow((dataset, label, row, *figures, f"{result.seconds:.0f}"))


def print_table(paths: Sequence[Path]) -> None:
    lines = [line for path in paths for line in stored(path)]
    rows = defaultdict(list)
    for line in lines:
        rows[line["dataset"], line["row"]].append(line)
    print("| dataset | kept as | B a clip | PSNR, dB | top-1 by seed, % | mean ± deviation |")
    print("|---|---|---:|---:|---|---:|")
    for (dataset, row), scores in sorted(
        rows.items(), key=lambda item: (item[0][0], -float(item[1][0]["bytes_per_clip"]))
    ):
        found = [100 * float(line["top1"]) for line in sorted(scores, key=lambda line: int(line["seed"]))]
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        first, by_seed = scores[0], ", ".join(f"{value:.1f}" for value in found)
        print(
            f"| {dataset} | {row} | {float(first['bytes_per_clip']):,.0f} | {first['psnr_db'] or '–'} | {by_seed} "
            f"| {statistics.fmean(found):.1f}{spread} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--rows", nargs="*", default=())
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="where scores lie; one to write to")
    parser.add_argument("--vae", help="instead of the registry's")
    options = parser.parse_args()
    if options.rows:
        run(options.dataset, options.vae, options.rows, options.seeds, options.scores[0])
    print_table(options.scores)


if __name__ == "__main__":
    main()

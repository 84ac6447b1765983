"""What ways of keeping clips are worth to a network: bytes, PSNR and the signal that judges trained on originals find.

    python benchmarks/signal_kept.py [DATASET] [--vae NAME] [--judges 3]

Coding variants of one set of latents (plain rounding, dead zone, finer or coarser first temporal component, spatial
frequencies) beside AV1 at several rates and frame sizes, plain and as recipe codec keeps it. With --accuracy SEEDS a
ConvNet3D is trained on each variant and tested on the test clips: does the figure follow accuracy?
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import TensorDataset

from lvdd_assets.definitions import build_pipeline
from lvdd_assets.distill import codec, coefficient_coding, evaluation, tucker, video_coding, video_ladders
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.listing import class_names
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.utility import Judge, train_judge
from lvdd_assets.distill.vae import VideoAutoencoder, load_autoencoder
from lvdd_assets.partitions import class_key
from lvdd_assets.resources import workspace_from_environment


@dataclass(frozen=True)
class Clips:
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def read(dataset: str) -> tuple[Clips, str]:
    workspace = workspace_from_environment()
    spec = workspace.catalog().dataset(dataset)
    keys = [class_key(spec.name, name) for name in class_names(spec)]
    build_pipeline(workspace).bring_up_to_date("raw_clips", keys, None)
    stored = [ZarrStore(workspace.data_root, "raw_clips").open(key) for key in keys]
    parts = {split: [partition.read(split) for partition in stored] for split in ("train", "test")}
    labels = {split: np.repeat(np.arange(len(keys)), [len(part) for part in parts[split]]) for split in parts}
    train, test = np.concatenate(parts["train"]), np.concatenate(parts["test"])
    return Clips(train, labels["train"], test, labels["test"]), spec.vae


def code(
    latents: np.ndarray, labels: np.ndarray, steps: Callable[[tuple[int, ...]], np.ndarray], *, dead_zone: float = 0.0
) -> tuple[int, np.ndarray]:
    """Bytes of the coefficients and the decoded latents, each class in its own HOSVD basis."""
    size, decoded = 0, np.empty_like(latents)
    for label in np.unique(labels):
        hosvd = tucker.decompose(latents[labels == label])
        scaled = hosvd.core / steps(hosvd.core.shape[1:])
        integers = (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5 - dead_zone)).astype(np.int32)
        size += len(coefficient_coding.encode(integers))
        core = (integers * steps(hosvd.core.shape[1:])).astype(np.float32)
        decoded[labels == label] = tucker.reconstruct(tucker.TuckerTensor(core, hosvd.factors))
    return size, decoded


def first_and_rest(first: float, rest: float) -> Callable[[tuple[int, ...]], np.ndarray]:
    return lambda sizes: np.where(np.arange(sizes[0]) == 0, first, rest).reshape(-1, 1, 1, 1) * np.ones(sizes)


def by_frequency(step: float, power: float) -> Callable[[tuple[int, ...]], np.ndarray]:
    def steps(sizes: tuple[int, ...]) -> np.ndarray:
        order = np.arange(sizes[2])[:, None] + np.arange(sizes[3])
        return step * (1 + order / 6.0) ** power * np.ones(sizes)

    return steps


def variants(clips: Clips, vae: VideoAutoencoder) -> Iterator[tuple[str, float, np.ndarray]]:
    """Name, bytes a clip, decoded clips."""
    count, frames = len(clips.train), clips.train.shape[1]
    latents = vae.encode(clips.train)

    def decode(found: np.ndarray) -> np.ndarray:
        parts = [vae.decode(found[start : start + 32], num_frames=frames) for start in range(0, count, 32)]
        return np.concatenate(parts)

    yield "latents, not coded", float("nan"), decode(latents)
    for first, rest in [(1, 1), (1.5, 1.5), (2, 2), (0.84, 1.4), (1.11, 1.85), (1.5, 2.5), (0.84, 2.1), (1.95, 1.3)]:
        size, coded = code(latents, clips.train_labels, first_and_rest(first, rest))
        yield f"rounding, step {rest:g}, first {first / rest:.2g}", size / count, decode(coded)
    for step in (0.7, 1.0, 1.5):
        size, coded = code(latents, clips.train_labels, first_and_rest(step, step), dead_zone=0.15)
        yield f"dead zone, step {step:g}", size / count, decode(coded)
    for power, step in ((0.5, 1.1), (-0.5, 2.0)):
        size, coded = code(latents, clips.train_labels, by_frequency(step, power))
        yield f"step by frequency, power {power:g}", size / count, decode(coded)
    yield from plain_video(clips)
    yield from filled_video(clips)


def plain_video(clips: Clips) -> Iterator[tuple[str, float, np.ndarray]]:
    """AV1 as it comes: packets of each clip."""
    edge = clips.train.shape[-1]
    for share, crf in ((1.0, 63), (0.75, 63), (0.5, 63), (0.5, 55), (1.0, 55), (0.75, 50), (1.0, 45)):
        small = 2 * round(edge * share / 2)
        kept = [codec.encode_clip(clip, codec="av1", crf=crf, size=(small, small)) for clip in clips.train]
        size = sum(clip.stored_bytes for clip in kept)
        yield f"AV1, {small} px, crf {crf}", size / len(kept), np.stack([codec.decode_clip(clip) for clip in kept])


def filled_video(clips: Clips) -> Iterator[tuple[str, float, np.ndarray]]:
    """AV1 as recipe codec keeps it: rates and frame sizes clip by clip, what clips have in common once."""
    groups = {str(label): clips.train[clips.train_labels == label] for label in np.unique(clips.train_labels)}
    ladders = {name: video_ladders.build_ladder(group) for name, group in groups.items()}
    for allowed in (60, 80, 100, 150, 200, 300, 400, 800):
        kept = video_coding.fill(ladders, allowed * len(clips.train))
        if any(videos.num_clips < len(groups[name]) for name, videos in kept.items()):
            continue
        size = sum(len(videos.to_bytes()) for videos in kept.values())
        decoded = np.empty_like(clips.train)
        for name, videos in kept.items():
            decoded[clips.train_labels == int(name)] = videos.decode()
        yield f"recipe codec, {allowed} B allowed", size / len(clips.train), decoded


def accuracy(clips: Clips, decoded: np.ndarray, seeds: int) -> str:
    protocol = evaluation.Protocol(epochs=50, augmentation=("flip",), seeds=tuple(range(seeds)))
    train = TensorDataset(torch.from_numpy(decoded), torch.from_numpy(clips.train_labels))
    test = TensorDataset(torch.from_numpy(clips.test), torch.from_numpy(clips.test_labels))
    (row,) = evaluation.compare({"": train}, test, num_classes=int(clips.train_labels.max()) + 1, protocol=protocol)
    return " | " + ", ".join(f"{score.top1:.1%}" for score in row.scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="demo")
    parser.add_argument("--vae", help="instead of the registry's")
    parser.add_argument("--judges", type=int, default=3)
    parser.add_argument("--accuracy", type=int, default=0, metavar="SEEDS")
    options = parser.parse_args()
    clips, name = read(options.dataset)
    vae = load_autoencoder(options.vae or name)
    num_classes = int(clips.train_labels.max()) + 1
    judges: list[Judge] = [
        train_judge(clips.train, clips.train_labels, num_classes=num_classes, seed=seed)
        for seed in range(options.judges)
    ]
    everything = np.arange(len(clips.train))
    print(
        f"{options.dataset}: {len(everything)} train clips, {options.vae or name}, {torch.get_num_threads()} threads\n"
    )
    print("| kept as | B a clip | PSNR, dB | signal kept | mean |" + (" top-1 |" if options.accuracy else ""))
    print("|---|---:|---:|---:|---:|" + ("---:|" if options.accuracy else ""))
    for label, size, decoded in variants(clips, vae):
        kept = [judge.signal_kept(clips.train, decoded, everything) for judge in judges]
        figures = " ".join(f"{value:.3f}" for value in kept)
        trained = accuracy(clips, decoded, options.accuracy) if options.accuracy else ""
        print(
            f"| {label} | {size:.1f} | {psnr(clips.train, decoded):.2f} | {figures} | {np.mean(kept):.3f}{trained} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Is the demo dataset about motion? One frame should say next to nothing about the class, the whole clip nearly all.

Renders the demo's files into a temporary folder, reads them as the pipeline does, and trains a 2D network on single
frames and the 3D network of the evaluation on clips:

    python benchmarks/demo_learnability.py
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import TensorDataset
from tqdm import tqdm

from lvdd_assets.distill.catalog import ClipShape, Sampling
from lvdd_assets.distill.demo import MOTIONS, render_dataset
from lvdd_assets.distill.evaluation import Protocol, train_and_test, updates_for
from lvdd_assets.distill.video import read_clips

SHAPE = ClipShape(frames=8, stride=3, size=64)


def read_split(root: Path, split: str) -> TensorDataset:
    """All clips of a split: uint8 [N, T, C, H, W], and their labels."""
    files = [
        (path, label) for label, motion in enumerate(MOTIONS) for path in sorted((root / split / motion).iterdir())
    ]
    clips_NTCHW = np.stack([read_clips(path, SHAPE, Sampling())[0].frames_TCHW for path, _ in files])
    return TensorDataset(torch.from_numpy(clips_NTCHW), torch.tensor([label for _, label in files]))


def frame_network() -> nn.Module:
    """A 2D network of the usual kind, with normalisation, so that it learns from little whatever is there."""
    layers: list[nn.Module] = []
    channels = (3, 32, 64, 96, 96)
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 4 * 4, len(MOTIONS)))


def frame_accuracies(train: TensorDataset, test: TensorDataset, *, epochs: int, seed: int) -> dict[str, float]:
    """Trains on one random frame of each clip and epoch; the training frames show that it can learn at all."""
    torch.manual_seed(seed)
    clips, labels = train.tensors
    network = frame_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    steps_per_epoch = -(-len(clips) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps_per_epoch)
    for _ in tqdm(range(epochs), desc="2D, single frames", leave=False, disable=None):
        frames = clips[torch.arange(len(clips)), torch.randint(clips.shape[1], (len(clips),))]
        for chosen in torch.randperm(len(clips)).split(32):
            loss = nn.functional.cross_entropy(network(frames[chosen] / 127.5 - 1), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()

    def hits(split: TensorDataset) -> torch.Tensor:
        clips, labels = split.tensors
        with torch.inference_mode():
            return torch.stack([network(frames / 127.5 - 1).argmax(1) == labels for frames in clips.unbind(1)], dim=1)

    chosen = {"its training frames": hits(train), "all frames": hits(test)}
    chosen |= {"first frame": chosen["all frames"][:, 0], "middle frames": chosen["all frames"][:, 3:5]}
    return {name: tested.double().mean().item() for name, tested in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, default=26)
    parser.add_argument("--num-test", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--frame-epochs", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--clip-norm", type=float, default=Protocol.clip_norm)
    parser.add_argument("--num-seeds", type=int, default=1)
    parser.add_argument("--skip-3d", action="store_true")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        num_files = render_dataset(Path(folder), num_train=arguments.num_train, num_test=arguments.num_test)
        print(f"rendered {num_files} files in {time.perf_counter() - start:.1f} s")
        train, test = (read_split(Path(folder), split) for split in ("train", "test"))

    protocol = Protocol(epochs=arguments.epochs, learning_rate=arguments.learning_rate, clip_norm=arguments.clip_norm)
    rows = []
    for seed in range(arguments.num_seeds):
        start = time.perf_counter()
        for name, accuracy in frame_accuracies(train, test, epochs=arguments.frame_epochs, seed=seed).items():
            rows.append(("2D network, one frame", name, seed, accuracy, time.perf_counter() - start))
        if arguments.skip_3d:
            continue
        with tqdm(total=updates_for(len(train), protocol), desc="3D, clips", leave=False, disable=None) as bar:
            score = train_and_test(
                train, test, num_classes=len(MOTIONS), protocol=protocol, seed=seed, progress=lambda *_: bar.update()
            )
        rows.append(("ConvNet3D", "whole clips", seed, score.top1, score.seconds))
        print(pd.DataFrame(score.confusion, index=MOTIONS, columns=[motion[:8] for motion in MOTIONS]).to_string())
    table = pd.DataFrame(rows, columns=["network", "tested on", "seed", "top-1 %", "seconds"])
    table["top-1 %"] *= 100
    print(f"\n{len(train)} training clips, {len(test)} test clips, chance {100 / len(MOTIONS):.1f} %, {protocol}")
    print(table.to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()

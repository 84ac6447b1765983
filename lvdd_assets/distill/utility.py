"""What kept clips are worth to a classifier, without training one for each way of keeping them.

A small network is trained once on the original train clips. Of each kept clip, the part of its features that survives
is measured: the squared error of the decoded clip's features, against how far the clip lies from the mean of all. What
a network sees is not what PSNR sees: a dead zone raises PSNR and lowers accuracy, and lowers this figure as well
(docs/coding.md shows figure and accuracy side by side). A clip that is left out keeps nothing.

Legend: N clips, T frames, C channels, H, W pixels, F features.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, TensorDataset

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.networks import ConvNet3D
from lvdd_assets.distill.protocols import Protocol, updates_for
from lvdd_assets.distill.training import Progress

# Enough for the features to be about classes; a judge need not be finished.
PROTOCOL = Protocol(epochs=20, batch_size=16, learning_rate=0.01)
MOST_UPDATES = 300
MOST_CLIPS = 512  # of all classes together, evenly, so that judging a large set does not take longer
_BATCH = 32


class Judge:
    """A network trained on some originals, and what it sees of them."""

    def __init__(self, network: ConvNet3D, device: str = "cpu") -> None:
        self._network, self._device = network.eval(), torch.device(device)

    @torch.inference_mode()
    def features(self, clips_NTCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the classifier sees of each clip: float32 [N, F]."""
        parts = [
            self._network.embed(torch.from_numpy(clips_NTCHW[start : start + _BATCH]).to(self._device))
            for start in range(0, len(clips_NTCHW), _BATCH)
        ]
        return np.concatenate([part.flatten(1).float().cpu().numpy() for part in parts])

    def signal_kept(
        self, originals_NTCHW: NDArray[np.uint8], decoded_NTCHW: NDArray[np.uint8], positions: NDArray[np.integer]
    ) -> float:
        """Share of the originals' signal that is kept, in 0 … 1: 1 where features do not change, 0 for a clip that is
        left out or comes back as unlike itself as the average clip is.

        Args:
            originals_NTCHW: uint8 [N, T, 3, H, W], at least two clips.
            decoded_NTCHW: uint8 [M, T, 3, H, W], as a release gives them back.
            positions: [M], which original each decoded clip is.
        """
        originals = self.features(originals_NTCHW)
        spread = np.square(originals - originals.mean(0)).sum(1).mean()
        if spread == 0:
            raise ValueError("all clips look the same to the judge: there is no signal to keep")
        errors = np.square(self.features(decoded_NTCHW) - originals[positions]).sum(1)
        return float(np.maximum(0.0, 1 - errors / spread).sum() / len(originals))


def train_judge(
    clips_NTCHW: NDArray[np.uint8],
    labels_N: NDArray[np.integer],
    *,
    num_classes: int,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Judge:
    """Trains a ConvNet3D on original clips; the same clips and seed give the same judge on one machine.

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        labels_N: class of each clip.
        num_classes: number of classes, at least two.
        seed: of initialisation and order.
        device: where to train.
        progress: called with updates done and to do.
    """
    train = TensorDataset(torch.from_numpy(clips_NTCHW), torch.from_numpy(np.asarray(labels_N, dtype=np.int64)))
    updates = min(MOST_UPDATES, updates_for(len(train), PROTOCOL))
    network = evaluation.train_network(
        train, num_classes=num_classes, protocol=PROTOCOL, seed=seed, updates=updates, device=device, progress=progress
    )
    assert isinstance(network, ConvNet3D)
    return Judge(network, device)


def judged_positions(counts: Mapping[str, int], most: int = MOST_CLIPS) -> dict[str, NDArray[np.intp]]:
    """Which clips of each class are judged: all, or as many as `most` allows, spread evenly over each class."""
    each = max(2, most // len(counts))
    return {
        name: np.unique(np.linspace(0, count - 1, min(count, each)).astype(np.intp)) for name, count in counts.items()
    }


def decode_judged(
    dataset: Dataset[tuple[torch.Tensor, int]], counts: Mapping[str, int], judged: Mapping[str, NDArray[np.intp]]
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """The judged clips that a release holds, uint8 [M, T, 3, H, W], and which of all judged clips they are, [M].

    Args:
        dataset: the release's clips, class by class, each class a prefix of its clips.
        counts: clips that it holds of each class, in the order of the labels.
        judged: positions of the judged clips within each class, in the same order.
    """
    decoded, positions, start, before = [], [], 0, 0
    for name, of_class in judged.items():
        there = np.flatnonzero(of_class < counts[name])
        decoded += [dataset[start + int(position)][0].numpy() for position in of_class[there]]
        positions.append(before + there)
        start, before = start + counts[name], before + len(of_class)
    return np.stack(decoded), np.concatenate(positions)

"""Soft labels: what a teacher thinks of each kept clip, as probabilities of all classes, one byte each.

A network trained on the train split's originals labels the clips that a release keeps (knowledge distillation: Hinton
et al. 2015). Bytes are what is stored, so a row is kept as levels of its largest probability and made to add up to 1
again when it is read. How levels lie in a file belongs to `release`, training on them to `training`. What must NOT
come here: files, budgets, scores.

Legend: N clips, T frames, C channels, H, W pixels, K classes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import TensorDataset

from lvdd_assets.distill import training
from lvdd_assets.distill.protocols import SOFT_LABEL_TEMPERATURE, Protocol, updates_for
from lvdd_assets.distill.training import Progress, Run

_HIGHEST = 255
_SUM_TOLERANCE = 1e-3
_BATCH = 32


class Teacher:
    """A trained network that says how likely each class is."""

    def __init__(self, network: nn.Module, device: str = "cpu") -> None:
        self._network, self._device = network.eval(), torch.device(device)

    @torch.inference_mode()
    def label(
        self, clips_NTCHW: NDArray[np.uint8], *, temperature: float = SOFT_LABEL_TEMPERATURE
    ) -> NDArray[np.float32]:
        """Probabilities of the classes, softmax(logits / temperature): float32 [N, K], each row adds up to 1.

        Args:
            clips_NTCHW: uint8 [N, T, 3, H, W] of the shape that the network was trained on, at least one.
            temperature: above 1 the unlikely classes get more, near 0 the likeliest gets all.
        """
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"got {temperature = }; expected a positive number, e.g. {SOFT_LABEL_TEMPERATURE}")
        logits_NK = torch.cat(
            [
                self._network(torch.from_numpy(clips_NTCHW[start : start + _BATCH]).to(self._device)).double().cpu()
                for start in range(0, len(clips_NTCHW), _BATCH)
            ]
        )
        return (logits_NK / temperature).softmax(dim=1).float().numpy()


def train_teacher(
    clips_NTCHW: NDArray[np.uint8],
    labels_N: NDArray[np.integer],
    *,
    num_classes: int,
    protocol: Protocol,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Teacher:
    """Trains a teacher on original clips; the same arguments and machine give the same teacher.

    Args:
        clips_NTCHW: uint8 [N, T, 3, H, W].
        labels_N: class of each clip.
        num_classes: K.
        protocol: how it is trained; its seeds are not used.
        seed: of initialisation, dropout, order and augmentation.
        device: where it is trained.
        progress: called with updates done and to do.

    Raises:
        DivergedError: the loss is not finite.
    """
    clips = TensorDataset(torch.from_numpy(clips_NTCHW), torch.from_numpy(np.asarray(labels_N, dtype=np.int64)))
    run = Run(protocol, seed, updates_for(len(clips), protocol), progress, device)
    return Teacher(training.train(clips, num_classes, run), device)


def quantize(probabilities_NK: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Levels of each row's largest probability, which is 255: uint8 [N, K].

    With S the sum of a row's levels, `dequantize` gives each probability p back to within (1 + K·p) / (2·S), and the
    likeliest class stays the likeliest.

    Args:
        probabilities_NK: [N, K], not negative, each row adds up to 1.
    """
    rows_NK = np.asarray(probabilities_NK, dtype=np.float64)
    if rows_NK.ndim != 2 or rows_NK.shape[1] < 2:
        raise ValueError(f"got probabilities of shape {rows_NK.shape}; expected [N, K] with at least 2 classes")
    # Written so that it is false for NaN.
    right_N = (rows_NK >= 0).all(axis=1) & (np.abs(rows_NK.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    if not right_N.all():
        row = int(np.argmin(right_N))
        raise ValueError(f"row {row} is {rows_NK[row].tolist()[:10]}; expected probabilities that add up to 1")
    return np.rint(rows_NK * (_HIGHEST / rows_NK.max(axis=1, keepdims=True))).astype(np.uint8)


def dequantize(levels_NK: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probabilities that levels stand for: float32 [N, K], each row adds up to 1."""
    check_levels(levels_NK)
    return (levels_NK / levels_NK.sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)


def check_levels(levels_NK: NDArray[np.uint8]) -> None:
    """Raises a ValueError unless these are rows that `quantize` makes: uint8 [N, K], the largest of each 255."""
    if levels_NK.dtype != np.uint8 or levels_NK.ndim != 2 or levels_NK.shape[1] < 2:
        raise ValueError(f"got {levels_NK.dtype} {levels_NK.shape}; expected levels uint8 [N, K] of at least 2 classes")
    wrong_N = levels_NK.max(axis=1) != _HIGHEST
    if wrong_N.any():
        row = int(np.argmax(wrong_N))
        raise ValueError(f"the largest level of row {row} is {levels_NK[row].max()}; expected {_HIGHEST}")

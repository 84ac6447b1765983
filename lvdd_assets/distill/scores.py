"""Figures of trained networks: one for each seed, and their mean and spread.

Legend: K classes.
"""

import statistics
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """How one trained network did on the test set.

    Attributes:
        top1: Part of the test clips whose first guess is right, in [0, 1].
        top5: Part with the right class among the first five guesses (all guesses below five classes).
        seed: Of initialisation, dropout, order and flips.
        num_updates: Optimiser steps.
        confusion: int64 [K, K], test clips by true class (row) and first guess (column).
        seconds: Wall time of training and test.
    """

    top1: float
    top5: float
    seed: int
    num_updates: int
    confusion: np.ndarray
    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= self.top5 <= 1:
            raise ValueError(f"got {self.top1 = }, {self.top5 = }; expected 0 <= top1 <= top5 <= 1")

    @property
    def class_accuracy(self) -> np.ndarray:
        """Part of each class's test clips that was guessed right: float64 [K] in [0, 1]."""
        return np.diag(self.confusion) / self.confusion.sum(axis=1)


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a training set and its scores, one for each seed.

    Attributes:
        name: What was trained on.
        num_clips: Clips in that training set.
        scores: In the order of the protocol's seeds.
        failures: Seeds whose training did not end, with the reason.
    """

    name: str
    num_clips: int
    scores: tuple[Score, ...]
    failures: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError(f"row {self.name!r} has no scores; expected one for each seed")

    @property
    def mean_top1(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return statistics.fmean(score.top1 for score in self.scores)

    @property
    def mean_top5(self) -> float:
        """Mean over seeds, in [0, 1]."""
        return statistics.fmean(score.top5 for score in self.scores)

    @property
    def std_top1(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed, which says nothing about the spread."""
        return statistics.stdev(score.top1 for score in self.scores) if len(self.scores) > 1 else 0.0

    @property
    def std_top5(self) -> float:
        """Like `std_top1`."""
        return statistics.stdev(score.top5 for score in self.scores) if len(self.scores) > 1 else 0.0

    @property
    def class_accuracy(self) -> np.ndarray:
        """Mean over seeds of each class's accuracy: float64 [K] in [0, 1]."""
        return np.mean([score.class_accuracy for score in self.scores], axis=0)

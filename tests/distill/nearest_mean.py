"""A judge for tests that is quick and deterministic and really judges: the nearest mean of each class's pixels."""

from collections.abc import Sequence

import numpy as np

from lvdd_assets.distill.benches import Evaluate
from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.scores import Row, Score
from lvdd_assets.distill.training_sets import TrainingSet

Calls = list[tuple[list[str], Protocol]]


def _features(clips: Sequence[object]) -> np.ndarray:
    return np.stack(
        [np.asarray(clip, dtype=np.float64).mean((3, 4) if np.ndim(clip) == 5 else (2, 3)).ravel() for clip in clips]
    )


def judge_by(test_NTCHW: np.ndarray, labels_N: np.ndarray, calls: Calls | None = None) -> Evaluate:
    """An `Evaluate` that tests on these clips; what it is called with is kept in `calls`."""

    def evaluate(sets: Sequence[TrainingSet], protocol: Protocol) -> list[Row]:
        if calls is not None:
            calls.append(([made.name for made in sets], protocol))
        return [_row(made, protocol) for made in sets]

    def _row(made: TrainingSet, protocol: Protocol) -> Row:
        pairs = [made.dataset[index] for index in range(made.num_clips)]
        features, labels = _features([clip for clip, _ in pairs]), np.array([label for _, label in pairs])
        num_classes = int(labels.max()) + 1
        means = np.stack([features[labels == label].mean(0) for label in range(num_classes)])
        away = np.square(_features(list(test_NTCHW))[:, None] - means).sum(2)
        ranking = away.argsort(1, kind="stable")
        hits = ranking == labels_N[:, None]
        confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        np.add.at(confusion, (labels_N, ranking[:, 0]), 1)
        top1, top5 = float(hits[:, 0].mean()), float(hits[:, :5].any(1).mean())
        return Row(
            made.name, made.num_clips, tuple(Score(top1, top5, seed, 1, confusion, 0.0) for seed in protocol.seeds)
        )

    return evaluate

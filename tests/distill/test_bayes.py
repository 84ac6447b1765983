"""Is the figure right? Sets whose best accuracy is known, and scikit-learn's account of the same predictions."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score
from torch.utils.data import TensorDataset

from lvdd_assets.distill import evaluation
from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.protocols import Protocol

FRAMES, SIZE = 2, 17
PROTOCOL = Protocol(batch_size=16, learning_rate=0.05, network="r2plus1d", widths=(8, 8, 8, 8))
NUM_UPDATES = 90


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _clips(num_clips: int, num_classes: int, *, noise: float, seed: int) -> TensorDataset:
    """Clips of one brightness for each class, of which a share `noise` bears the next class's label."""
    generator = torch.Generator().manual_seed(seed)
    classes_N = torch.randint(num_classes, (num_clips,), generator=generator)
    levels_N = 40 + 180 * classes_N / (num_classes - 1)
    grain = torch.randn(num_clips, FRAMES, 3, SIZE, SIZE, generator=generator)
    pixels = (levels_N.view(-1, 1, 1, 1, 1) + 10 * grain).clamp(0, 255).to(torch.uint8)
    moved_N = torch.rand(num_clips, generator=generator) < noise
    return TensorDataset(pixels, (classes_N + moved_N) % num_classes)


def _logits(network: torch.nn.Module, clips: TensorDataset) -> np.ndarray:
    precision = precision_for("cpu")
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        return torch.cat([network.eval()(batch).float() for batch in clips.tensors[0].split(100)]).numpy()


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_accuracy_is_the_bayes_accuracy_within_its_error(noise: float) -> None:
    """Brightness tells the class beyond doubt and the label's noise is independent of it: no classifier is right more
    often than 1 − noise in expectation, and the one that names the class is.
    """
    num_classes, num_test = 3, 400
    train = _clips(240, num_classes, noise=noise, seed=1)
    test = _clips(num_test, num_classes, noise=noise, seed=2)
    score = evaluation.train_and_test(
        train, test, num_classes=num_classes, protocol=PROTOCOL, seed=0, num_updates=NUM_UPDATES
    )
    error = math.sqrt(noise * (1 - noise) / num_test)
    assert abs(score.top1 - (1 - noise)) < 3 * error
    assert score.confusion.sum() == num_test
    # Label k + 1 is named k by whoever names the class; never the other way round. Rows are labels.
    for predicted in range(num_classes):
        label = (predicted + 1) % num_classes
        share = score.confusion[label, predicted] / score.confusion[label].sum()
        assert abs(share - noise) < 3 * math.sqrt(3) * error
        assert score.confusion[predicted, label] <= 2


def test_labels_that_say_nothing_give_chance() -> None:
    """Every label as likely as the other, whatever the clip: 1/2, within three standard errors."""
    train, test = (_clips(count, 2, noise=0.5, seed=seed) for count, seed in ((120, 3), (400, 4)))
    score = evaluation.train_and_test(train, test, num_classes=2, protocol=PROTOCOL, seed=0, num_updates=40)
    assert abs(score.top1 - 0.5) < 3 * math.sqrt(0.25 / 400)


def test_scores_are_scikit_learns_of_the_same_network() -> None:
    """The network is trained again with the seed, and its predictions are counted by scikit-learn."""
    num_classes, num_updates, seed = 12, 36, 5
    train = _clips(96, num_classes, noise=0.2, seed=6)
    test = _clips(150, num_classes, noise=0.2, seed=7)
    score = evaluation.train_and_test(
        train, test, num_classes=num_classes, protocol=PROTOCOL, seed=seed, num_updates=num_updates
    )
    network = evaluation.train_network(
        train, num_classes=num_classes, protocol=PROTOCOL, seed=seed, updates=num_updates
    )
    labels, logits = test.tensors[1].numpy(), _logits(network, test)
    names = list(range(num_classes))
    expected = confusion_matrix(labels, logits.argmax(1), labels=names)
    np.testing.assert_array_equal(score.confusion, expected)
    assert not np.array_equal(expected, expected.T)  # so that the order of labels shows
    np.testing.assert_array_equal(score.confusion.sum(1), np.bincount(labels, minlength=num_classes))
    assert score.top1 == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert score.top5 == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=names))
    assert 0 < score.top1 < score.top5 < 1

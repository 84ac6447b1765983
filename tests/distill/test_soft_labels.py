"""Levels stand for their probabilities within a known error; a teacher knows its classes and its temperature."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.soft_labels import Teacher, check_levels, dequantize, quantize, train_teacher

SHAPE = (2, 3, 17, 17)


@st.composite
def _probabilities(draw: st.DrawFn) -> np.ndarray:
    """Rows from nearly uniform to nearly certain, with zeros among them."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 40)))
    logits = draw(arrays(np.float64, shape, elements=st.floats(-30, 30)))
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows[rows < draw(st.sampled_from([0.0, 1e-3]))] = 0
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


@given(_probabilities())
def test_probabilities_come_back_within_the_promised_error(rows: np.ndarray) -> None:
    levels = quantize(rows)
    found = dequantize(levels)
    assert (levels.dtype, levels.shape, found.dtype) == (np.uint8, rows.shape, np.float32)
    bound = (1 + rows.shape[1] * rows) / (2 * levels.sum(axis=1, keepdims=True, dtype=int))
    assert (np.abs(found - rows) <= bound + 1e-6).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    best = rows.argmax(axis=1)
    assert (levels[np.arange(len(rows)), best] == 255).all()
    assert (found[rows == 0] == 0).all()


@given(_probabilities())
def test_what_was_read_is_stored_as_the_same_levels(rows: np.ndarray) -> None:
    levels = quantize(rows)
    np.testing.assert_array_equal(quantize(dequantize(levels)), levels)


def test_levels_by_hand() -> None:
    levels = quantize(np.array([[0.5, 0.25, 0.25], [1, 0, 0]]))
    assert levels.tolist() == [[255, 128, 128], [255, 0, 0]]  # 127.5 is rounded to the even number
    np.testing.assert_allclose(dequantize(levels), [[255 / 511, 128 / 511, 128 / 511], [1, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.6]], "row 0 is .*add up to 1"),
        ([[1, 0], [1.5, -0.5]], "row 1 is .*add up to 1"),
        ([[float("nan"), 1]], "row 0 is"),
        ([[float("inf"), 0]], "row 0 is"),
        ([[1.0]], "at least 2 classes"),
        ([0.5, 0.5], r"expected \[N, K\]"),
    ],
)
def test_what_is_no_probability_is_refused(rows: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(np.array(rows))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.array([[255, 0], [254, 3]], dtype=np.uint8), "largest level of row 1 is 254; expected 255"),
        (np.zeros((1, 2), dtype=np.uint8), "largest level of row 0 is 0"),
        (np.array([[255, 0]]), "got int64"),
        (np.array([255, 0], dtype=np.uint8), r"expected levels uint8 \[N, K\]"),
    ],
)
def test_strange_levels_are_refused(levels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dequantize(levels)
    with pytest.raises(ValueError, match=message):
        check_levels(levels)


class _Brightness(nn.Module):
    """Logits that are known: how bright each colour is."""

    def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        return clips_NTCHW.float().mean(dim=(1, 3, 4)) / 50


def _clips(num_clips: int, *, seed: int = 0) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(0, 255, size=(num_clips, 1, 3, 1, 1))
    return np.broadcast_to(levels, (num_clips, *SHAPE)).astype(np.uint8)


def test_labels_are_the_softmax_of_the_logits_by_the_temperature() -> None:
    clips = _clips(70)  # more than one batch
    logits = clips[:, 0, :, 0, 0] / 50
    teacher, spread = Teacher(_Brightness()), []
    for temperature in (0.5, 1.0, 4.0):
        found = teacher.label(clips, temperature=temperature)
        expected = np.exp(logits / temperature)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)
        spread.append(-(found * np.log(found + 1e-30)).sum())
    assert spread == sorted(spread)  # entropy rises


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature = .*expected a positive number"):
        Teacher(_Brightness()).label(_clips(1), temperature=temperature)


def test_a_teacher_learns_its_classes_and_is_the_same_again() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(24) % 2
    noise = generator.normal(0, 10, size=(24, *SHAPE))
    clips = (80 + 90 * labels[:, None, None, None, None] + noise).clip(0, 255).astype(np.uint8)
    protocol = Protocol(epochs=20, batch_size=8, learning_rate=0.05, network="r2plus1d", widths=(4, 4, 4, 4))
    first, again, other = (
        train_teacher(clips, labels, num_classes=2, protocol=protocol, seed=seed).label(clips) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first.argmax(axis=1) == labels).all()
    assert (quantize(first).argmax(axis=1) == labels).all()

"""PSNR and SNR against hand-computed values."""

import numpy as np
import pytest

from lvdd_assets.distill import fidelity


def test_psnr_of_a_known_error() -> None:
    original = np.zeros((2, 3, 4), dtype=np.uint8)
    assert fidelity.psnr(original, original) == float("inf")
    assert fidelity.psnr(original, original + 255) == pytest.approx(0.0)
    assert fidelity.psnr(original, original + 1) == pytest.approx(48.1308, abs=1e-4)  # 20 log10(255)


def test_psnr_does_not_wrap_around() -> None:
    low, high = np.full(4, 250, dtype=np.uint8), np.full(4, 4, dtype=np.uint8)
    assert fidelity.psnr(low, high) == fidelity.psnr(high, low) < 1


def test_snr_of_a_known_error() -> None:
    signal = np.full(10, 2.0)
    assert fidelity.snr(signal, signal * 0.9) == pytest.approx(20.0)
    assert fidelity.snr(signal, signal) == float("inf")


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="uint8"):
        fidelity.psnr(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="one shape"):
        fidelity.psnr(np.zeros(3, dtype=np.uint8), np.zeros(4, dtype=np.uint8))

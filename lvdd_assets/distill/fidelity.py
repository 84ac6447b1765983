"""How close decoded data is to what it was made from. Fidelity is not utility: what a network learns is for
`evaluation`."""

import numpy as np


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pixels in dB, over all values at once: 10 log10(255² / MSE); inf if equal.

    Raises:
        ValueError: shapes differ or a type is not uint8.
    """
    if original.shape != decoded.shape or original.dtype != np.uint8 or decoded.dtype != np.uint8:
        raise ValueError(
            f"expected two uint8 arrays of one shape, got {original.dtype} {original.shape}, {decoded.dtype} "
            f"{decoded.shape}"
        )
    error = np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def snr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Signal-to-noise ratio of real values in dB: 10 log10(mean x² / mean (x − y)²); inf if equal."""
    error = np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    power = np.mean(original.astype(np.float64) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(power / error))

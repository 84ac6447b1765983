"""Latents of a class as autoencoders make them, for tests of what comes after."""

import numpy as np


def latents(num_clips: int = 6, seed: int = 0, shape: tuple[int, ...] = (8, 4, 6, 6)) -> np.ndarray:
    """Smooth in time and space, each clip with its own phase, and some noise."""
    generator = np.random.default_rng(seed)
    frames, channels, height, width = shape
    time, row, column = (np.linspace(0, 1, size) for size in (frames, height, width))
    phase = generator.uniform(0, 6, size=(num_clips, 1, channels, 1, 1))
    waves = np.sin(2 * time[:, None, None, None] + 5 * row[:, None] + 4 * column + phase)
    return (2 * waves + 0.2 * generator.normal(size=waves.shape)).astype(np.float32)

"""Tiny clips for tests of training: noise whose class lies in time."""

import torch

FRAMES, SIZE = 8, 44
Sample = tuple[torch.Tensor, int]


def brightness_clips(num_clips: int, num_classes: int, *, seed: int) -> list[Sample]:
    """Noise whose brightness rises, falls or stays in time: one frame alone does not give the class away."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, FRAMES).view(FRAMES, 1, 1, 1)
    samples = []
    for index in range(num_clips):
        label = index % num_classes
        slope = (1.0, -1.0, 0.0)[label]
        noise = torch.randn(FRAMES, 3, SIZE, SIZE, generator=generator)
        clip = 128 + 80 * slope * ramp + 20 * noise
        samples.append((clip.clamp(0, 255).to(torch.uint8), label))
    return samples

"""A dataset of tiny clips with their latents, for tests of what is made from it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.quantization import quantize_weights
from lvdd_assets.distill.training_sets import Decoding, Originals, paper_decoding
from lvdd_assets.distill.vae import load_autoencoder

SHAPE = ClipShape(4, 2, 32)
COUNTS = {"jump": 6, "run": 4, "wave": 3}


def drifting_blobs(num_clips: int, seed: int, shape: ClipShape = SHAPE) -> np.ndarray:
    """A blob whose colour is the seed's and whose way is the clip's own: uint8 [N, T, 3, H, W]."""
    rng, of_class = np.random.default_rng([seed, 1]), np.random.default_rng(seed)
    colour, size = of_class.uniform(60, 250, (3, 1, 1)), shape.size
    y, x = np.indices((size, size))
    clips = np.empty((num_clips, shape.frames, 3, size, size))
    for clip in clips:
        start, speed = rng.uniform(size / 4, size * 3 / 4, 2), rng.uniform(-3, 3, 2)
        for t, frame in enumerate(clip):
            centre = start + speed * t
            cover = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (size / 6) ** 2))
            frame[...] = 40 + (colour - 40) * cover + rng.normal(0, 2, frame.shape)
    return np.clip(clips, 0, 255).astype(np.uint8)


def make_originals(
    dataset: str = "videos", counts: Mapping[str, int] | None = None, *, with_latents: bool = True, **changes: Any
) -> Originals:
    """Clips in memory; latents, decoders and a selection where they are asked for."""
    counts = dict(COUNTS if counts is None else counts)
    clips = {name: drifting_blobs(count, seed) for seed, (name, count) in enumerate(counts.items())}
    facts: dict[str, Any] = {"dataset": dataset, "shape": SHAPE, "num_clips": counts, "clips": clips.__getitem__}
    if with_latents:
        vae = load_autoencoder("embedded-2d")
        latents = {name: vae.encode(of_class).astype(np.float16) for name, of_class in clips.items()}
        selected = {name: np.random.default_rng(7).permutation(count) for name, count in counts.items()}
        facts |= {
            "latents": latents.__getitem__,
            "selected": selected,
            "decoding": Decoding(vae.decoder_spec, quantize_weights(vae.decoder(), bits=4)),
            "paper_decoding": paper_decoding(vae),
            "provenance": {"made": "in a test"},
        }
    return Originals(**(facts | changes))

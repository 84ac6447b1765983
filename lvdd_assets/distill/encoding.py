"""A stream of clips to a stream of latents: the next batch is read while this one is encoded.

Memory holds two batches whatever the number of clips. Where a batch does not fit the device's memory, `vae` halves it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill.vae import VideoAutoencoder

_LARGEST_HALF = float(np.finfo(np.float16).max)


def encode_stream(
    vae: VideoAutoencoder,
    read: Callable[[slice], NDArray[np.uint8]],
    num_clips: int,
    *,
    clips_per_batch: int,
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[NDArray[np.float16]]:
    """Latents of clips, float16 [B, T', C, h, w], batch by batch in their order.

    Args:
        vae: the autoencoder.
        read: gives the clips of a slice, uint8 [B, T, 3, H, W]; called from one other thread, in order.
        num_clips: how many there are.
        clips_per_batch: B; what is read and kept at a time.
        seed: draws from the posterior instead of taking its mode; clip i's noise depends on the seed and i alone.
        progress: called with the number of clips of each batch once it is encoded.

    Raises:
        ValueError: a latent is beyond float16; what `VideoAutoencoder.encode` raises.
    """
    slices = [slice(start, min(start + clips_per_batch, num_clips)) for start in range(0, num_clips, clips_per_batch)]
    with ThreadPoolExecutor(1, thread_name_prefix="read-clips") as pool:
        waiting = pool.submit(read, slices[0]) if slices else None
        for part, following in zip(slices, [*slices[1:], None][: len(slices)], strict=True):
            assert waiting is not None
            clips = waiting.result()
            if following is not None:
                waiting = pool.submit(read, following)
            latents = vae.encode(clips, draw=None if seed is None else (seed, part.start))
            if (peak := np.abs(latents).max(initial=0)) > _LARGEST_HALF:
                raise ValueError(
                    f"{vae.name} gave a latent of {peak:.3g}, float16 holds up to {_LARGEST_HALF:.0f}: "
                    "its scaling_factor does not make latents of unit scale"
                )
            yield latents.astype(np.float16)
            if progress is not None:
                progress(len(clips))

"""`encoding`: a stream of any length, in order, read ahead by one batch and no more."""

import threading
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill.encoding import encode_stream
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.autoencoders import edit_config, random_clips


@pytest.mark.parametrize(("num_clips", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (5, 1)])
def test_all_clips_in_their_order(tiny: Path, num_clips: int, size: int) -> None:
    vae, clips = load_autoencoder(str(tiny)), random_clips(num_clips)
    done: list[int] = []
    batches = list(encode_stream(vae, lambda part: clips[part], num_clips, clips_per_batch=size, progress=done.append))
    assert [len(batch) for batch in batches] == done
    assert sum(done) == num_clips
    assert all(batch.dtype == np.float16 for batch in batches)
    if num_clips:
        np.testing.assert_allclose(np.concatenate(batches), vae.encode(clips), rtol=2e-3, atol=2e-3)


def test_one_batch_is_read_ahead_and_no_more(tiny: Path) -> None:
    vae, clips = load_autoencoder(str(tiny)), random_clips(6)
    read: list[int] = []
    ahead = threading.Semaphore(0)

    def note(part: slice) -> np.ndarray:
        read.append(part.start)
        ahead.release()
        return clips[part]

    stream = encode_stream(vae, note, 6, clips_per_batch=1)
    for number in range(1, 7):
        next(stream)
        for _ in range(1 if 1 < number < 6 else 2 if number == 1 else 0):
            assert ahead.acquire(timeout=10)  # the next batch is on its way while this one is in the consumer's hands
        assert len(read) == min(number + 1, 6)
    assert read == list(range(6))


def test_draws_do_not_depend_on_the_batches(saved: dict[str, Path]) -> None:
    vae, clips = load_autoencoder(str(saved["AutoencoderKL"])), random_clips(5)
    whole, parts = (
        np.concatenate(list(encode_stream(vae, lambda part: clips[part], 5, clips_per_batch=size, seed=7)))
        for size in (5, 2)
    )
    np.testing.assert_allclose(parts.astype(float), whole.astype(float), atol=2e-3)


def test_a_latent_beyond_half_precision(tiny: Path) -> None:
    edit_config(tiny, scaling_factor=900_000.0)
    vae, clips = load_autoencoder(str(tiny)), random_clips(1)
    with pytest.raises(ValueError, match=r"float16 holds up to 65504: its scaling_factor does not make"):
        list(encode_stream(vae, lambda part: clips[part], 1, clips_per_batch=1))


def test_what_the_reader_raises_is_raised(tiny: Path) -> None:
    def fail(_part: slice) -> np.ndarray:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(encode_stream(load_autoencoder(str(tiny)), fail, 3, clips_per_batch=2))

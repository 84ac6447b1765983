"""`adaptation`: an autoencoder is better on a dataset after learning from it, and says by how much."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lvdd_assets.distill.adaptation import StoredClips, adapt
from lvdd_assets.distill.latent_decoders import to_pixels
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import load_autoencoder, load_model
from lvdd_assets.distill.vae_folders import find_autoencoder
from lvdd_assets.distill.vae_training import Schedule, Trainee
from tests.distill.autoencoders import random_clips


def _scenes(num_clips: int) -> np.ndarray:
    """Clips of one flickering scene: uint8 [N, 8, 3, 32, 32]."""
    from lvdd_assets.distill.demo import render_clip

    clip = render_clip("move_left", seed=3)[::3, :32, :32].transpose(0, 3, 1, 2)
    gains = np.linspace(0.7, 1, num_clips)
    return np.stack([np.rint(clip * gain).astype(np.uint8) for gain in gains])


@pytest.mark.parametrize("name", ["embedded-2d", "embedded-3d"])
def test_it_gets_better_on_clips_that_it_did_not_learn_from(tmp_path: Path, name: str) -> None:
    clips = _scenes(16)
    result = adapt(name, clips, tmp_path / "own", Schedule(steps=30, learning_rate=5e-4, average_decay=0.8))
    assert (result.num_train, result.num_held_out, result.num_steps) == (14, 2, 30)
    assert result.psnr_after > result.psnr_before + 0.5
    held_out = clips[7::8]
    (exported,) = Trainee(load_model(find_autoencoder(str(tmp_path / "own")))).mean_psnrs(
        to_pixels(torch.from_numpy(held_out))
    )
    assert exported == pytest.approx(result.psnr_after, abs=0.1)  # float16 weights
    card = (tmp_path / "own" / "README.md").read_text()
    assert f"{result.psnr_before:.2f} dB before, {result.psnr_after:.2f} dB after" in card
    autoencoder = load_autoencoder(str(tmp_path / "own"))
    assert autoencoder.decode(autoencoder.encode(held_out), num_frames=8).shape == held_out.shape


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        adapt("embedded-2d", _scenes(8), tmp_path / name, Schedule(steps=3), seed=4)
    files = [(tmp_path / name / "diffusion_pytorch_model.safetensors").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]


def test_too_few_clips(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="7 train clips, at least 8 needed"):
        adapt("embedded-2d", _scenes(7), tmp_path / "own", Schedule(steps=1))
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("kind", ["AutoencoderTinyVideo", "AutoencoderKLWan"])
def test_clips_are_padded_to_what_the_autoencoder_takes(tmp_path: Path, saved: dict[str, Path], kind: str) -> None:
    result = adapt(str(saved[kind]), random_clips(8, 6), tmp_path / "own", Schedule(steps=1))
    assert result.num_steps == 1
    latents = load_autoencoder(str(tmp_path / "own")).encode(random_clips(1, 6))
    assert latents.shape[1] == {"AutoencoderTinyVideo": 2, "AutoencoderKLWan": 3}[kind]


def test_stored_clips_are_those_of_all_classes_in_their_order(tmp_path: Path) -> None:
    store, clips = ZarrStore(tmp_path, "raw_clips"), random_clips(7)
    for key, rows in (("set/one", slice(0, 3)), ("set/none", slice(0, 0)), ("set/two", slice(3, 7))):
        with store.write(key, "fingerprint", settings={}, inputs={}) as out:
            out.append("train", clips[rows])
    stored = StoredClips([store.open(key) for key in ("set/one", "set/none", "set/two")])
    assert len(stored) == 7
    order = np.array([6, 0, 3, 2, 3])
    np.testing.assert_array_equal(stored[order], clips[order])
    assert len(StoredClips([])) == 0

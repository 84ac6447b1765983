"""`decoder_quantization`: what quantising costs is measured against the clips, and no bit more is kept than needed."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from lvdd_assets.distill import decoder_quantization
from lvdd_assets.distill.decoder_quantization import Reference, choose_bits, quantize_decoder
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.vae import load_autoencoder


@functools.cache
def _clips() -> np.ndarray:
    from lvdd_assets.distill.demo import MOTIONS, render_clip

    clips = [render_clip(motion, seed=4_000_000 + i)[::3] for i, motion in enumerate(MOTIONS)]
    return np.stack(clips).transpose(0, 1, 4, 2, 3)


def _calibration(name: str, rows: slice) -> Reference:
    autoencoder, clips = load_autoencoder(name), _clips()[rows]
    return Reference(autoencoder.decoder(), autoencoder.encode(clips), clips)


@pytest.mark.parametrize("name", ["embedded-2d", "embedded-3d"])
def test_a_full_decoder_loses_nothing(name: str) -> None:
    calibration = _calibration(name, slice(0, 2))
    assert calibration.loss(calibration.full) == 0
    assert calibration.psnr_to_full(calibration.full) == np.inf
    assert calibration.full_psnr == pytest.approx(psnr(calibration.originals, calibration.full_clips))
    # Any callable with the decoder's forward will do, frame by frame or clip by clip.
    difference = calibration.decode(lambda latents: calibration.full(latents)).astype(int) - calibration.full_clips
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("name", "shape"), [("embedded-2d", (64, 4, 8, 8)), ("embedded-3d", (8, 2, 4, 8, 8))])
def test_a_batch_has_at_most_64_frames_of_all_clips(name: str, shape: tuple[int, ...]) -> None:
    calibration = _calibration(name, slice(None))
    repeated = Reference(
        calibration.full, np.tile(calibration.latents, (2, 1, 1, 1, 1)), np.tile(_clips(), (2, 1, 1, 1, 1))
    )
    assert tuple(repeated.batch().shape) == shape


def test_the_fewest_bits_within_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate, judge = _calibration("embedded-2d", slice(0, 4)), _calibration("embedded-2d", slice(4, 8))
    _, rows = choose_bits(calibrate, judge, max_loss_db=100.0)
    assert [row["bits"] for row in rows] == [8, 6, 4]
    losses = {row["bits"]: row["loss_db"] for row in rows}
    assert losses[8] < 0.05
    assert losses[8] < losses[6] < losses[4] < 1.5
    assert rows[0]["release_bytes"] > rows[1]["release_bytes"] > rows[2]["release_bytes"]
    for limit, expected in ((losses[6] + 1e-6, 6), (losses[8] + 1e-6, 8), (losses[4] + 1e-6, 4), (-1.0, 8)):
        chosen, _ = choose_bits(calibrate, judge, max_loss_db=limit)
        assert chosen.figures["bits"] == expected


def test_two_stages_keep_convolutions_in_half_precision(saved: dict[str, Path]) -> None:
    calibration = _calibration("embedded-3d", slice(0, 1))
    result = quantize_decoder(calibration, bits=8, scheme="linear")
    assert result.figures["quantized_share"] == 0  # it has no linear layer
    assert result.figures["stored_bytes"] == 2 * result.figures["num_parameters"]
    assert abs(calibration.loss(result.decoder)) < 0.01
    # SD-VAE's class has linear layers in its attention.
    own = load_autoencoder(str(saved["AutoencoderKL"]))
    clips = _clips()[:1, :, :, :16, :16]
    staged = quantize_decoder(Reference(own.decoder(), own.encode(clips), clips), bits=8, scheme="linear")
    linear = sum(m.weight.numel() for m in own.decoder().modules() if isinstance(m, torch.nn.Linear))
    assert staged.figures["quantized_share"] == pytest.approx(linear / staged.figures["num_parameters"])
    assert linear > 0


def test_bytes_are_those_of_a_release() -> None:
    result = quantize_decoder(_calibration("embedded-2d", slice(0, 1)), bits=8)
    coded = decoder_quantization.Zstd(22).encode(result.weights.to_bytes())
    assert result.figures["release_bytes"] == len(coded)
    assert result.figures["stored_bytes"] == len(result.weights.to_bytes())

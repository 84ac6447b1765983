"""`tiny_video`: the 3D autoencoder of this package: causal, without copied frames, and what it is when it starts."""

import pytest
import torch
from diffusers import AutoencoderTiny

from lvdd_assets.distill.tiny_video import AutoencoderTinyVideo
from tests.distill.autoencoders import small_model


def test_it_starts_as_the_frames_autoencoder_on_the_mean_of_four() -> None:
    frames: AutoencoderTiny = small_model("AutoencoderTiny").eval()
    clips = AutoencoderTinyVideo.from_frames(frames, temporal_channels=8).eval()
    # The encoder of frames is not linear, but for equal frames the mean of their latents is the latent.
    still = torch.rand(1, 3, 1, 16, 16).repeat(1, 1, 8, 1, 1) * 2 - 1
    with torch.no_grad():
        latents = clips.encode(still).latent_dist.mode()
        expected = frames.encode(still[:, :, 0]).latents
        torch.testing.assert_close(latents, expected[:, :, None].repeat(1, 1, 2, 1, 1), atol=1e-5, rtol=1e-4)
        decoded = frames.decode(expected).sample[:, :, None].repeat(1, 1, 8, 1, 1)
        torch.testing.assert_close(clips.decode(latents).sample, decoded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changed", [4, 9, 15])
def test_no_frame_moves_what_comes_before_its_group(changed: int) -> None:
    model = small_model("AutoencoderTinyVideo").eval()
    clip = torch.rand(1, 3, 16, 16, 16)
    other = clip.clone()
    other[:, :, changed] = 1 - other[:, :, changed]
    with torch.no_grad():
        before, after = (model.encode(item).latent_dist.mode() for item in (clip, other))
        group = changed // 4
        torch.testing.assert_close(after[:, :, :group], before[:, :, :group])
        assert (after[:, :, group] - before[:, :, group]).abs().max() > 1e-4
        first, second = model.decode(before).sample, model.decode(after).sample
        torch.testing.assert_close(second[:, :, : 4 * group], first[:, :, : 4 * group])


def test_frames_of_a_group_differ_even_if_its_latents_are_alike() -> None:
    model = small_model("AutoencoderTinyVideo").eval()
    with torch.no_grad():
        frames = model.decode(torch.ones(1, 4, 2, 4, 4)).sample[0]
    for i in range(8):
        for j in range(i):
            assert (frames[:, i] - frames[:, j]).abs().max() > 1e-4


def test_a_number_of_frames_that_makes_no_groups() -> None:
    with pytest.raises(ValueError, match="got 6 frames, expected a multiple of 4"):
        small_model("AutoencoderTinyVideo").encode(torch.zeros(1, 3, 6, 16, 16))

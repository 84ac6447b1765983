"""`tiny_decoders`: the networks of diffusers, to the bit, under the same names."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.vae import DecoderTiny

from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import build_decoder, lay_out
from lvdd_assets.distill.tiny_decoders import FrameDecoder
from tests.distill.autoencoders import small_model


@pytest.mark.parametrize("act_fn", ["swish", "silu", "mish", "gelu", "relu"])
@pytest.mark.parametrize(("upsample_fn", "upsampling"), [("nearest", 2), ("bilinear", 3), ("bicubic", 2)])
def test_it_is_the_decoder_of_diffusers(act_fn: str, upsample_fn: str, upsampling: int) -> None:
    arguments = (4, 3, (1, 0, 2), (6, 6, 6), upsampling, act_fn, upsample_fn)
    torch.manual_seed(0)
    theirs = DecoderTiny(*arguments).eval()
    torch.manual_seed(0)
    ours = FrameDecoder(*arguments).eval()
    states = theirs.state_dict(), ours.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])  # also started alike
    latents = 2 * torch.randn(2, 4, 5, 3)
    with torch.no_grad():
        assert torch.equal(ours(latents), theirs(latents))


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderTinyVideo"])
def test_a_decoder_of_a_release_is_the_autoencoders(kind: str) -> None:
    model: Any = lay_out(small_model(kind)).eval()  # sums of a convolution round by the layout of its weights
    decoder = build_decoder(DecoderSpec.from_config(kind, model.config))
    wanted = set(decoder.state_dict())
    decoder.load_state_dict(
        {f"model.{name}": value for name, value in model.state_dict().items() if f"model.{name}" in wanted}
    )
    latents = torch.randn(2, 2, 4, 3, 3)
    with torch.no_grad():
        if kind == "AutoencoderTiny":
            expected = model.decode(latents.flatten(0, 1) / decoder.factor + decoder.offset).sample
            assert torch.equal(decoder(latents.flatten(0, 1)), expected)
        else:
            raw = (latents / decoder.factor + decoder.offset).transpose(1, 2)
            assert torch.equal(decoder(latents), model.decode(raw).sample.transpose(1, 2))


def test_the_embedded_weights_give_what_diffusers_gives() -> None:
    """The file that ships, through diffusers' own class and through this package's."""
    from lvdd_assets.distill.vae import load_autoencoder

    vae = load_autoencoder("embedded-2d")
    decoder = vae.decoder()
    assert not any(type(module).__module__.startswith("diffusers") for module in decoder.modules())
    config = dict(decoder.spec.config)
    theirs = diffusers.AutoencoderTiny(**config, encoder_block_out_channels=(8,), num_encoder_blocks=(1,)).eval()
    lay_out(theirs)
    own = {name.removeprefix("model."): value for name, value in decoder.state_dict().items()}
    assert theirs.load_state_dict(own, strict=False).unexpected_keys == []
    latents = torch.randn(3, decoder.spec.latent_channels, 8, 8)
    with torch.no_grad():
        raw = latents / decoder.factor + decoder.offset
        assert torch.equal(decoder(latents), theirs.decode(raw).sample)

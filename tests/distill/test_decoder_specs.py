"""`decoder_specs`: specifications that are refused, and how many latents frames become."""

import json
from pathlib import Path

import pytest

from lvdd_assets.distill.decoder_specs import DecoderSpec, FrameRule
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.autoencoders import small_model


def test_specification_survives_json_and_is_small(any_folder: Path) -> None:
    spec = load_autoencoder(str(any_folder)).decoder_spec
    assert DecoderSpec.from_json(spec.to_json()) == spec
    assert DecoderSpec.from_json(spec.to_json().encode()).to_json() == spec.to_json()
    assert len(spec.to_json()) < 500
    assert not any(word in spec.to_json() for word in ("encoder_block_out", "sample_size", "_diffusers_version"))


def _spec_json(kind: str, **changes: object) -> str:
    config = dict(DecoderSpec.from_config(kind, small_model(kind).config).config)
    return json.dumps([kind, config | changes])


def _own_json(**changes: object) -> str:
    config = {
        "config": {},
        "frames": [4, 4, 1],
        "is_temporal": True,
        "latent_channels": 4,
        "scaling_factor": 1.0,
        "shift_factor": None,
        "upsampling": 8,
    }
    return json.dumps(["os:system", config | changes])


@pytest.mark.parametrize(
    ("rule", "frames", "padded", "latents"),
    [
        (FrameRule(), 7, 7, 7),
        (FrameRule(4, 4, 1), 1, 1, 1),
        (FrameRule(4, 4, 1), 16, 17, 5),
        (FrameRule(4, 4, 1), 17, 17, 5),
        (FrameRule(4, 8, 1), 16, 17, 5),
        (FrameRule(4, 8, 1), 10, 17, 5),
        (FrameRule(4, 8, 1), 9, 9, 3),
        (FrameRule(4, 4), 9, 12, 3),
    ],
)
def test_frames_and_latent_frames(rule: FrameRule, frames: int, padded: int, latents: int) -> None:
    assert (rule.padded(frames), rule.latent_frames(frames)) == (padded, latents)


@pytest.mark.parametrize(("key", "value"), [("patch_size", 2), ("is_residual", True), ("attn_scales", [0.5])])
def test_variants_of_a_class_that_would_decode_wrongly(key: str, value: object) -> None:
    config = dict(small_model("AutoencoderKLWan").config) | {key: value}
    with pytest.raises(ValueError, match=f"AutoencoderKLWan with {key} = .* cannot be used"):
        DecoderSpec.from_config("AutoencoderKLWan", config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no decoder's specification"),
        ("[1, 2, 3]", "no decoder's specification"),
        ('["AutoencoderTiny", 3]', "no decoder's specification"),
        ("[" * 100_000, "no decoder's specification"),
        ('["Evil", {}]', "'Evil'; only AutoencoderKL, AutoencoderTiny"),
        ('["AutoencoderTiny", {}]', "needs the keys"),
        (_spec_json("AutoencoderTiny", extra=1), "needs the keys"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[4097] * 3), "decoder_block_out_channels"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[0] * 3), "decoder_block_out_channels"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=8), "decoder_block_out_channels"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[8, 8]), "as many of each"),
        (_spec_json("AutoencoderTiny", decoder_block_out_channels=[8, 8, 6]), "same number of channels"),
        (_spec_json("AutoencoderTiny", num_decoder_blocks=[10**9, 1, 1]), "num_decoder_blocks"),
        (_spec_json("AutoencoderTiny", num_decoder_blocks=[1] * 9), "num_decoder_blocks"),
        (_spec_json("AutoencoderTiny", upsampling_scaling_factor=9), "upsampling_scaling_factor"),
        (_spec_json("AutoencoderTiny", latent_channels=4.0), "latent_channels"),
        (_spec_json("AutoencoderTiny", act_fn="__import__"), "act_fn"),
        (_spec_json("AutoencoderTiny", scaling_factor=0), "scaling_factor"),
        (_spec_json("AutoencoderTiny", scaling_factor=float("nan")), "scaling_factor"),
        (_spec_json("AutoencoderTiny", shift_factor="x"), "shift_factor"),
        (_spec_json("AutoencoderKL", up_block_types=["CrossAttnUpBlock2D"] * 3), "up_block_types"),
        (_spec_json("AutoencoderKL", norm_num_groups=5), "multiples of 5"),
        (_spec_json("AutoencoderKL", layers_per_block=65), "layers_per_block"),
        (_spec_json("AutoencoderKL", use_post_quant_conv="no"), "use_post_quant_conv"),
        (_spec_json("AutoencoderKL", up_block_types=["CogVideoXUpBlock3D"] * 3), "AutoencoderKL cannot have"),
        (_spec_json("AutoencoderKLCogVideoX", up_block_types=["UpDecoderBlock2D"] * 3), "VideoX cannot have"),
        (_spec_json("AutoencoderKLCogVideoX", temporal_compression_ratio=8), "temporal_compression_ratio"),
        (_spec_json("AutoencoderKLCogVideoX", norm_eps=0), "norm_eps"),
        (_spec_json("AutoencoderKLWan", latents_std=[1, 1, 1]), "latents_std has 3 entries for 4 latent channels"),
        (_spec_json("AutoencoderKLWan", latents_std=[0, 1, 1, 1]), "latents_std"),
        (_spec_json("AutoencoderKLWan", latents_mean=1), "latents_mean"),
        (_spec_json("AutoencoderKLWan", temperal_downsample=[True]), "one entry less than dim_mult"),
        (_spec_json("AutoencoderKLWan", dim_mult=[10**6, 1, 1]), "dim_mult"),
        ('["os:system", {}]', "needs the keys"),
        (_own_json(frames=[4, 4]), "no latent channels, upsampling and rule"),
        (_own_json(upsampling=0), "no latent channels, upsampling and rule"),
        (_own_json(latent_channels=0), "no latent channels, upsampling and rule"),
        (_own_json(upsampling=10**9), "no latent channels, upsampling and rule"),
        (_own_json(is_temporal=1), "damaged"),
        (_own_json(config={"x": "y" * 20_000}), "over 16000 characters"),
        (_own_json(scaling_factor=0), "scaling_factor"),
    ],
)
def test_bad_specifications_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderSpec.from_json(text)


def test_too_much_enlarging_is_refused() -> None:
    with pytest.raises(ValueError, match="enlarges 512 times, at most 64"):
        DecoderSpec.from_json(
            _spec_json("AutoencoderTiny", upsampling_scaling_factor=8, decoder_block_out_channels=[6] * 4,
                       num_decoder_blocks=[1] * 4)
        )  # fmt: skip

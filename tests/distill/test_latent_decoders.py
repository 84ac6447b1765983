"""`latent_decoders`: decoders built of specifications, without weights, without their authors' code, not too big."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import build_decoder, in_batches, to_uint8
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.autoencoders import small_model


def test_built_decoder_has_no_weights_until_they_are_loaded(any_folder: Path) -> None:
    state = build_decoder(load_autoencoder(str(any_folder)).decoder_spec).state_dict()
    assert all(not tensor.any() for tensor in state.values())
    assert {key.split(".")[1] for key in state} <= {"decoder", "post_quant_conv"}
    has_conv = any_folder.name in ("AutoencoderKL", "AutoencoderKLWan")
    assert ("model.post_quant_conv.weight" in state) == has_conv


def test_a_specification_alone_runs_no_code_of_its_author() -> None:
    spec = DecoderSpec(
        "os:system",
        {
            "config": {},
            "frames": [4, 4, 1],
            "is_temporal": True,
            "latent_channels": 4,
            "scaling_factor": 1.0,
            "shift_factor": None,
            "upsampling": 8,
        },
    )
    with pytest.raises(ValueError, match="whose author's code is not run unasked"):
        build_decoder(spec)


def test_a_decoder_too_big_is_refused_before_anything_is_allocated() -> None:
    config = dict(DecoderSpec.from_config("AutoencoderTiny", small_model("AutoencoderTiny").config).config)
    config |= {"decoder_block_out_channels": [1024] * 3, "num_decoder_blocks": [64] * 3}
    with pytest.raises(ValueError, match="parameters, at most"):
        build_decoder(DecoderSpec("AutoencoderTiny", config))  # 350 GB if it were allocated


def test_weights_take_no_memory_until_they_are_wanted() -> None:
    spec = DecoderSpec.from_config("AutoencoderTiny", small_model("AutoencoderTiny").config)
    bare, whole = build_decoder(spec, allocate=False), build_decoder(spec)
    assert all(tensor.is_meta for tensor in bare.state_dict().values())
    shapes = {key: tensor.shape for key, tensor in whole.state_dict().items()}
    assert {key: tensor.shape for key, tensor in bare.state_dict().items()} == shapes
    bare.allocate()
    latents = np.random.default_rng(0).normal(size=(1, 2, 4, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(bare.decode(latents), whole.decode(latents))


def test_pixels_beyond_their_range_are_clamped() -> None:
    pixels = torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0])
    np.testing.assert_array_equal(to_uint8(pixels), [0, 0, 128, 255, 255])


def test_all_items_are_run_once_and_in_order() -> None:
    seen = in_batches(lambda part: np.arange(7)[part], 7, 2**17, torch.device("cpu"))
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(7))
    assert len(seen) == 4  # two items fill a batch of 2¹⁸ pixels
    assert in_batches(lambda part: np.arange(0)[part], 0, 1, torch.device("cpu")) == []


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def fail(_part: slice) -> np.ndarray:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        in_batches(fail, 4, 1, torch.device("cpu"))

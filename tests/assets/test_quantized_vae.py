"""The decoder's weights are int8, near the full ones, and depend on the cores."""

from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import build_decoder
from lvdd_assets.distill.quantization import QuantizedWeights, dequantize
from lvdd_assets.distill.release import load_release, read_ledger
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import load_autoencoder
from tests.conftest import QUICK, MakeChain, failure, metadata


def test_weights_are_a_quarter_and_close(finished: MakeChain) -> None:
    chain = finished()
    partition = ZarrStore(chain.workspace.data_root, "quantized_vae").open("tiny")
    figures = partition.commit.metrics
    assert figures["float32_bytes"] == 4 * figures["num_parameters"]
    assert figures["num_parameters"] <= figures["stored_bytes"] < figures["num_parameters"] * 1.1
    assert figures["psnr_db"] > 35
    assert figures["num_calibration_clips"] == 4
    assert figures["num_held_out_clips"] == 2
    assert figures["quantized_share"] > 0.98
    decoder = build_decoder(DecoderSpec.from_json(figures["decoder"]))
    template = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    data = partition.read("weights").tobytes()
    assert len(data) == figures["stored_bytes"]
    decoder.load_state_dict(dequantize(QuantizedWeights.from_bytes(data, template)))
    latents = ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents")
    difference = decoder.decode(latents).astype(int) - load_autoencoder("embedded-2d").decode(latents)
    assert np.abs(difference).mean() < 3


def test_it_depends_on_the_cores(finished: MakeChain) -> None:
    chain = finished()
    assert chain.computed(chain.materialize("quantized_vae")) == set()
    chain.materialize("hosvd_cores", config={"hosvd_cores": {"rank_ratio": 0.5}})
    result = chain.materialize("quantized_vae")
    assert chain.computed(result) == {"quantized_vae tiny"}
    assert metadata(result, "quantized_vae", "tiny")["cached"] is False


def test_fewer_bits_make_a_smaller_release(finished: MakeChain) -> None:
    chain = finished(budget="{bytes: 1MB}")  # room for the finest rung, so that the decoder alone makes the difference
    release = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    sizes = []
    for bits in (8, 6):
        result = chain.materialize("quantized_vae", config={"quantized_vae": {"bits": bits}})
        assert metadata(result, "quantized_vae", "tiny")["psnr_db"] > 30
        chain.materialize("release")
        sizes.append(release.stat().st_size)
    assert sizes[1] < sizes[0] - 10_000


def test_the_fewest_bits_that_cost_next_to_nothing(finished: MakeChain) -> None:
    chain = finished()
    figures = ZarrStore(chain.workspace.data_root, "quantized_vae").open("tiny").commit.metrics
    table = figures["bits_tried"]
    assert table[0]["bits"] == 8
    cheap = [row["bits"] for row in table if row["loss_db"] <= 0.3]
    assert figures["bits"] == min(cheap)
    sizes = [row["release_bytes"] for row in table]
    assert sizes == sorted(sizes, reverse=True)
    chain.materialize("quantized_vae", config={"quantized_vae": {"max_bits_loss_db": 0.0, "max_loss_db": 3.0}})
    strict = ZarrStore(chain.workspace.data_root, "quantized_vae").open("tiny").commit.metrics
    assert strict["bits"] >= figures["bits"]


def test_recipe_paper_counts_the_encoder_and_measures_static_arithmetic(finished: MakeChain) -> None:
    chain = finished(recipe="paper", budget="{ipc: 1}")
    chain.materialize("hosvd_cores")
    result = chain.materialize("quantized_vae", "release")
    assert result.success, failure(result)
    figures = ZarrStore(chain.workspace.data_root, "quantized_vae").open("tiny").commit.metrics
    assert (figures["bits"], figures["scheme"]) == (8, "channels")
    assert figures["static_share"] > 0.9
    assert figures["static_activations"] >= 10
    assert figures["static_psnr_db"] > 25
    ledger = read_ledger(chain.workspace.data_root / "release" / "tiny.zarr.zip")
    parts = {line.part: line.num_bytes for line in ledger.lines}
    assert parts["encoder"] > 100_000  # 168 thousand weights of a byte each, before zstd
    assert load_release(chain.workspace.data_root / "release" / "tiny.zarr.zip").dataset()[0][0].shape == (8, 3, 48, 48)


def test_a_3d_autoencoder_through_the_whole_chain(finished: MakeChain, saved: dict[str, Path]) -> None:
    chain = finished(vae=str(saved["AutoencoderTinyVideo"]), budget="{bytes: 300kB}")
    assert chain.materialize("latents", "dpp_subsets", "hosvd_cores").success
    result = chain.materialize("quantized_vae", "release", config={"quantized_vae": {"max_loss_db": 100.0}})
    assert result.success, failure(result)
    latents = ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents")
    assert latents.shape == (5, 2, 4, 12, 12)
    release = load_release(chain.workspace.data_root / "release" / "tiny.zarr.zip")
    assert release.decoder_spec.class_name == "AutoencoderTinyVideo"
    assert release.dataset()[0][0].shape == (8, 3, 48, 48)


def test_two_stages_of_a_3d_autoencoder(finished: MakeChain, saved: dict[str, Path]) -> None:
    chain = finished(recipe="paper", vae=str(saved["AutoencoderTinyVideo"]), budget="{ipc: 1}")
    assert chain.materialize("latents", "dpp_subsets", "hosvd_cores").success
    result = chain.materialize("quantized_vae", "release")
    assert result.success, failure(result)
    figures = ZarrStore(chain.workspace.data_root, "quantized_vae").open("tiny").commit.metrics
    # It has no linear layer, so the first stage touches nothing and the second everything.
    assert (figures["scheme"], figures["two_stage_int8_share"], figures["quantized_share"]) == ("linear", 0, 0)
    assert figures["two_stage_half_share"] == 1
    assert figures["stored_bytes"] == 2 * figures["num_parameters"]
    assert load_release(chain.workspace.data_root / "release" / "tiny.zarr.zip").dataset()[0][0].shape == (8, 3, 48, 48)


def test_arithmetic_that_does_not_fit_the_autoencoder(finished: MakeChain) -> None:
    result = finished().materialize("quantized_vae", config={"quantized_vae": {"arithmetic": "two_stage"}})
    assert "arithmetic 'two_stage' does not fit the 2D autoencoder embedded-2d: use auto" in failure(result)


def test_a_class_of_the_users_through_the_whole_chain(finished: MakeChain, own_module: str) -> None:
    name = f"{own_module}:Pooling"
    chain = finished(vae=name, budget="{bytes: 90kB}")
    assert chain.materialize("latents", "dpp_subsets", "hosvd_cores").success
    result = chain.materialize("quantized_vae", "release", "eval_report", config=QUICK)
    assert result.success, failure(result)
    path = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    with pytest.raises(ValueError, match="not run unasked"):
        load_release(path).dataset()[0]
    assert load_release(path, trusted_classes=[name]).dataset()[0][0].shape == (8, 3, 48, 48)

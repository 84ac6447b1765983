"""The decoder's weights are int8, near the full ones, and depend on the cores."""

import numpy as np

from lvdd_assets.distill.quantization import QuantizedWeights, dequantize
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import DecoderSpec, build_decoder, load_autoencoder
from tests.conftest import MakeChain, metadata


def test_weights_are_a_quarter_and_close(finished: MakeChain) -> None:
    chain = finished()
    partition = ZarrStore(chain.workspace.data_root, "quantized_vae").open("tiny")
    figures = partition.commit.metrics
    assert figures["float32_bytes"] == 4 * figures["num_parameters"]
    assert figures["num_parameters"] <= figures["int8_bytes"] < figures["num_parameters"] * 1.1
    assert figures["psnr_db"] > 35
    assert figures["num_calibration_clips"] == 4
    decoder = build_decoder(DecoderSpec.from_json(figures["decoder"]))
    template = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    data = partition.read("weights").tobytes()
    assert len(data) == figures["int8_bytes"]
    decoder.load_state_dict(dequantize(QuantizedWeights.from_bytes(data, template)))
    latents = ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents")
    difference = decoder.decode(latents).astype(int) - load_autoencoder("embedded-2d").decode(latents)
    assert np.abs(difference).mean() < 3


def test_it_depends_on_the_cores(finished: MakeChain) -> None:
    chain = finished()
    assert chain.computed(chain.materialize("quantized_vae")) == set()
    chain.materialize("hosvd_cores", config={"hosvd_cores": {"coarsest_step": 2.0}})
    result = chain.materialize("quantized_vae")
    assert chain.computed(result) == {"quantized_vae tiny"}
    assert metadata(result, "quantized_vae", "tiny")["cached"] is False


def test_fewer_bits_make_a_smaller_release(finished: MakeChain) -> None:
    chain = finished(budget="{bytes: 1MB}")  # room for the finest rung, so that the decoder alone makes the difference
    release = chain.workspace.data_root / "release" / "tiny.zarr.zip"
    chain.materialize("release")
    before = release.stat().st_size
    result = chain.materialize("quantized_vae", config={"quantized_vae": {"bits": 6}})
    assert metadata(result, "quantized_vae", "tiny")["psnr_db"] > 30
    chain.materialize("release")
    assert release.stat().st_size < before - 10_000

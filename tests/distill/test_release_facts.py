"""`release_facts`: what is said of a release is what is in it; of several, what differs and nothing else."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.quantization import QuantizedWeights, quantize_weights
from lvdd_assets.distill.release import Release, load_release
from lvdd_assets.distill.release_facts import differences, gather_facts
from lvdd_assets.distill.release_files import ReleaseError

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(GOLDEN.glob("*.zarr.zip"))


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.name)
def test_facts_are_those_of_the_loader_and_every_byte_is_in_them(path: Path) -> None:
    release = load_release(path)
    facts = gather_facts(release)
    assert sum(facts.parts.values()) == facts.num_bytes == path.stat().st_size
    assert [one.name for one in facts.classes] == list(release.class_names)
    assert [one.num_clips for one in facts.classes] == list(release.class_counts)
    assert sum(one.num_bytes for one in facts.classes) == facts.parts["cores"]
    assert facts.bytes_per_clip * release.num_clips == pytest.approx(facts.num_bytes)
    assert facts.has_soft_labels == release.has_soft_labels
    assert json.loads(json.dumps(facts.to_json(), allow_nan=False))["sha256"] == release.sha256


def test_each_form_is_named_once() -> None:
    facts = gather_facts(load_release(GOLDEN / "release-v3.zarr.zip"))
    assert facts.forms == ("hosvd-range", "tucker-f32", "svd-f32", "video av1", "video hevc", "video h264")
    assert {one.name: one.form for one in facts.classes}["av1"] == "video av1"


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_weights_have_the_bits_that_they_were_rounded_to(bits: int) -> None:
    release = load_release(GOLDEN / "release-v4.zarr.zip")
    weights = quantize_weights(release.build_decoder(), bits=bits)
    assert gather_facts(replace(release, decoder_data=weights.to_bytes())).weight_bits == bits


def test_weights_that_are_all_zero_or_not_there_have_no_bits() -> None:
    release = load_release(GOLDEN / "release-v4.zarr.zip")
    nothing = QuantizedWeights.to_bytes(quantize_weights(release.build_decoder()))
    assert gather_facts(replace(release, decoder_data=bytes(len(nothing)))).weight_bits is None
    assert gather_facts(replace(release, decoder_spec=None)).weight_bits is None
    assert gather_facts(replace(release, decoder_spec=None)).autoencoder is None
    with pytest.raises(ReleaseError, match="decoder"):
        gather_facts(replace(release, decoder_data=nothing[:-1]))


def test_no_code_is_run_that_was_not_trusted(own_module: str) -> None:
    release, name = load_release(GOLDEN / "release-v4.zarr.zip"), f"{own_module}:Pooling"
    config = {"config": {}, "frames": [2, 2, 0], "is_temporal": True, "latent_channels": 2, "scaling_factor": 1.0}
    spec = DecoderSpec(name, {**config, "shift_factor": 0.0, "upsampling": 4})
    facts = gather_facts(replace(release, decoder_spec=spec))
    assert (facts.decoder, facts.weight_bits) == (name, None)
    assert own_module not in sys.modules
    # Trusted, it is built: its weights are then seen not to be those of the file.
    with pytest.raises(ReleaseError, match="bytes of weights"):
        gather_facts(replace(release, decoder_spec=spec, trusted_classes=(name,)))
    assert own_module in sys.modules


def _with(release: Release, **provenance: object) -> Release:
    return replace(release, provenance=provenance)


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [
        ({"ipc": None, "bytes": 1000}, 1000),
        ({"ipc": 1, "bytes": None}, 3 * 4 * 16 * 16 * 3 * 4),  # classes, frames, pixels, colours, bytes of a float
        ({"ipc": 1, "bytes": 1000}, None),
        ({"bytes": "many"}, None),
        ({"bytes": True}, None),
        ({"bytes": -1}, None),
        ("many", None),
        (None, None),
    ],
)
def test_the_budget_is_read_with_distrust(budget: object, allowed: int | None) -> None:
    release = load_release(GOLDEN / "release-v4.zarr.zip")
    assert gather_facts(_with(release, budget=budget)).allowed_bytes == allowed


def test_differences_are_what_differs() -> None:
    release = load_release(GOLDEN / "release-v4.zarr.zip")
    first = _with(release, recipe="tight", inputs={"a": "1", "b": "2"}, budget={"ipc": None, "bytes": 9})
    second = _with(release, recipe="codec", inputs={"b": "2", "a": "3"}, budget={"ipc": None, "bytes": 9}, license="x")
    facts = [gather_facts(one) for one in (first, second, first)]
    assert differences(facts) == {
        "recipe": ("tight", "codec", "tight"),
        "inputs.a": ("1", "3", "1"),
        "license": (None, "x", None),
    }
    assert differences([facts[0], facts[2]]) == {}
    assert facts[0].source == facts[2].source != facts[1].source
    assert gather_facts(_with(release, inputs=dict(reversed(first.provenance["inputs"].items())))).source == (
        facts[0].source
    )
    assert gather_facts(_with(release)).source is None
    assert np.isfinite(facts[0].bytes_per_clip)

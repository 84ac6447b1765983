"""Latents are the autoencoder's, for any autoencoder that the registry names."""

from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import load_autoencoder
from tests.conftest import MakeChain, failure, metadata

TAESD = Path(__file__).parents[2].parent / "shared" / "weights" / "taesd"


def test_latents_are_the_autoencoders(finished: MakeChain) -> None:
    chain = finished()
    clips = ZarrStore(chain.workspace.data_root, "raw_clips").open("tiny/grow").read("train")
    partition = ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow")
    latents = partition.read("latents")
    assert (latents.dtype, latents.shape) == (np.float16, (5, 8, 4, 6, 6))
    expected = load_autoencoder("embedded-2d", dtype=precision_for("cpu")).encode(clips)
    np.testing.assert_allclose(latents, expected, rtol=1e-3, atol=1e-3)  # half precision has 11 bits
    figures = partition.commit.metrics
    assert figures["latent_std"] == pytest.approx(latents.astype(float).std(), rel=1e-6)
    assert 0.5 < figures["latent_std"] < 2  # unit scale
    assert figures["latent_bytes"] == latents.nbytes
    assert figures["psnr_db"] > 18


def test_they_are_read_by_tensorstore_and_by_plain_zarr(finished: MakeChain) -> None:
    chain = finished()
    partition = ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow")
    path = chain.workspace.data_root / "latents.zarr" / "tiny" / "grow" / partition.commit.version / "latents"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    array = tensorstore.open(spec, read=True).result()
    assert (array.dtype.name, array.shape) == ("float16", (5, 8, 4, 6, 6))
    np.testing.assert_array_equal(array.read().result(), partition.read("latents"))
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[...], partition.read("latents"))
    assert len(list((path / "c").rglob("*"))) == 5  # one shard, in the folders of its four other axes


def test_drawn_latents_depend_on_the_seed_alone(finished: MakeChain, saved: dict[str, Path]) -> None:
    chain = finished(vae=str(saved["AutoencoderKL"]))
    store = ZarrStore(chain.workspace.data_root, "latents")
    seen = []
    for config in ({"posterior": "mode"}, {"posterior": "sample"}, {"posterior": "sample", "seed": 1}):
        chain.materialize("latents", partition="tiny/grow", config={"latents": config})
        seen.append(store.open("tiny/grow").read("latents").astype(float))
    assert np.abs(seen[1] - seen[0]).max() > 1e-2
    assert np.abs(seen[2] - seen[1]).max() > 1e-2
    chain.materialize("latents", partition="tiny/grow", config={"latents": {"posterior": "sample"}})
    np.testing.assert_array_equal(store.open("tiny/grow").read("latents"), seen[1])


def test_nothing_is_drawn_from_an_autoencoder_without_a_posterior(finished: MakeChain) -> None:
    chain = finished()
    result = chain.materialize("latents", partition="tiny/grow", config={"latents": {"posterior": "sample"}})
    assert "embedded-2d has no posterior to draw from" in failure(result)
    assert ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").num_rows("latents") == 5


def test_a_clip_size_that_does_not_divide_names_both_numbers(finished: MakeChain) -> None:
    chain = finished()
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("size: 48", "size: 44"))
    assert "multiple of 8; got 44 × 44" in failure(chain.materialize("latents", partition="tiny/grow"))


def test_they_lie_in_latents_zarr(finished: MakeChain) -> None:
    chain = finished()
    group = zarr.open_group(chain.workspace.data_root / "latents.zarr", mode="r")
    assert sorted(group["tiny"].keys()) == ["grow", "move_left"]


def test_nothing_upstream_names_the_command(make_chain: MakeChain) -> None:
    message = failure(make_chain().materialize("latents"))
    assert "latents: nothing stored upstream: raw_clips for tiny/grow, tiny/move_left" in message
    assert "dagster asset materialize --select '*raw_clips' --partition tiny" in message


def test_another_clip_shape_refreshes_the_clips_on_the_way(finished: MakeChain) -> None:
    chain = finished()
    registry = chain.workspace.registry
    registry.write_text(registry.read_text().replace("frames: 8", "frames: 4"))
    computed = chain.computed(chain.materialize("latents", partition="tiny/grow"))
    assert computed == {"raw_clips tiny/grow", "latents tiny/grow"}
    assert ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents").shape[1] == 4


def test_an_unknown_autoencoder_leaves_what_was_stored(finished: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    chain = finished(vae="nobody/nothing")
    result = chain.materialize("latents")
    assert not result.success
    assert "nobody/nothing" in failure(result)
    assert ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").num_rows("latents") == 5


@pytest.mark.skipif(not TAESD.is_dir(), reason="needs ../shared/weights/taesd beside the project")
def test_a_local_diffusers_folder(finished: MakeChain) -> None:
    chain = finished(vae=str(TAESD))
    result = chain.materialize("latents", partition="tiny/grow")
    assert chain.computed(result) == {"latents tiny/grow"}
    assert metadata(result, "latents", "tiny/grow")["psnr_db"] > 18

"""What a class keeps in the store comes back."""

from pathlib import Path

import numpy as np

from lvdd_assets.distill import class_coding, class_stores, tucker
from lvdd_assets.distill.stores import Partition, ZarrStore
from tests.distill.smooth_latents import latents


def _store(root: Path, form: str) -> Partition:
    hosvd = tucker.decompose(latents())
    store = ZarrStore(root, "hosvd_cores")
    with store.write("set/run", form, settings={}, inputs={}) as out:
        if form == "hosvd":
            class_stores.keep_hosvd(out, hosvd)
        else:
            coded = class_coding.encode_tucker(tucker.decompose(latents(), ranks=(5, 4, 3, 3), instance_rank=4))
            out.metrics = {"coded": class_stores.keep_coded(out, coded)}
    return store.open("set/run")


def test_the_hosvd_comes_back(tmp_path: Path) -> None:
    read, expected = class_stores.read_hosvd(_store(tmp_path, "hosvd")), tucker.decompose(latents())
    np.testing.assert_array_equal(read.core, expected.core)
    for ours, theirs in zip(read.factors, expected.factors, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_only_coding_comes_back(tmp_path: Path) -> None:
    expected = class_coding.encode_tucker(tucker.decompose(latents(), ranks=(5, 4, 3, 3), instance_rank=4))
    assert class_stores.read_coded(_store(tmp_path, "coded")) == expected


def test_latents_as_a_release_will_have_them(tmp_path: Path) -> None:
    fine = class_stores.read_latents(_store(tmp_path / "a", "hosvd"), step=0.01, most_clips=3)
    np.testing.assert_allclose(fine, latents()[:3], atol=0.1)
    coarse = class_stores.read_latents(_store(tmp_path / "a", "hosvd"), step=2.0, most_clips=3)
    assert np.abs(coarse - latents()[:3]).max() > 0.1
    cut = class_stores.read_latents(_store(tmp_path / "b", "coded"), step=2.0, most_clips=3)
    assert cut.shape == fine.shape

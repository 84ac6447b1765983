"""The stored HOSVD is that of the selected latents, and its rates are what a release will pay."""

import numpy as np
import pytest

from lvdd_assets.distill import class_coding, tucker
from lvdd_assets.distill.class_stores import read_coded, read_hosvd, read_latents
from lvdd_assets.distill.stores import Partition, ZarrStore
from tests.conftest import Chain, MakeChain, failure, metadata


def _stored(chain: Chain, class_name: str = "grow") -> Partition:
    return ZarrStore(chain.workspace.data_root, "hosvd_cores").open(f"tiny/{class_name}")


def _selected(chain: Chain) -> np.ndarray:
    items = ZarrStore(chain.workspace.data_root, "dpp_subsets").open("tiny/grow").read("items")
    return ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents")[items]


def test_the_whole_transform_is_kept(finished: MakeChain) -> None:
    chain = finished()
    latents = _selected(chain).astype(np.float32)
    np.testing.assert_allclose(tucker.reconstruct(read_hosvd(_stored(chain))), latents, atol=1e-4)
    coded = read_latents(_stored(chain), step=0.5, most_clips=2)
    assert coded.shape == (2, *latents.shape[1:])
    assert 0.01 < np.sqrt(np.mean((coded - latents[:2]) ** 2)) <= 0.25  # half a step for each coefficient at most


def test_rates_are_what_coding_takes(finished: MakeChain) -> None:
    stored = _stored(finished())
    coder = class_coding.ClassCoder(read_hosvd(stored))
    rates = stored.commit.metrics["rates"]
    assert [row["step"] for row in rates] == sorted(row["step"] for row in rates)
    for row in rates[::4]:
        assert len(coder.encode(row["step"]).data) == row["bytes"]
    sizes = [row["bytes"] for row in rates]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["latent_snr_db"] for row in rates] == sorted((row["latent_snr_db"] for row in rates), reverse=True)


def test_metadata(finished: MakeChain) -> None:
    shown = metadata(finished().materialize("hosvd_cores"), "hosvd_cores", "tiny/grow")
    assert shown["num_clips"] == 3
    assert shown["psnr_db"] > 15
    assert shown["rates"].startswith("| step | bytes |")


def test_recipe_paper_keeps_float32_at_the_papers_ranks(finished: MakeChain) -> None:
    chain = finished(recipe="paper")
    assert chain.computed(chain.materialize("hosvd_cores")) == {"hosvd_cores tiny/grow", "hosvd_cores tiny/move_left"}
    coded = read_coded(_stored(chain))
    assert (coded.codec, coded.ranks) == ("tucker-f32", (6, 4, 4, 4))
    assert len(coded.data) == 4 * (3 * 6 * 4 * 4 * 4 + 8 * 6 + 4 * 4 + 6 * 4 + 6 * 4)
    latents = _selected(chain)
    expected = tucker.reconstruct(tucker.decompose(latents, ranks=(6, 4, 4, 4)))
    np.testing.assert_allclose(class_coding.decode(coded), expected, atol=1e-4)


def test_recipe_paper_with_an_instance_mode_and_its_ablation(finished: MakeChain) -> None:
    chain = finished(recipe="paper")
    chain.materialize("hosvd_cores", config={"hosvd_cores": {"channel_ratio": 0.5, "instance_ratio": 0.67}})
    coded = read_coded(_stored(chain))
    assert coded.ranks == (6, 2, 4, 4, 2)
    assert class_coding.decode(coded).shape == _selected(chain).shape
    chain.materialize("hosvd_cores", config={"hosvd_cores": {"svd": True}})
    ablation = read_coded(_stored(chain))
    assert ablation.codec == "svd-f32"
    assert len(ablation.data) <= 4 * (3 * 6 * 4 * 4 * 4 + 8 * 6 + 4 * 4 + 6 * 4 + 6 * 4)


@pytest.mark.parametrize(
    ("recipe", "config", "message"),
    [
        ("paper", {"rank_ratio": 1.5}, r"rank ratio must be in (0, 1], got 1.5"),
        ("paper", {"ranks": [8, 4, 7, 6]}, "rank 7 of mode h is not in 1 … 6, the mode's size"),
    ],
)
def test_bad_settings_leave_what_was_stored(
    finished: MakeChain, recipe: str, config: dict[str, object], message: str
) -> None:
    chain = finished(recipe=recipe)
    chain.materialize("hosvd_cores")
    before = read_coded(_stored(chain))
    result = chain.materialize("hosvd_cores", config={"hosvd_cores": config})
    assert not result.success
    assert message in failure(result)
    assert read_coded(_stored(chain)) == before


def test_a_replaced_video_recomputes_its_class_alone(finished: MakeChain) -> None:
    chain = finished()
    (chain.videos / "train/grow/grow_001.mp4").write_bytes((chain.videos / "test/grow/grow_000.mp4").read_bytes())
    computed = chain.computed(chain.materialize("hosvd_cores"))
    assert computed == {f"{step} tiny/grow" for step in ("raw_clips", "latents", "dpp_subsets", "hosvd_cores")}
    assert chain.computed(chain.materialize("hosvd_cores")) == set()

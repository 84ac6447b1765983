"""Coded classes decode to the selected latents, at every rung of their ladder."""

import numpy as np
import pytest

from lvdd_assets.distill import coding, tucker
from lvdd_assets.distill.stores import ZarrStore
from tests.conftest import Chain, MakeChain, failure, metadata


def _ladder(chain: Chain, class_name: str = "grow") -> list[coding.CodedClass]:
    partition = ZarrStore(chain.workspace.data_root, "hosvd_cores").open(f"tiny/{class_name}")
    return coding.unpack_ladder(partition.read("ladder"), partition.commit.metrics["ladder"])


def _selected(chain: Chain) -> np.ndarray:
    items = ZarrStore(chain.workspace.data_root, "dpp_subsets").open("tiny/grow").read("items")
    return ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents")[items]


def test_every_rung_decodes_to_a_prefix_of_the_selection(finished: MakeChain) -> None:
    chain = finished()
    latents, ladder = _selected(chain), _ladder(chain)
    for coded in ladder:
        decoded = tucker.reconstruct(tucker.TuckerTensor(*coding.decode(coded)))
        error = decoded - latents[: coded.num_clips]
        # An orthonormal basis keeps the coefficients' error, at most half a step each; float16 factors add a little.
        assert np.sqrt(np.mean(error**2)) <= coded.step / 2 * 1.05 + 0.01
    sizes = [len(coded.data) for coded in ladder]
    assert sizes[0] > 2 * sizes[-1]
    assert ladder[-1].num_clips == 1


def test_all_classes_have_the_same_rungs(finished: MakeChain) -> None:
    chain = finished()
    one, other = _ladder(chain, "grow"), _ladder(chain, "move_left")
    assert [coded.step for coded in one] == [coded.step for coded in other]


def test_metadata(finished: MakeChain) -> None:
    shown = metadata(finished().materialize("hosvd_cores"), "hosvd_cores", "tiny/grow")
    assert shown["num_clips"] == 3
    assert shown["psnr_db"] > 15
    assert shown["ladder"].startswith("| codec | clips |")


def test_recipe_paper_keeps_float32_at_the_papers_ranks(finished: MakeChain) -> None:
    chain = finished(recipe="paper")
    assert chain.computed(chain.materialize("hosvd_cores")) == {"hosvd_cores tiny/grow", "hosvd_cores tiny/move_left"}
    (coded,) = _ladder(chain)
    assert (coded.codec, coded.ranks) == ("tucker-f32", (6, 4, 4, 4))
    assert len(coded.data) == 4 * (3 * 6 * 4 * 4 * 4 + 8 * 6 + 4 * 4 + 6 * 4 + 6 * 4)
    latents = _selected(chain)
    core, factors = coding.decode(coded)
    np.testing.assert_allclose(core, tucker.project(latents, factors), atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "config", "message"),
    [
        ("paper", {"rank_ratio": 1.5}, r"rank ratio must be in (0, 1], got 1.5"),
        ("tight", {"ranks": [8, 4, 7, 6]}, "rank 7 of mode h is not in 1 … 6, the mode's size"),
        ("tight", {"finest_step": 8.0}, "finest ≤ coarsest"),
    ],
)
def test_bad_settings_leave_what_was_stored(
    finished: MakeChain, recipe: str, config: dict[str, object], message: str
) -> None:
    chain = finished(recipe=recipe)
    before = [coded.data for coded in _ladder(chain)]
    result = chain.materialize("hosvd_cores", config={"hosvd_cores": config})
    assert not result.success
    assert message in failure(result)
    assert [coded.data for coded in _ladder(chain)] == before


def test_a_replaced_video_recomputes_its_class_alone(finished: MakeChain) -> None:
    chain = finished()
    (chain.videos / "train/grow/grow_001.mp4").write_bytes((chain.videos / "test/grow/grow_000.mp4").read_bytes())
    computed = chain.computed(chain.materialize("hosvd_cores"))
    assert computed == {f"{step} tiny/grow" for step in ("raw_clips", "latents", "dpp_subsets", "hosvd_cores")}
    assert chain.computed(chain.materialize("hosvd_cores")) == set()

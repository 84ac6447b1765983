"""The stored subset is a k-DPP draw over the stored latents."""

import pytest

from lvdd_assets.distill import dpp
from lvdd_assets.distill.stores import ZarrStore
from tests.conftest import Chain, MakeChain, failure, metadata


def _items(chain: Chain, class_name: str = "grow") -> list[int]:
    return ZarrStore(chain.workspace.data_root, "dpp_subsets").open(f"tiny/{class_name}").read("items").tolist()


def test_as_many_as_asked_for(finished: MakeChain) -> None:
    items = _items(finished())
    assert len(items) == 3  # the registry asks for 3 of 5
    assert len(set(items)) == 3
    assert set(items) <= set(range(5))


def test_a_small_class_is_kept_whole_by_default(finished: MakeChain) -> None:
    chain = finished(clips="null")
    chain.materialize("dpp_subsets")
    assert sorted(_items(chain)) == [0, 1, 2, 3, 4]


def test_metadata_names_the_clips_and_shows_the_kernel(finished: MakeChain) -> None:
    chain = finished()
    shown = metadata(chain.materialize("dpp_subsets"), "dpp_subsets", "tiny/grow")
    assert shown["selected"] == [f"train/grow/grow_{item:03d}.mp4" for item in _items(chain)]
    assert 1e-3 < shown["max_off_diagonal"] <= 1.0  # L is not the identity
    assert shown["bandwidth"] > 1.0
    latents = ZarrStore(chain.workspace.data_root, "latents").open("tiny/grow").read("latents")
    kernel = dpp.build_kernel(latents.reshape(5, -1))
    assert shown["log_det"] == pytest.approx(dpp.log_det(kernel, _items(chain)), rel=1e-6)


def test_registry_and_run_config_can_ask_for_a_number(finished: MakeChain) -> None:
    chain = finished(clips="2")
    assert chain.computed(chain.materialize("dpp_subsets")) == {"dpp_subsets tiny/grow", "dpp_subsets tiny/move_left"}
    assert len(_items(chain)) == 2
    chain.materialize("dpp_subsets", config={"dpp_subsets": {"clips_per_class": 5}})
    assert sorted(_items(chain)) == [0, 1, 2, 3, 4]


def test_more_than_there_are_is_an_error_with_both_numbers(finished: MakeChain) -> None:
    chain = finished(clips="6")
    before = _items(chain)
    message = failure(chain.materialize("dpp_subsets"))
    assert "class 'grow' has 5 usable train clips, clips_per_class asks for 6: lower it" in message
    assert _items(chain) == before


def test_seeds_differ_and_repeat(finished: MakeChain) -> None:
    chain = finished()
    draws = {}
    for seed in (1, 2, 3, 4, 5, 6, 1):
        chain.materialize("dpp_subsets", config={"dpp_subsets": {"seed": seed}})
        assert draws.setdefault(seed, _items(chain)) == _items(chain)
    assert len({tuple(sorted(items)) for items in draws.values()}) > 1


def test_an_unknown_kernel(finished: MakeChain) -> None:
    message = failure(finished().materialize("dpp_subsets", config={"dpp_subsets": {"kernel": "magic"}}))
    assert "unknown kernel 'magic'; known: rbf, cosine, linear" in message

"""The stored subset is a k-DPP draw over the stored latents."""

import hashlib
import shutil

import numpy as np
import pytest

from lvdd_assets.distill import coresets, dpp, paper, selection
from lvdd_assets.distill.features import prepare
from lvdd_assets.distill.kernels import build_kernel
from lvdd_assets.distill.selection import METHODS
from lvdd_assets.distill.stores import ZarrStore
from tests.conftest import Chain, MakeChain, failure, metadata


def _items(chain: Chain, class_name: str = "grow") -> list[int]:
    return ZarrStore(chain.workspace.data_root, "dpp_subsets").open(f"tiny/{class_name}").read("items").tolist()


def _latents(chain: Chain, class_name: str = "grow") -> np.ndarray:
    return ZarrStore(chain.workspace.data_root, "latents").open(f"tiny/{class_name}").read("latents")


def test_as_many_as_asked_for(finished: MakeChain) -> None:
    items = _items(finished())
    assert len(items) == 3  # the registry asks for 3 of 5
    assert len(set(items)) == 3
    assert set(items) <= set(range(5))


def test_a_small_class_is_kept_whole_by_default(finished: MakeChain) -> None:
    chain = finished(clips="null")
    chain.materialize("dpp_subsets")
    assert sorted(_items(chain)) == [0, 1, 2, 3, 4]


def test_the_default_depends_on_the_recipe_alone(finished: MakeChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "DEFAULT_CLIPS", 4)
    monkeypatch.setattr(paper, "RELEASED_IPC1_CLIPS_PER_CLASS", 2)
    for recipe, kept, computed in (("tight", 4, 2), ("codec", 4, 0), ("paper", 2, 2)):
        chain = finished(clips="null", recipe=recipe)
        assert len(chain.computed(chain.materialize("dpp_subsets"))) == computed
        assert len(_items(chain)) == kept


def test_all_of_a_class(finished: MakeChain) -> None:
    chain = finished(clips="all")
    chain.materialize("dpp_subsets")
    assert sorted(_items(chain)) == [0, 1, 2, 3, 4]


def test_copies_are_left_out_and_counted_where_no_number_was_asked_for(make_chain: MakeChain) -> None:
    chain = make_chain(clips="all")
    folder = chain.videos / "train/grow"
    for copy in ("copy_a", "copy_b"):
        shutil.copyfile(folder / "grow_001.mp4", folder / f"{copy}.mp4")
    for asset in ("raw_clips", "latents"):
        chain.materialize(asset)
    result = chain.materialize("dpp_subsets")
    shown = metadata(result, "dpp_subsets", "tiny/grow")
    assert (shown["num_selected"], shown["num_wanted"], shown["num_clips"]) == (5, 7, 7)
    assert shown["warning"].startswith("2 of 7 clips add nothing to the others, as copies do, and are left out.")
    assert "warning" not in metadata(result, "dpp_subsets", "tiny/move_left")
    names = [name.removeprefix("train/grow/") for name in shown["selected"]]
    assert len({"grow_001.mp4", "copy_a.mp4", "copy_b.mp4"} & set(names)) == 1


def test_a_number_that_copies_cannot_fill_is_an_error(make_chain: MakeChain) -> None:
    chain = make_chain(clips="6")
    folder = chain.videos / "train"
    for motion in ("grow", "move_left"):
        shutil.copyfile(folder / motion / f"{motion}_001.mp4", folder / motion / "copy.mp4")
    for asset in ("raw_clips", "latents"):
        chain.materialize(asset)
    assert "asked for 6 of 6 clips, possible are 1 to 5 (the kernel's rank)" in failure(
        chain.materialize("dpp_subsets")
    )


def test_metadata_names_the_clips_and_shows_the_kernel(finished: MakeChain) -> None:
    chain = finished()
    shown = metadata(chain.materialize("dpp_subsets"), "dpp_subsets", "tiny/grow")
    assert shown["selected"] == [f"train/grow/grow_{item:03d}.mp4" for item in _items(chain)]
    assert 1e-3 < shown["max_off_diagonal"] <= 1.0  # L is not the identity
    assert shown["bandwidth"] > 1.0
    assert "warning" not in shown
    log_det = dpp.log_det(build_kernel(prepare(_latents(chain))), np.array(_items(chain)))
    assert shown["log_det"] == pytest.approx(log_det, rel=5e-6)  # half a unit of the six digits shown
    assert (shown["kernel_rank"], shown["route"]) == (5, "exact")


def test_metadata_shows_the_figures_beside_uniform_draws(finished: MakeChain) -> None:
    shown = metadata(finished().materialize("dpp_subsets"), "dpp_subsets", "tiny/grow")
    header, _, *rows = shown["comparison"].splitlines()
    assert header == "| figure | chosen | uniform mean | uniform min | uniform max |"
    cells = {
        row.split(" | ")[0].strip("| "): [float(cell) for cell in row.strip("| ").split(" | ")[1:]] for row in rows
    }
    assert list(cells) == ["log det", "mean nearest-neighbour distance", "coverage", "coverage / spread"]
    for _, mean, least, largest in cells.values():
        assert least <= mean <= largest
    assert cells["log det"][0] == pytest.approx(shown["log_det"], rel=1e-3)
    assert cells["coverage"][0] == pytest.approx(shown["coverage"], rel=1e-3)
    # 3 of 5 clips are kept: the others are away from them, but not as far as the class is wide.
    assert 0 < shown["coverage_share"] < 1
    assert shown["mean_nearest_distance"] > 0


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
    assert "unknown kernel 'magic'; known: rbf, cosine, linear, exp" in message


def test_the_default_is_a_k_dpp_draw_over_the_flattened_latents(finished: MakeChain) -> None:
    chain = finished()
    kernel = build_kernel(prepare(_latents(chain).reshape(5, -1)))
    seed = int.from_bytes(hashlib.sha256(b"0 grow").digest()[:8], "big")
    assert _items(chain) == dpp.order_by_gain(kernel, dpp.draw(kernel, 3, seed=seed).items).tolist()


def test_every_method_by_name(finished: MakeChain) -> None:
    chain = finished()
    for method in METHODS:
        config = {"method": method, "features": "pooled", "feature_dim": 64, "quality": 0.5}
        result = chain.materialize("dpp_subsets", partition="tiny/grow", config={"dpp_subsets": config})
        shown = metadata(result, "dpp_subsets", "tiny/grow")
        items = _items(chain)
        assert len(set(items)) == 3
        assert shown["selected"] == [f"train/grow/grow_{item:03d}.mp4" for item in items]
        assert 4 <= shown["feature_dim"] <= 64
        assert shown["config"]["method"] == method


def test_one_projection_serves_all_classes(finished: MakeChain) -> None:
    chain = finished()
    config = {"features": "projected", "feature_dim": 16, "seed": 3, "method": "herding"}
    chain.materialize("dpp_subsets", config={"dpp_subsets": config})
    for name in ("grow", "move_left"):
        points = prepare(_latents(chain, name), kind="projected", dimension=16, seed=3)
        assert _items(chain, name) == coresets.herding(points, 3).tolist()


def test_the_released_kernel_is_shown_to_be_the_identity(finished: MakeChain) -> None:
    config = {"kernel": "exp"}
    shown = metadata(finished().materialize("dpp_subsets", config={"dpp_subsets": config}), "dpp_subsets", "tiny/grow")
    assert shown["max_off_diagonal"] < 1e-6
    assert shown["bandwidth"] == 1.0
    assert "the kernel is diagonal" in shown["warning"]


def test_what_cannot_be_asked_for(finished: MakeChain) -> None:
    chain = finished()
    for config, message in (
        ({"method": "magic"}, "unknown method 'magic'; known: k-dpp, map, random"),
        ({"features": "magic"}, "unknown features 'magic'; known: flat, pooled, projected"),
        ({"features": "projected", "feature_dim": 10**6}, "projected to 1000000 dimensions, the latents have"),
    ):
        result = chain.materialize("dpp_subsets", partition="tiny/grow", config={"dpp_subsets": config})
        assert message in failure(result)

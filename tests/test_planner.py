"""`lvdd plan`: what it foresees is what the release then is."""

import json

import pytest

from lvdd_assets.distill.catalog import Budget
from lvdd_assets.distill.release import load_release
from lvdd_assets.planner import clips_range, make_plans
from tests.conftest import MakeChain


@pytest.mark.parametrize("budget", [46_900, 48_000])
def test_the_release_is_what_was_planned(finished: MakeChain, budget: int) -> None:
    chain = finished(budget=f"{{bytes: {budget}}}")
    spec = chain.workspace.catalog().dataset("tiny")
    plans = make_plans(chain.workspace, spec, budget=None, most_classes=8)
    assert (plans.allowed, plans.num_sampled, plans.num_classes) == (budget, 2, 2)
    tight = next(plan for plan in plans.plans if plan.recipe == "tight")
    assert chain.materialize("release").success
    release = load_release(chain.workspace.data_root / "release" / "tiny.zarr.zip")
    parts = release.ledger.groupby("part")["bytes"].sum()
    assert tight.num_bytes == pytest.approx(release.stored_bytes, rel=0.02)
    assert tight.parts["decoder"] == pytest.approx(parts["decoder"], rel=0.02)
    assert tight.clips == {"grow": 3, "move_left": 3}


def test_another_budget_and_fewer_classes(finished: MakeChain) -> None:
    chain = finished()
    spec = chain.workspace.catalog().dataset("tiny")
    plans = make_plans(chain.workspace, spec, budget=Budget(num_bytes=5_000), most_classes=1)
    assert plans.picked == "codec"  # the decoder alone takes more
    assert plans.num_sampled == 1
    assert any("foreseen from 1 of 2 classes" in note for note in plans.notes)
    by_recipe = {plan.recipe: plan for plan in plans.plans}
    assert "too small" in by_recipe["tight"].problem
    assert not by_recipe["paper"].fits
    assert by_recipe["codec"].num_bytes <= 5_000


def test_a_dataset_that_was_never_touched_can_be_planned(make_chain: MakeChain) -> None:
    chain = make_chain()
    spec = chain.workspace.catalog().dataset("tiny")
    plans = make_plans(chain.workspace, spec, budget=None, most_classes=8)
    assert plans.picked in ("tight", "codec")
    assert any("has not chosen the decoder's bits" in note for note in plans.notes)
    json.dumps([plan.parts for plan in plans.plans])


def test_clips_in_words() -> None:
    assert [clips_range(clips) for clips in ({}, {"a": 3, "b": 3}, {"a": 3, "b": 9})] == ["–", "3", "3 to 9"]

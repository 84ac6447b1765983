"""Plans keep to the budget, foresee what coding takes, and pick what is worth more."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import planning, tucker, video_ladders
from lvdd_assets.distill.budget import BudgetError, clips_of_share
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.class_coding import ClassCoder, encode_tucker
from lvdd_assets.distill.planning import Plan, Sample
from lvdd_assets.distill.quantization import quantize_weights
from lvdd_assets.distill.release import ReleaseParts, pack
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.smooth_latents import latents

SIZES = (4, 4, 4, 4)
COUNTS = {"jump": 6, "run": 4}
CODERS = {name: ClassCoder(tucker.decompose(latents(n, i, SIZES))) for i, (name, n) in enumerate(COUNTS.items())}
RATES = {
    name: {2.0 ** (half / 2): len(coder.encode(2.0 ** (half / 2)).data) for half in range(-6, 5)}
    for name, coder in CODERS.items()
}
FIXED = {"decoder": 5000, "labels": 20, "metadata": 700}


@pytest.fixture(scope="module")
def sample() -> Sample:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, size=(4, 4, 3, 8, 8)).astype(np.uint8)
    clips = coarse.repeat(4, 3).repeat(4, 4)
    ladder = video_ladders.build_ladder(clips, codec="h264", crfs=(24, 36, 51), sizes=((32, 32),))
    return Sample(COUNTS, RATES, {"jump": ladder}, COUNTS, SIZES)


def test_fixed_parts_are_those_of_a_real_release() -> None:
    vae = load_autoencoder("embedded-2d")
    coded = {name: coder.encode(0.5) for name, coder in CODERS.items()}
    weights = quantize_weights(vae.decoder(), bits=6)
    parts = ReleaseParts("videos", ClipShape(4, 2, 32), coded, vae.decoder_spec, weights, {"made": "in a test"})
    fixed = planning.fixed_parts(parts, COUNTS)
    cores = sum(len(item.data) for item in coded.values())
    assert set(fixed) == {"decoder", "labels", "metadata"}
    assert sum(fixed.values()) + cores == pytest.approx(len(pack(parts)), abs=8)  # some digits in the header


@given(allowed=st.integers(5_900, 60_000), more=st.integers(0, 3_000))
@settings(max_examples=40, deadline=None)
def test_a_plan_for_latents_fills_the_budget_and_is_monotone(sample: Sample, allowed: int, more: int) -> None:
    less, enough = (planning.plan_tight(sample, FIXED, allowed=size) for size in (allowed, allowed + more))
    assert less.fits
    assert less.num_bytes <= allowed
    assert sum(enough.clips.values()) >= sum(less.clips.values())
    assert all(1 <= kept <= COUNTS[name] for name, kept in less.clips.items())


def test_what_is_foreseen_is_what_coding_takes(sample: Sample) -> None:
    plan = planning.plan_tight(sample, FIXED, allowed=sum(FIXED.values()) + 400)
    step = float(plan.setting.split()[1])
    really = sum(len(coder.encode(step).data) for coder in CODERS.values())
    assert plan.parts["cores"] == pytest.approx(really, rel=0.06)


def test_classes_that_were_not_sampled_are_foreseen_by_their_clips(sample: Sample) -> None:
    half = dataclasses.replace(sample, counts={**COUNTS, "wave": 6, "fall": 4})
    allowed = sum(FIXED.values()) + 400
    whole = planning.plan_tight(sample, FIXED, allowed=allowed)
    double = planning.plan_tight(half, FIXED, allowed=allowed + 400)
    assert not half.is_whole
    assert sample.is_whole
    steps = [float(plan.setting.split()[1]) for plan in (whole, double)]
    assert steps[1] == pytest.approx(steps[0], rel=0.02)
    assert set(double.clips) == set(half.counts)


def test_a_plan_for_the_paper_is_exact(sample: Sample) -> None:
    plan = planning.plan_paper(sample, FIXED, allowed=10**6, rank_ratio=0.75)
    coded = [encode_tucker(tucker.decompose(latents(n, 0, SIZES), ranks=(3, 4, 3, 3))) for n in COUNTS.values()]
    assert plan.parts["cores"] == sum(len(item.data) for item in coded)
    assert not planning.plan_paper(sample, FIXED, allowed=1000, rank_ratio=0.75).fits


def test_a_plan_for_video_keeps_to_the_budget(sample: Sample) -> None:
    fixed = {"labels": 20, "metadata": 700}
    shares = []
    for allowed in (1_500, 4_000, 9_000, 40_000):
        plan = planning.plan_codec(sample, fixed, allowed=allowed)
        if not plan.problem:
            assert plan.num_bytes <= allowed
        shares.append(sum(plan.clips.values()))
    assert shares == sorted(shares)
    assert shares[-1] == sum(COUNTS.values())
    assert "too small for video" in planning.plan_codec(sample, fixed, allowed=730).problem


def _plan(recipe: str, clips: int, cores: int, *, allowed: int = 10**6, problem: str = "") -> Plan:
    return Plan(recipe, {"run": clips} if clips else {}, "", {"cores": cores}, allowed, problem)


def test_the_pick() -> None:
    pixels = 8 * 64 * 64
    one, why = planning.pick([_plan("tight", 0, 0, problem="no"), _plan("codec", 3, 900)], pixels_per_clip=pixels)
    assert (one.recipe, why) == ("codec", "the only one that fits")
    more, _ = planning.pick([_plan("tight", 9, 900), _plan("codec", 3, 900)], pixels_per_clip=pixels)
    assert more.recipe == "tight"
    # The same bytes for as many clips: latents are worth more while there are few.
    picks = [
        planning.pick([_plan("tight", 10, cores), _plan("codec", 10, cores)], pixels_per_clip=pixels)[0].recipe
        for cores in (1_000, 2_000, 4_000, 8_000, 20_000)
    ]
    assert picks == sorted(picks, reverse=True)
    assert (picks[0], picks[-1]) == ("tight", "codec")
    assert (
        planning.pick(
            [_plan("paper", 10, 10), _plan("tight", 10, 1000), _plan("codec", 10, 1000)], pixels_per_clip=pixels
        )[0].recipe
        == "tight"
    )
    with pytest.raises(BudgetError, match="recipe tight: too small; recipe codec: this too"):
        planning.pick(
            [_plan("tight", 0, 0, problem="too small"), _plan("codec", 0, 0, problem="this too")], pixels_per_clip=1
        )


def test_shares_are_whole_clips(sample: Sample) -> None:
    plan = planning.plan_tight(sample, FIXED, allowed=sum(FIXED.values()) + 60)
    assert plan.clips == {name: clips_of_share(count, plan.clips["jump"] / 6) for name, count in COUNTS.items()}

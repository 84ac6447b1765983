"""A release fills its allowance and never passes it; more bytes never mean less."""

import functools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from lvdd_assets.distill import tucker
from lvdd_assets.distill.budget import COARSEST_STEP, FINEST_STEP, BudgetError
from lvdd_assets.distill.catalog import ClipShape
from lvdd_assets.distill.class_coding import ClassCoder, CodedClass, SharedBasis, decode
from lvdd_assets.distill.filling import Source, fill_with_latents, foresee_bytes, foresee_step
from lvdd_assets.distill.quantization import quantize_weights
from lvdd_assets.distill.release import CodedClips, ReleaseParts, pack
from lvdd_assets.distill.vae import load_autoencoder
from tests.distill.smooth_latents import latents

COUNTS = {"jump": 24, "run": 9, "wave": 3}


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    made = {}
    for seed, (name, count) in enumerate(COUNTS.items()):
        hosvd = tucker.decompose(latents(count, seed, (4, 4, 4, 4)))
        rates = {step: len(ClassCoder(hosvd).encode(step).data) for step in (0.125, 0.5, 2.0)}
        made[name] = Source(functools.partial(lambda found: found, hosvd), count, rates)
    return made


@pytest.fixture(scope="module")
def template() -> ReleaseParts:
    vae = load_autoencoder("embedded-2d")
    coded = CodedClass("hosvd-range", 1, (4, 4, 4, 4), (), 1.0, b"\x00")
    weights = quantize_weights(vae.decoder(), bits=4)
    return ReleaseParts("videos", ClipShape(4, 2, 32), {"none": coded}, vae.decoder_spec, weights)


def _build(template: ReleaseParts, classes: Mapping[str, CodedClips], shared: SharedBasis | None) -> ReleaseParts:
    return replace(template, classes=classes, shared=shared)


def test_the_allowance_is_filled_and_kept(sources: dict[str, Source], template: ReleaseParts) -> None:
    build = functools.partial(_build, template)
    empty = len(pack(template))
    before = None
    for cores in (150, 400, 1000, 3000, 9000):
        allowed = empty + cores
        parts, fit = fill_with_latents(sources, build, allowed=allowed)
        size = len(pack(parts))
        assert size == fit.num_bytes <= allowed
        assert size - empty >= 0.97 * cores - 30 or fit.step in (COARSEST_STEP, FINEST_STEP)
        kept = {name: coded.num_clips for name, coded in parts.classes.items()}
        assert all(1 <= kept[name] <= count for name, count in COUNTS.items())
        if before is not None:
            assert fit.share >= before.share
            assert fit.share > before.share or fit.step <= before.step
        before = fit
    assert kept == COUNTS  # at the largest allowance every clip is there
    for name, coded in parts.classes.items():
        assert isinstance(coded, CodedClass)
        error = decode(coded, parts.shared) - latents(COUNTS[name], list(COUNTS).index(name), (4, 4, 4, 4))
        assert np.sqrt(np.mean(np.square(error))) <= fit.step / 2


def test_more_than_the_whole_dataset_keeps_the_finest_step(sources: dict[str, Source], template: ReleaseParts) -> None:
    _, fit = fill_with_latents(sources, functools.partial(_build, template), allowed=10**7)
    assert (fit.step, fit.share) == (FINEST_STEP, 1.0)
    assert fit.num_bytes < 10**6


def test_what_cannot_fit_is_an_error(sources: dict[str, Source], template: ReleaseParts) -> None:
    with pytest.raises(BudgetError, match="the smallest release of this dataset takes"):
        fill_with_latents(sources, functools.partial(_build, template), allowed=len(pack(template)) - 100)


def test_the_same_sources_give_the_same_bytes(sources: dict[str, Source], template: ReleaseParts) -> None:
    allowed = len(pack(template)) + 1500
    files = {pack(fill_with_latents(sources, functools.partial(_build, template), allowed=allowed)[0]) for _ in "ab"}
    assert len(files) == 1


def test_a_search_begins_near_its_end(sources: dict[str, Source], template: ReleaseParts) -> None:
    lines: list[str] = []
    allowed = len(pack(template)) + 3000
    fill_with_latents(sources, functools.partial(_build, template), allowed=allowed, progress=lines.append)
    assert sum(line.startswith("code at step") for line in lines) <= 9


def test_bytes_are_foreseen_between_the_steps_that_were_measured(sources: dict[str, Source]) -> None:
    source = sources["jump"]
    assert foresee_bytes(source.rates, 0.5) == pytest.approx(source.rates[0.5])
    really = len(ClassCoder(source.load()).encode(1.0).data)
    assert foresee_bytes(source.rates, 1.0) == pytest.approx(really, rel=0.25)
    total = sum(source.rates[0.5] for source in sources.values())
    assert foresee_step(list(sources.values()), allowed=total) == pytest.approx(0.5, rel=0.01)

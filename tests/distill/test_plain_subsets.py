"""Plain subsets keep to their bytes, are what they say, and more bytes never keep less."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import coresets
from lvdd_assets.distill.codec import decode_clip, encode_clip
from lvdd_assets.distill.features import prepare
from lvdd_assets.distill.plain_subsets import FORMS, METHODS, clip_bytes, make_subset
from lvdd_assets.distill.training_sets import Candidate, NotPossible, Originals, TrainingSet
from tests.distill.tiny_originals import COUNTS, make_originals

ORIGINALS = make_originals()
TOTAL = sum(COUNTS.values())
UINT8 = 4 * 3 * 32 * 32
PIXEL_FORMS = {"float32": 4 * UINT8, "uint8": UINT8}


def _pixels(made: TrainingSet) -> np.ndarray:
    return np.stack([np.asarray(made.dataset[index][0]) for index in range(made.num_clips)])


def _labels(made: TrainingSet) -> list[int]:
    return [int(made.dataset[index][1]) for index in range(made.num_clips)]


def _sources(made: TrainingSet, originals: Originals = ORIGINALS) -> np.ndarray:
    return np.concatenate([originals.clips(name)[items] for name, items in made.items.items()])


def _check(made: Candidate, allowed: int) -> None:
    """Within the bytes, every class there with its own clips and labels, classes treated alike; or both sizes told."""
    if isinstance(made, NotPossible):
        assert str(allowed) in made.reason
        return
    assert made.stored_bytes <= allowed
    assert list(made.items) == list(COUNTS)
    counts = {name: len(items) for name, items in made.items.items()}
    assert _labels(made) == np.repeat(range(len(COUNTS)), list(counts.values())).tolist()
    for name, items in made.items.items():
        assert len(set(items.tolist())) == len(items) >= 1
        assert set(items.tolist()) <= set(range(COUNTS[name]))
        assert len(items) >= min(max(counts.values()) - 1, COUNTS[name])


@pytest.mark.parametrize("form", PIXEL_FORMS)
@pytest.mark.parametrize("method", METHODS)
@given(allowed=st.integers(0, 16 * 4 * UINT8), more=st.integers(0, 4 * UINT8))
@settings(max_examples=8, deadline=None)
def test_pixels_are_the_originals_and_more_bytes_never_keep_fewer(
    method: str, form: str, allowed: int, more: int
) -> None:
    small, large = (make_subset(ORIGINALS, method, form, size, seed=3) for size in (allowed, allowed + more))  # type: ignore[arg-type]
    for made, size in ((small, allowed), (large, allowed + more)):
        _check(made, size)
        if isinstance(made, TrainingSet):
            np.testing.assert_array_equal(_pixels(made), _sources(made))
            assert made.stored_bytes == made.num_clips * PIXEL_FORMS[form]
            assert made.num_clips == min(size // PIXEL_FORMS[form], TOTAL)
        else:
            assert size < len(COUNTS) * PIXEL_FORMS[form]
    if isinstance(small, TrainingSet):
        assert isinstance(large, TrainingSet)
        assert all(len(large.items[name]) >= len(items) for name, items in small.items.items())


def test_a_clip_counts_as_the_field_counts_it() -> None:
    assert {form: clip_bytes(ORIGINALS, form) for form in PIXEL_FORMS} == PIXEL_FORMS


@pytest.mark.parametrize("method", ["herding", "k-center", "k-means"])
def test_rules_are_those_of_coresets_on_latents(method: str) -> None:
    """As many centres as there is room for, not the first of more."""
    made = make_subset(ORIGINALS, method, "uint8", 8 * UINT8)
    assert isinstance(made, TrainingSet)
    assert "chosen by latents" in made.note
    assert ORIGINALS.latents is not None
    for label, (name, items) in enumerate(made.items.items()):
        features = prepare(ORIGINALS.latents(name))
        seed = int(np.random.SeedSequence([0, label]).generate_state(1)[0])
        expected = coresets.METHODS[method](features, len(items), seed=seed)
        assert items.tolist() == sorted(expected.tolist())


def test_without_latents_pixels_are_compared() -> None:
    plain = make_originals(with_latents=False)
    made = make_subset(plain, "herding", "uint8", 6 * UINT8)
    assert isinstance(made, TrainingSet)
    assert "chosen by pooled pixels" in made.note
    np.testing.assert_array_equal(_pixels(made), _sources(made, plain))


def test_random_reads_no_latents_and_goes_by_its_seed() -> None:
    def refuse(_name: str) -> np.ndarray:
        raise AssertionError("read")

    blind = replace(ORIGINALS, latents=refuse)
    drawn = [make_subset(blind, "random", "uint8", 6 * UINT8, seed=seed) for seed in (0, 0, 1, 2, 3)]
    chosen = [str(made.items) for made in drawn if isinstance(made, TrainingSet)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 2


@pytest.mark.parametrize(("method", "form"), [("k-means", "H.264"), ("random", "AV1")])
def test_video_keeps_to_its_bytes_at_every_size(method: str, form: str) -> None:
    kept = []
    for allowed in (60, 500, 4000):
        made = make_subset(ORIGINALS, method, form, allowed, seed=1)  # type: ignore[arg-type]
        _check(made, allowed)
        kept.append(made.num_clips if isinstance(made, TrainingSet) else 0)
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-1] == TOTAL
    assert isinstance(made, TrainingSet)
    assert "all there are" in made.note
    assert np.abs(_pixels(made).astype(int) - _sources(made)).mean() < 8


def test_video_is_what_the_encoder_gives() -> None:
    made = make_subset(ORIGINALS, "herding", "H.264", 2500)
    assert isinstance(made, TrainingSet)
    assert made.num_clips == TOTAL
    crf = int(made.note.split("crf ")[1].split(",")[0])
    encoded = [encode_clip(clip, codec="h264", crf=crf) for clip in _sources(made)]
    np.testing.assert_array_equal(_pixels(made), np.stack([decode_clip(clip) for clip in encoded]))
    assert made.stored_bytes == sum(len(clip.packets) for clip in encoded) + len(encoded[0].header)


def test_a_small_budget_of_video_keeps_what_the_rule_wants_most() -> None:
    """Herding: the first of its order. k-means: the clips at as many centres as there is room for."""
    every = np.concatenate([ORIGINALS.clips(name) for name in COUNTS])
    allowed = 5 * max(encode_clip(clip, codec="h264", crf=51).stored_bytes for clip in every) + 60
    assert ORIGINALS.latents is not None
    for method in ("herding", "k-means"):
        subset = make_subset(ORIGINALS, method, "H.264", allowed)
        assert isinstance(subset, TrainingSet)
        assert subset.num_clips < TOTAL
        for label, (name, items) in enumerate(subset.items.items()):
            seed = int(np.random.SeedSequence([0, label]).generate_state(1)[0])
            features = prepare(ORIGINALS.latents(name))
            # Other clips than in the first filling are of other sizes, so that one more or fewer may fit.
            nearby = range(max(1, len(items) - 1), min(len(items) + 1, COUNTS[name]) + 1)
            wanted = [set(coresets.METHODS[method](features, k, seed=seed).tolist()) for k in nearby]
            assert any(set(items.tolist()) <= of or set(items.tolist()) >= of for of in wanted)
            if method == "herding":
                assert set(items.tolist()) in wanted


def test_the_same_seed_gives_the_same_video() -> None:
    first, second = (make_subset(ORIGINALS, "random", "AV1", 700, seed=4) for _ in "ab")
    assert isinstance(first, TrainingSet)
    assert isinstance(second, TrainingSet)
    np.testing.assert_array_equal(_pixels(first), _pixels(second))
    assert (first.stored_bytes, first.note) == (second.stored_bytes, second.note)


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="known: random, herding"):
        make_subset(ORIGINALS, "oracle", "uint8", 10**6)
    with pytest.raises(ValueError, match="uint8"):
        make_subset(ORIGINALS, "random", "gif", 10**6)  # type: ignore[arg-type]
    assert FORMS == ("float32", "uint8", "H.264", "AV1")

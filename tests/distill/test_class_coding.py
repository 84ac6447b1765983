"""Latents come back within half a step, in any basis; float forms exactly; damaged bytes are refused."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import class_coding, tucker
from lvdd_assets.distill.class_coding import ClassCoder, CodedClass
from tests.distill.release_mutations import memory_limit
from tests.distill.smooth_latents import latents

FIRST_STEP = 0.6  # of the first temporal component; part of the format


def coder(num_clips: int = 6, *, shared: bool = True) -> ClassCoder:
    hosvds = [tucker.decompose(latents(num_clips, seed)) for seed in range(3)]
    basis = class_coding.share_basis([class_coding.gram_matrices(hosvd) for hosvd in hosvds]) if shared else None
    return ClassCoder(hosvds[0], basis)


@pytest.mark.parametrize("basis", ["own", "shared", "cosine"])
@given(step=st.floats(0.02, 8))
@settings(max_examples=15, deadline=None)
def test_each_coefficient_errs_by_half_its_step_at_most(basis: str, step: float) -> None:
    made = coder()
    coded = made.encode(step, basis=basis)  # type: ignore[arg-type]
    error = class_coding.decode(coded, made.shared) - latents()
    # Parseval: an orthonormal basis keeps the energy of the error.
    first, rest = latents()[:, :1].size, latents()[:, 1:].size
    assert np.square(error).sum() <= (first * (FIRST_STEP * step / 2) ** 2 + rest * (step / 2) ** 2) * 1.001 + 1e-6
    assert np.abs(error).max() < 40 * step


def test_the_coder_is_exact_in_the_limit() -> None:
    made = coder()
    for basis in made.bases:
        decoded = class_coding.decode(made.encode(2.0**-12, basis=basis), made.shared)
        np.testing.assert_allclose(decoded, latents(), atol=1e-3)


def test_bytes_fall_and_errors_rise_with_the_step() -> None:
    made = coder(20)
    steps = [2.0**octave for octave in range(-5, 5)]
    coded = [made.encode(step) for step in steps]
    sizes = [len(item.data) for item in coded]
    errors = [float(np.square(class_coding.decode(item, made.shared) - latents(20)).sum()) for item in coded]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[0] > 10 * sizes[-1]


def test_the_first_clips_alone_are_the_first_clips() -> None:
    made = coder()
    whole, two = made.encode(0.5, basis="own"), made.encode(0.5, num_clips=2, basis="own")
    assert two.num_clips == 2
    assert len(two.data) < len(whole.data)
    np.testing.assert_array_equal(class_coding.decode(two), class_coding.decode(whole)[:2])


def test_the_cheapest_basis_is_taken() -> None:
    """A single coarse clip cannot pay for a basis of its own; many fine clips can."""
    single, many = coder(1), coder(60)
    assert not class_coding.is_in_shared_basis(single.encode(0.5, basis="cosine"))
    for made, step in ((single, 4.0), (many, 0.1)):
        costs = made.costs(step)
        assert made.encode(step) == made.encode(step, basis=min(costs, key=costs.__getitem__))
    assert min(single.costs(4.0), key=single.costs(4.0).__getitem__) != "own"
    assert len(single.encode(4.0, basis="own").data) > len(single.encode(4.0).data)


def test_the_shared_basis_is_the_hosvd_of_all_clips() -> None:
    """From each class's Gram matrices alone: the same subspaces as of all latents together."""
    classes = [latents(5, seed) for seed in range(3)]
    grams = [class_coding.gram_matrices(tucker.decompose(part)) for part in classes]
    shared = class_coding.share_basis(grams)
    together = tucker.decompose(np.concatenate(classes))
    for ours, theirs in zip(shared.factors, together.factors, strict=True):
        np.testing.assert_allclose(ours.T @ ours, np.eye(len(ours)), atol=1e-12)
        # Angles are rounded to a 256th of a turn, and signs mean nothing.
        assert np.abs((ours[:, 0] * theirs[:, 0]).sum()) > 0.99
    whole = np.concatenate(classes)
    for axis, gram in enumerate(np.sum([g[mode] for g in grams], axis=0) for mode in range(4)):
        unfolded = np.moveaxis(whole, axis + 1, 0).reshape(whole.shape[axis + 1], -1)
        np.testing.assert_allclose(gram, unfolded @ unfolded.T, rtol=1e-3, atol=1e-2)


def test_a_shared_basis_must_be_there() -> None:
    made = coder()
    coded = made.encode(1.0, basis="shared")
    assert class_coding.is_in_shared_basis(coded)
    with pytest.raises(ValueError, match="shared basis that is not there"):
        class_coding.decode(coded)


def test_float_forms_are_exact() -> None:
    result = tucker.decompose(latents(), ranks=(6, 4, 4, 4), instance_rank=3)
    coded = class_coding.encode_tucker(result)
    assert coded.ranks == (6, 4, 4, 4, 3)
    np.testing.assert_array_equal(class_coding.decode(coded), tucker.reconstruct(result))
    svd = tucker.truncated_svd(latents(), 2)
    np.testing.assert_array_equal(class_coding.decode(class_coding.encode_svd(svd)), tucker.reconstruct_svd(svd))


def test_golden_bytes() -> None:
    """What a release of version 3 holds must decode for ever: the bytes, and the latents that they stand for."""
    coded = CodedClass("hosvd-range", 2, (2, 2, 3, 3), (), 0.5, bytes.fromhex(GOLDEN))
    decoded = class_coding.decode(coded)
    np.testing.assert_allclose(decoded.ravel()[:6], GOLDEN_LATENTS, atol=1e-6)


def test_the_same_latents_give_the_same_bytes() -> None:
    digests = {hashlib.sha256(coder().encode(0.7).data).hexdigest() for _ in range(3)}
    assert len(digests) == 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_cut_and_flipped_bytes_give_latents_or_a_reason(data: st.DataObject) -> None:
    coded = CODED
    damaged = bytearray(coded.data)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged) - 1))]
    else:
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = class_coding.decode(replace(coded, data=bytes(damaged)))
    except ValueError:
        return
    assert decoded.shape == (6, 8, 4, 6, 6)


CODED = coder(shared=False).encode(0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "pickle"}, "unknown codec 'pickle'"),
        ({"num_clips": 0}, "N ≥ 1"),
        ({"mode_sizes": (8, 4, 6)}, "four mode sizes"),
        ({"ranks": (5, 3, 2, 2)}, "with ranks"),
        ({"step": 0.0}, "positive"),
        ({"step": float("nan")}, "positive"),
        ({"codec": "tucker-f32", "ranks": (1, 1, 1, 1)}, "a step belongs to hosvd"),
    ],
    ids=["codec", "clips", "sizes", "ranks", "step", "nan", "float step"],
)
def test_a_coded_class_checks_itself(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CODED, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clips": 10**12}, "cannot hold"),
        ({"mode_sizes": (8, 4, 6, 1 << 40)}, "its basis alone takes"),
        ({"data": bytes(100), "mode_sizes": (1 << 11, 4, 6, 6)}, "the longest is 1024"),
        ({"data": b"\x02"}, "shared basis that is not there"),
        ({"data": b""}, "starts with nothing"),
        ({"codec": "tucker-f32", "step": 0.0, "ranks": (2, 2, 2, 2)}, "its shapes need"),
        ({"codec": "tucker-f32", "step": 0.0, "ranks": (2, 2, 2, 9)}, "rank 9 of mode w"),
        ({"codec": "svd-f32", "step": 0.0, "ranks": (2,), "num_clips": 10**12}, "its shapes need"),
        (
            {"codec": "svd-f32", "step": 0.0, "ranks": (0,), "data": bytes(4 * 1152), "num_clips": 10**12},
            "in one piece",
        ),
        ({"codec": "hosvd-lzma", "ranks": (8, 4, 6, 6), "num_clips": 2**62}, "in one piece"),
        ({"codec": "hosvd-lzma", "ranks": (8, 4, 6, 7)}, "not within the modes' sizes"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_bytes_cannot_hold_is_told_without_decoding(changes: dict[str, object], message: str) -> None:
    coded = replace(CODED, **changes)  # type: ignore[arg-type]
    for read in (class_coding.check, class_coding.decode):
        with memory_limit(1 << 24), pytest.raises(ValueError, match=message):
            read(coded)


def test_a_basis_has_as_many_angles_as_its_modes() -> None:
    with pytest.raises(ValueError, match=r"modes \(2, 2, 2, 2\) has 4 angles, got 3"):
        class_coding.SharedBasis((2, 2, 2, 2), b"abc")
    with pytest.raises(ValueError, match="the longest is 1024"):
        class_coding.SharedBasis((1 << 20, 1, 1, 1), b"")


def test_lies_about_the_number_of_clips_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        class_coding.decode(replace(CODED, num_clips=10**12))


def test_rounding_has_no_dead_zone() -> None:
    core = np.array([0.4, 0.6, -0.6, -0.4, 1.4, 1.6], dtype=np.float32)
    assert class_coding.quantise(core, 1.0).tolist() == [0, 1, -1, 0, 1, 2]


def test_quantise_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="positive"):
        class_coding.quantise(latents(), 0.0)
    with pytest.raises(ValueError, match="larger step"):
        class_coding.quantise(np.array([1e6]), 1e-9)


GOLDEN = "010f0b6009542af75bff66add7d443a48f11f248ce5029d03d91f52c7c7fff2f5bb821d4e9be8b5cb04b0ed26caa526438e366"
GOLDEN_LATENTS = [-0.8116439, -1.1426563, -0.2635019, 0.4266466, 1.0250871, 0.0894351]

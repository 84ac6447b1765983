"""Float forms: what comes back is what went in, sizes are known before, and damage is an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lvdd_assets.distill import float_coding

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SIZES = st.tuples(*[st.integers(1, 4)] * 4)


def _array(data: st.DataObject, shape: tuple[int, ...]) -> np.ndarray:
    return data.draw(hnp.arrays(np.float32, shape, elements=FLOATS))


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_clips=st.integers(1, 5), sizes=SIZES, with_instances=st.booleans())
def test_tucker_comes_back(data: st.DataObject, num_clips: int, sizes: tuple[int, ...], with_instances: bool) -> None:
    ranks = tuple(data.draw(st.integers(1, size)) for size in sizes)
    instance_rank = data.draw(st.integers(1, num_clips)) if with_instances else None
    core = _array(data, (instance_rank or num_clips, *ranks))
    factors = tuple(_array(data, shape) for shape in zip(sizes, ranks, strict=True))
    instance_factor = None if instance_rank is None else _array(data, (num_clips, instance_rank))
    coded = float_coding.encode_tucker(core, factors, instance_factor=instance_factor)
    assert len(coded) == float_coding.tucker_num_bytes(num_clips, sizes, ranks, instance_rank=instance_rank)
    back = float_coding.decode_tucker(
        coded, num_clips=num_clips, mode_sizes=sizes, ranks=ranks, instance_rank=instance_rank
    )
    assert _same_bits(back[0], core)
    assert all(_same_bits(*pair) for pair in zip(back[1], factors, strict=True))
    if instance_factor is None:
        assert back[2] is None
    else:
        assert back[2] is not None
        assert _same_bits(back[2], instance_factor)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_clips=st.integers(1, 5), sizes=SIZES)
def test_svd_comes_back(data: st.DataObject, num_clips: int, sizes: tuple[int, ...]) -> None:
    num_values = int(np.prod(sizes))
    rank = data.draw(st.integers(0, min(num_clips, num_values)))
    parts = [_array(data, shape) for shape in (sizes, (num_clips, rank), (rank, num_values))]
    coded = float_coding.encode_svd(*parts)
    assert len(coded) == float_coding.svd_num_bytes(num_clips, sizes, rank)
    back = float_coding.decode_svd(coded, num_clips=num_clips, mode_sizes=sizes, rank=rank)
    assert all(_same_bits(*pair) for pair in zip(back, parts, strict=True))


def _tucker() -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    values = iter(range(10_000))
    shapes = [(2, 2, 1, 2, 3), (3, 2), (1, 1), (2, 2), (4, 3)]
    core, *factors = (np.fromiter(values, np.float32, count=int(np.prod(shape))).reshape(shape) for shape in shapes)
    return core, tuple(factors)


KNOWN = {"num_clips": 2, "mode_sizes": (3, 1, 2, 4), "ranks": (2, 1, 2, 3)}


def test_layout_is_core_then_factors_then_instances_little_endian() -> None:
    core, factors = _tucker()
    coded = float_coding.encode_tucker(core, factors)
    np.testing.assert_array_equal(np.frombuffer(coded, "<f4"), np.arange(len(coded) // 4))
    assert coded[4:8] == b"\x00\x00\x80\x3f"  # 1.0
    longer = float_coding.encode_tucker(core, factors, instance_factor=np.full((5, 2), 7.0))
    assert longer == coded + np.full(10, 7.0, "<f4").tobytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_an_error_or_finite_floats(data: st.DataObject) -> None:
    whole = float_coding.encode_tucker(*_tucker())
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole) + 5))
    read = (bytes(damaged) + b"12345")[:cut]
    if cut == len(whole) and np.isfinite(np.frombuffer(read, "<f4")).all():
        core, factors, _ = float_coding.decode_tucker(read, **KNOWN)
        assert float_coding.encode_tucker(core, factors) == read
    else:
        with pytest.raises(ValueError, match="damaged"):
            float_coding.decode_tucker(read, **KNOWN)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=64),
    num_clips=st.integers(-1, 2**70),
    sizes=st.lists(st.integers(-1, 2**70), max_size=5),
    ranks=st.lists(st.integers(-1, 2**70), max_size=5),
    instance_rank=st.none() | st.integers(-1, 2**70),
)
def test_a_lying_table_allocates_nothing(
    data: bytes, num_clips: int, sizes: list[int], ranks: list[int], instance_rank: int | None
) -> None:
    known = {"num_clips": num_clips, "mode_sizes": sizes}
    for read in (
        lambda: float_coding.decode_tucker(data, **known, ranks=ranks, instance_rank=instance_rank),
        lambda: float_coding.decode_svd(data, **known, rank=num_clips),
    ):
        try:
            read()
        except ValueError:
            continue
        assert max(num_clips, *sizes) <= len(data)


def test_errors_name_both_numbers() -> None:
    core, factors = _tucker()
    coded = float_coding.encode_tucker(core, factors)
    with pytest.raises(ValueError, match=f"has {len(coded) - 1} B, its shapes need {len(coded)} B"):
        float_coding.decode_tucker(coded[:-1], **KNOWN)
    with pytest.raises(ValueError, match="rank 4 of mode T is not in 1 … 3"):
        float_coding.tucker_num_bytes(2, (3, 1, 2, 4), (4, 1, 2, 3))
    with pytest.raises(ValueError, match="rank 3 of mode N is not in 1 … 2"):
        float_coding.tucker_num_bytes(2, (3, 1, 2, 4), (2, 1, 2, 3), instance_rank=3)
    with pytest.raises(ValueError, match="rank 3 is not in 0 … 2"):
        float_coding.svd_num_bytes(2, (3, 1, 2, 4), 3)
    with pytest.raises(ValueError, match="four ranks"):
        float_coding.tucker_num_bytes(2, (3, 1, 2, 4), (2, 1))
    for wrong in (True, 2.0, "2", None):
        with pytest.raises(ValueError, match="expected an integer"):
            float_coding.svd_num_bytes(wrong, (3, 1, 2, 4), 1)
    assert float_coding.svd_num_bytes(np.int64(2), (3, 1, 2, 4), 1) == 4 * (24 + 2 + 24)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    core, factors = _tucker()
    for wrong in (factors[:3], (*factors[:3], factors[3][:, :2]), (*factors[:3], factors[3][:, 0])):
        with pytest.raises(ValueError, match=r"five axes|stores arrays"):
            float_coding.encode_tucker(core, wrong)
    with pytest.raises(ValueError, match="stores arrays"):
        float_coding.encode_tucker(core, factors, instance_factor=np.zeros((5, 1)))
    with pytest.raises(ValueError, match="stores arrays"):
        float_coding.encode_svd(np.zeros((1, 2, 1, 1)), np.zeros((3, 1)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="expected a mean"):
        float_coding.encode_svd(np.zeros(2), np.zeros((3, 1)), np.zeros((1, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    core, factors = _tucker()
    broken = core.astype(np.float64)
    broken[0, 0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="1 values that are not finite"):
        float_coding.encode_tucker(broken, factors)


def test_decoded_arrays_are_writable_and_native() -> None:
    coded = float_coding.encode_tucker(*_tucker())
    core, factors, _ = float_coding.decode_tucker(coded, **KNOWN)
    for part in (core, *factors):
        assert part.flags.writeable
        assert part.dtype == np.dtype(np.float32)
        assert part.dtype.isnative

"""Releases of every kind, changed at random: read as announced or refused as a ReleaseError, within little memory.

The long runs, by coverage, are those of benchmarks/fuzz_release.py.
"""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvdd_assets.distill import coefficient_coding
from tests.distill import release_mutations
from tests.distill.release_mutations import memory_limit

# More than a class of `release_mutations.check` takes decoded with its decoder, less than a lie would.
MEMORY_BYTES = 192 * 2**20


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    seeds = release_mutations.seeds()
    assert all(map(release_mutations.check, seeds))  # and what is imported late is
    return seeds


@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 99), seed=st.integers(0, 2**63))
def test_a_changed_release_is_read_as_announced_or_refused(seeds: list[bytes], which: int, seed: int) -> None:
    rng = random.Random(seed)
    changed = release_mutations.mutate(seeds[which % len(seeds)], rng, release_mutations.mutate_bytes_plainly(rng))
    with memory_limit(MEMORY_BYTES):
        release_mutations.check(changed)


@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 99), places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1))
def test_bytes_of_the_zip_can_be_anything(seeds: list[bytes], which: int, places: list[tuple[float, int]]) -> None:
    file = bytearray(release_mutations.to_file(seeds[which % len(seeds)]))
    for place, byte in places:
        file[int(place * (len(file) - 1))] = byte
    with memory_limit(MEMORY_BYTES):
        release_mutations.check(b"Z" + bytes(file))


def test_mutations_reach_what_is_behind_the_checks(seeds: list[bytes]) -> None:
    """Otherwise the tests above would show that nothing opens."""
    rng = random.Random(0)
    mutate_bytes, accepted = release_mutations.mutate_bytes_plainly(rng), 0
    for _ in range(300):
        accepted += release_mutations.check(release_mutations.mutate(rng.choice(seeds), rng, mutate_bytes))
    assert 10 <= accepted <= 200


SIZES = st.one_of(st.integers(1, 6), st.integers(1, 300), st.integers(1, 1 << 40))


@settings(max_examples=800, deadline=None)
@given(data=st.binary(max_size=300), shape=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES))
def test_any_bytes_are_coefficients_of_the_shape_or_an_error(data: bytes, shape: tuple[int, ...]) -> None:
    count = int(np.prod(np.array(shape, dtype=object)))
    if 1 << 17 < count <= coefficient_coding.MOST_SYMBOLS_PER_BYTE * len(data):
        shape = (shape[0] % 4 + 1, *(size % 8 + 1 for size in shape[1:]))  # allowed, and takes its time
    with memory_limit(MEMORY_BYTES):
        try:
            values = coefficient_coding.decode(data, shape)
        except ValueError:
            return
    assert (values.shape, values.dtype) == (shape, np.int32)
    again = coefficient_coding.decode(coefficient_coding.encode(values), shape)
    np.testing.assert_array_equal(again, values)

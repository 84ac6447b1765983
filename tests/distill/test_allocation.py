"""The choice of codings: never above the budget, optimal where it says so, never worse for more bytes."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvdd_assets.distill.allocation import Item, allocate, lower_hull

CHOICES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1000)), min_size=1, max_size=4)
ITEMS = st.lists(CHOICES.map(lambda pairs: Item(*(tuple(side) for side in zip(*pairs, strict=True)))), max_size=4)


def total(items, chosen):
    pairs = [(item.sizes[i], item.errors[i]) for item, i in zip(items, chosen, strict=True)]
    return sum(size for size, _ in pairs), sum(error for _, error in pairs)


def least_error(items, num_bytes):
    """By trying everything; None where nothing fits."""
    reached = [total(items, chosen) for chosen in product(*(range(len(item.sizes)) for item in items))]
    return min((error for size, error in reached if size <= num_bytes), default=None)


@given(ITEMS, st.integers(0, 100))
def test_fits_and_is_found_where_anything_fits(items, num_bytes):
    chosen, best = allocate(items, num_bytes), least_error(items, num_bytes)
    assert (chosen is None) == (best is None)
    if chosen is not None:
        assert total(items, chosen)[0] <= num_bytes
        assert total(items, chosen)[1] >= best


@given(ITEMS)
def test_hull_choices_are_optimal_at_their_own_size(items):
    """Walking down the slopes: whenever the budget is just what a step reaches, nothing else is better."""
    hulls = [lower_hull(item.sizes, item.errors) for item in items]
    size = sum(item.sizes[hull[0]] for item, hull in zip(items, hulls, strict=True))
    steps = sorted(
        ((item.errors[b] - item.errors[a]) / (item.sizes[b] - item.sizes[a]), index, item.sizes[b] - item.sizes[a])
        for index, (item, hull) in enumerate(zip(items, hulls, strict=True))
        for a, b in pairwise(hull)
    )
    for budget in [size, *(size := size + step for *_, step in steps)]:
        assert total(items, allocate(items, budget))[1] == least_error(items, budget)


@given(ITEMS)
def test_more_bytes_never_give_more_error(items):
    errors = [total(items, chosen)[1] for b in range(125) if (chosen := allocate(items, b)) is not None]
    assert errors == sorted(errors, reverse=True)


@given(CHOICES)
def test_hull(choices):
    """Nothing lies below it; sizes rise, errors fall ever more slowly."""
    sizes, errors = zip(*choices, strict=True)
    hull = lower_hull(sizes, errors)
    points = [(sizes[i], errors[i]) for i in hull]
    assert points == sorted(points)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]
    assert all(slope < 0 for slope in slopes)
    assert slopes == sorted(slopes)
    for slope in [-1e9, *slopes, 0.0]:
        support = min(error - slope * size for size, error in points)
        assert all(error - slope * size >= support - 1e-6 * max(1, -slope) for size, error in choices)


@pytest.mark.parametrize(("sizes", "errors"), [((), ()), ((1,), (1, 2)), ((-1,), (0,))])
def test_item_refuses(sizes, errors):
    with pytest.raises(ValueError, match="as many sizes"):
        Item(sizes, errors)

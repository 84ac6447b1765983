"""Subsets of a class by other rules than a determinantal point process: what the k-DPP is compared with.

N clips with features of D dimensions. Each function takes features, k and a seed, and returns k different items in an
order of which every prefix is a subset by the same rule (k-means: by the rule that is stated there). Where a rule
leaves nothing to chance the seed is without effect. Nothing here knows kernels or determinants.
"""

import heapq
import warnings
from collections.abc import Callable

import numpy as np

from lvdd_assets.distill.features import Features, first_largest

# Up to this many items all N×N distances are held while facility location runs.
_DENSE_LIMIT = 4000
_CANDIDATES_AT_ONCE = 256
# Stale gains computed anew together: one product of matrices is faster than as many of vectors.
_STALE_AT_ONCE = 32


def random(features: Features, k: int, *, seed: int) -> np.ndarray:
    """k items uniformly, in random order: int64 [k]."""
    _check(features, k)
    # By sorting uniform numbers: numpy does not promise that `permutation` stays the same in later versions.
    return np.argsort(np.random.default_rng(seed).random(features.num_items), kind="stable")[:k]


def herding(features: Features, k: int, *, seed: int = 0) -> np.ndarray:
    """k items whose mean follows the class's mean: next comes the one that brings it nearest (Welling 2009, as in
    iCaRL, Rebuffi et al. 2017; no item twice). int64 [k]."""
    _check(features, k)
    mean = features.mean()
    scale = float(features.squares_N.max())
    total = np.zeros_like(mean)
    chosen: list[int] = []
    for count in range(1, k + 1):
        # |(total + x) / count − mean|² = (|x|² + 2 x·(total − count mean)) / count² + what is the same for all
        away = features.squares_N + 2 * features.dots(Features((total - count * mean)[None]))[:, 0]
        away[chosen] = np.inf
        item = first_largest(-away, scale)
        total += features.subset(np.array([item])).values_ND[0]
        chosen.append(item)
    return np.array(chosen, dtype=np.int64)


def k_center(features: Features, k: int, *, seed: int = 0) -> np.ndarray:
    """k items of which the farthest clip is near one: next comes the one farthest from all chosen, beginning with the
    one nearest to the mean. The largest distance left is at most twice the least possible (Gonzalez 1985; Sener &
    Savarese 2018). int64 [k]."""
    _check(features, k)
    to_mean = features.squared_distances(Features(features.mean()[None]))[:, 0]
    scale = float(to_mean.max())
    chosen = [first_largest(-to_mean, scale)]
    nearest = np.full(features.num_items, np.inf)
    while len(chosen) < k:
        nearest = np.minimum(nearest, features.squared_distances(features.subset(np.array(chosen[-1:])))[:, 0])
        nearest[chosen] = -np.inf
        chosen.append(first_largest(nearest, scale))
    return np.array(chosen, dtype=np.int64)


def k_means(features: Features, k: int, *, seed: int = 0) -> np.ndarray:
    """The clips nearest to the k centres of k-means (Lloyd, k-means++, best of 10), larger clusters choosing first,
    none twice; ordered by facility location among them, so that every prefix covers the class as well as they can.

    scikit-learn's iterations are the one rule here that rounding may lead to another local optimum. int64 [k].
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    _check(features, k)
    values = features.values_ND
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    with warnings.catch_warnings():
        # Fewer different clips than k: the empty clusters then take copies.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(k, n_init=10, random_state=seed % 2**32).fit(values)
    sizes = np.bincount(model.labels_, minlength=k)
    distances = features.squared_distances(Features(model.cluster_centers_))
    scale = float(distances.max())
    chosen: list[int] = []
    for cluster in np.argsort(-sizes, kind="stable"):
        away = distances[:, cluster]
        away[chosen] = np.inf
        chosen.append(first_largest(-away, scale))
    return _cover(features, np.sort(chosen), k)


def facility_location(features: Features, k: int, *, seed: int = 0) -> np.ndarray:
    """k items that make the mean distance of every clip to its nearest one small: next comes the one that lowers it
    most (facility location, within 1 − 1/e of the best: Nemhauser, Wolsey & Fisher 1978; lazily, Minoux 1978).
    int64 [k]."""
    _check(features, k)
    return _cover(features, np.arange(features.num_items), k)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "random": random,
    "herding": herding,
    "k-center": k_center,
    "k-means": k_means,
    "facility-location": facility_location,
}


def _check(features: Features, k: int) -> None:
    if not 1 <= k <= features.num_items:
        raise ValueError(f"asked for {k} of {features.num_items} clips, possible are 1 to {features.num_items}")


def _cover(features: Features, candidates: np.ndarray, k: int) -> np.ndarray:
    """k of the candidates by lazy greedy facility location over all items. A gain only falls while items are taken, so
    that one which is still the largest after it was computed anew needs no other to be looked at."""
    distances_of = _distances(features, candidates)
    to_mean = features.squared_distances(Features(features.mean()[None]))[:, 0]
    # Before anything is taken every clip is as far away as no two clips are.
    nearest = np.full(features.num_items, 2 * float(np.sqrt(to_mean.max())))
    unit = 1e-9 * max(float(nearest.sum()), np.finfo(np.float64).tiny)

    def gains(positions: np.ndarray) -> list[int]:
        # In whole units, so that rounding does not decide between equal gains; the lower index then does.
        gain = np.maximum(nearest[:, None] - distances_of(positions), 0.0).sum(0)
        return np.round(gain / unit).astype(np.int64).tolist()

    heap: list[tuple[int, int, int]] = []
    for start in range(0, len(candidates), _CANDIDATES_AT_ONCE):
        positions = np.arange(start, min(start + _CANDIDATES_AT_ONCE, len(candidates)))
        heap += [(-gain, int(position), 0) for gain, position in zip(gains(positions), positions, strict=True)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < k:
        stale: list[int] = []
        while heap and heap[0][2] < len(chosen) and len(stale) < _STALE_AT_ONCE:
            stale.append(heapq.heappop(heap)[1])
        if stale:
            for gain, position in zip(gains(np.array(stale)), stale, strict=True):
                heapq.heappush(heap, (-gain, position, len(chosen)))
            continue
        position = heapq.heappop(heap)[1]
        nearest = np.minimum(nearest, distances_of(np.array([position]))[:, 0])
        chosen.append(position)
    return candidates[chosen]


def _distances(features: Features, candidates: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Positions among the candidates to the distances of all items, float64 [N, M]: from a table where it is small."""
    if features.num_items * len(candidates) <= _DENSE_LIMIT**2:
        table = np.sqrt(features.squared_distances(features.subset(candidates)))
        return lambda positions: table[:, positions]
    return lambda positions: np.sqrt(features.squared_distances(features.subset(candidates[positions])))

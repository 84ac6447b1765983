"""Every method is one interface, its order is of use, and the figures say what was bought."""

import json

import numpy as np
import pytest

from lvdd_assets.distill import dpp, paper, selection
from lvdd_assets.distill.features import FEATURES, Features, prepare
from lvdd_assets.distill.kernels import KERNELS, build_kernel
from lvdd_assets.distill.selection import METHODS, Rules, measure, select


def _latents(num_items: int = 40, seed: int = 0) -> np.ndarray:
    """Clips of a few kinds, one of them frequent, as float16 latents."""
    generator = np.random.default_rng(seed)
    kinds = generator.normal(size=(6, 4, 2, 4, 4)) * 2
    which = generator.choice(6, size=num_items, p=[0.6, 0.08, 0.08, 0.08, 0.08, 0.08])
    return (kinds[which] + generator.normal(size=(num_items, 4, 2, 4, 4)) * 0.3).astype(np.float16)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_selects(method: str) -> None:
    chosen = select(_latents(), 8, Rules(method=method), seed=2)
    assert chosen.items.dtype == np.int64
    assert len(set(chosen.items.tolist())) == 8
    assert np.array_equal(chosen.items, select(_latents(), 8, Rules(method=method), seed=2).items)
    assert len(chosen.uniform) == 20
    assert (chosen.kernel_rank == 40) == (method == "k-dpp")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("features", FEATURES)
def test_every_kernel_on_every_features(features: str, kernel: str) -> None:
    chosen = select(_latents(), 5, Rules(kernel=kernel, features=features, feature_dim=32, quality=0.5), seed=2)
    assert len(set(chosen.items.tolist())) == 5
    assert chosen.feature_dim == (128 if features == "flat" else 32)
    assert chosen.bandwidth > 0 if kernel in ("rbf", "exp") else chosen.bandwidth == 0


def test_the_default_is_one_exact_draw_ordered_by_gain() -> None:
    latents = _latents()
    kernel = build_kernel(prepare(latents)).dense()
    wanted = dpp.order_by_gain(kernel, dpp.sample(kernel, 8, seed=9))
    chosen = select(latents, 8, Rules(), seed=9)
    assert np.array_equal(chosen.items, wanted)
    assert (chosen.route, chosen.kept_trace, chosen.warnings()) == ("exact", 1.0, [])


def test_figures_are_what_they_are_called() -> None:
    points = np.random.default_rng(0).normal(size=(15, 6))
    features = Features(points)
    kernel = build_kernel(features)
    items = np.array([4, 0, 11])
    figures = measure(features, kernel, items)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    among = distances[np.ix_(items, items)] + np.diag([np.inf] * 3)
    assert figures.nearest == pytest.approx(among.min(1).mean())
    assert figures.coverage == pytest.approx(distances[:, items].min(1).mean())
    spread = np.linalg.norm(points - points.mean(0), axis=1).mean()
    assert figures.coverage_share == pytest.approx(figures.coverage / spread)
    assert figures.log_det == pytest.approx(np.linalg.slogdet(kernel.dense().matrix[np.ix_(items, items)])[1])


def test_a_class_kept_whole_is_covered_and_a_single_clip_has_no_neighbour() -> None:
    whole = select(_latents(10), 10, Rules(), seed=0)
    assert whole.figures.coverage == 0
    assert [figures.log_det for figures in whole.uniform] == pytest.approx([whole.figures.log_det] * 20)
    one = select(_latents(10), 1, Rules(method="map"), seed=0)
    assert np.isnan(one.figures.nearest)
    assert one.metrics()["mean_nearest_distance"] is None
    assert one.comparison()[1]["chosen"] == "–"
    alone = select(_latents(1), 1, Rules(), seed=0)
    assert alone.items.tolist() == [0]
    assert alone.figures.coverage_share == 0


def test_the_figures_tell_diversity_and_coverage_from_uniform_draws() -> None:
    latents = _latents(80)
    best = select(latents, 8, Rules(method="map"), seed=0)
    rows = {row["figure"]: row for row in best.comparison()}
    assert rows["log det"]["chosen"] > rows["log det"]["uniform max"]
    assert rows["mean nearest-neighbour distance"]["chosen"] > rows["mean nearest-neighbour distance"]["uniform max"]
    covering = select(latents, 8, Rules(method="facility-location"), seed=0)
    rows = {row["figure"]: row for row in covering.comparison()}
    assert rows["coverage"]["chosen"] < rows["coverage"]["uniform min"]
    for row in rows.values():
        assert row["uniform min"] <= row["uniform mean"] <= row["uniform max"]


def test_random_is_not_one_of_the_draws_it_is_compared_with() -> None:
    chosen = select(_latents(80), 8, Rules(method="random"), seed=5)
    assert chosen.figures not in chosen.uniform
    assert len({figures.log_det for figures in chosen.uniform}) == 20


def test_quality_draws_nearer_to_the_mean() -> None:
    latents = _latents(80)
    points = prepare(latents).values_ND
    away = np.linalg.norm(points - points.mean(0), axis=1)
    plain, weighed = (
        np.mean(
            [
                away[select(latents, 6, Rules(quality=quality), seed=seed, num_uniform_draws=1).items].mean()
                for seed in range(15)
            ]
        )
        for quality in (0.0, 20.0)
    )
    assert weighed < plain - 0.5


def test_the_released_kernel_is_called_the_identity() -> None:
    latents = np.random.default_rng(0).normal(size=(12, 16, 4, 10, 10)).astype(np.float16)
    chosen = select(latents, 4, Rules(kernel="exp"), seed=0)
    assert chosen.is_diagonal
    assert chosen.max_off_diagonal < 1e-20
    assert "the kernel is diagonal" in chosen.metrics()["warning"]
    assert "warning" not in select(latents, 4, Rules(), seed=0).metrics()
    # All subsets are equally likely then.
    assert chosen.figures.log_det == pytest.approx(0, abs=1e-12)
    assert [figures.log_det for figures in chosen.uniform] == pytest.approx([0] * 20, abs=1e-12)


def test_metrics_are_strict_json_even_where_subsets_are_singular() -> None:
    latents = np.concatenate([_latents(6)] * 3)  # three copies of each clip: most uniform draws are singular
    chosen = select(latents, 4, Rules(method="map"), seed=0)
    metrics = chosen.metrics()
    json.dumps(metrics, allow_nan=False)
    assert metrics["log_det"] == pytest.approx(chosen.figures.log_det)
    assert metrics["log_det_uniform_mean"] is None
    assert metrics["comparison"][0]["uniform min"] == "singular"


def test_k_above_the_rank_names_both_numbers() -> None:
    latents = np.concatenate([_latents(6)] * 2)
    for method in ("k-dpp", "map"):
        with pytest.raises(ValueError, match="asked for 7 of 12 clips, possible are 1 to 6"):
            select(latents, 7, Rules(method=method), seed=0)
    # Rules without a determinant can take copies.
    assert len(set(select(latents, 7, Rules(method="k-center"), seed=0).items.tolist())) == 7


def test_a_large_class_says_that_its_draw_is_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (selection, dpp):
        monkeypatch.setattr(module, "DENSE_LIMIT", 30)
    monkeypatch.setattr(dpp, "NYSTROM_RANK", 20)
    rough = select(_latents(40), 4, Rules(), seed=0)
    assert rough.route == "nystrom"
    assert rough.metrics()["route"] == "nystrom"
    assert "Nyström kernel of rank 20 with" in rough.metrics()["warning"]
    dual = select(_latents(40), 4, Rules(kernel="cosine", features="pooled", feature_dim=16), seed=0)
    assert (dual.route, dual.kernel_rank, dual.warnings()) == ("dual", 16, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'; known: k-dpp, map, random, herding"),
        ({"kernel": "magic"}, "unknown kernel 'magic'; known: rbf"),
        ({"features": "magic"}, "unknown features 'magic'; known: flat"),
    ],
    ids=["method", "kernel", "features"],
)
def test_unknown_names(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rules(**options)


def test_recipe_paper_keeps_the_released_codes_number_of_clips() -> None:
    assert selection.default_clips("paper") == paper.RELEASED_IPC1_CLIPS_PER_CLASS == 24
    assert {selection.default_clips(recipe) for recipe in ("tight", "codec", "auto")} == {selection.DEFAULT_CLIPS}


@pytest.mark.parametrize(
    ("asked", "recipe", "num_clips", "wanted"),
    [
        (None, "tight", 500, selection.DEFAULT_CLIPS),
        (None, "tight", 30, 30),
        (None, "paper", 30, 24),
        ("all", "paper", 500, 500),
        (7, "tight", 30, 7),
        (40, "tight", 30, 40),
    ],
)
def test_clips_wanted(asked, recipe, num_clips, wanted) -> None:
    assert selection.clips_wanted(asked, recipe=recipe, num_clips=num_clips) == wanted

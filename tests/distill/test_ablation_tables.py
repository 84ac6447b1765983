"""Ablations: what full rank, equal bytes and other selections promise; published figures only of their dataset."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lvdd_assets.distill import class_coding, float_coding, paper, tucker
from lvdd_assets.distill.ablation_tables import latent_snr, rank_ratios, sampling, svd_against_hosvd
from lvdd_assets.distill.candidates import make_paper, make_svd
from lvdd_assets.distill.tables import Table
from lvdd_assets.distill.training_sets import TrainingSet
from tests.distill.tiny_benches import bench_of, benchmark_bench
from tests.distill.tiny_originals import COUNTS, make_originals

# Enough clips of each class for an SVD to have a rank.
BENCH = bench_of(make_originals(counts={"jump": 24, "run": 20}))


def _published(table: Table, dataset: str) -> list[object]:
    return [row[-1] for row in table.rows if row[0] == dataset]


def test_ratio_one_gives_the_latents_back_and_quality_rises_with_the_ratio() -> None:
    table = rank_ratios([BENCH], ratios=(0.25, 0.5, 0.75, 1.0))
    snr = [float(str(cell)) for cell in table.column("latents' SNR, dB")]
    assert snr == sorted(snr)
    assert snr[-1] > 120  # float32's rounding
    stored = [int(str(cell)) for cell in table.column("stored, B")]
    assert stored == sorted(stored)
    assert table.column("r") == (0.25, 0.5, 0.75, 1.0)
    whole = make_paper(BENCH.originals, None, rank_ratio=1.0)
    assert isinstance(whole, TrainingSet)
    assert stored[-1] == whole.stored_bytes
    for name in BENCH.originals.class_names:
        latents = BENCH.originals.selected_latents(name)
        coded = class_coding.encode_tucker(tucker.decompose(latents, ranks=latents.shape[1:]))
        np.testing.assert_allclose(class_coding.decode(coded), latents, atol=1e-5)


def test_snr_is_that_of_what_is_stored() -> None:
    name, *others = BENCH.originals.class_names
    one = replace(BENCH.originals, num_clips={name: BENCH.originals.num_clips[name]}, selected={})
    latents = one.selected_latents(name).astype(np.float64)
    ranks = (2, 4, 2, 2)
    error = latents - class_coding.decode(class_coding.encode_tucker(tucker.decompose(latents, ranks=ranks)))
    assert latent_snr(one, 0.5) == pytest.approx(10 * np.log10(np.square(latents).sum() / np.square(error).sum()))
    assert others


def test_svd_takes_the_bytes_of_hosvd_within_one_rank() -> None:
    table = svd_against_hosvd([BENCH])
    (hosvd, svd) = (int(str(cell)) for cell in table.column("stored, B")[:2])
    sizes = BENCH.originals.selected_latents("run").shape[1:]
    one_rank = sum(
        float_coding.svd_num_bytes(count, sizes, 2) - float_coding.svd_num_bytes(count, sizes, 1)
        for count in BENCH.originals.num_clips.values()
    )
    assert hosvd - one_rank - 32 <= svd <= hosvd + 32  # what a header may have in digits
    assert table.column("clips a class")[:2] == ("20 to 24", "20 to 24")
    assert [row[:2] for row in table.rows] == [
        ("videos", "HOSVD"),
        ("videos", "SVD"),
        ("MiniUCF", "HOSVD"),
        ("MiniUCF", "SVD"),
        ("HMDB51", "HOSVD"),
        ("HMDB51", "SVD"),
    ]
    assert _published(table, "videos") == [None, None]
    assert _published(table, "MiniUCF") == [41.1, paper.SVD_INSTEAD_OF_HOSVD_PERCENT["MiniUCF"]]
    assert set(table.column("accuracy, %")[2:]) == {"not run: dataset absent"}


def test_svd_is_the_best_of_its_rank_for_the_same_clips() -> None:
    like = make_paper(BENCH.originals, None)
    assert isinstance(like, TrainingSet)
    made = make_svd(BENCH.originals, like)
    assert isinstance(made, TrainingSet)
    assert {name: items.tolist() for name, items in made.items.items()} == {
        name: items.tolist() for name, items in like.items.items()
    }
    pixels = [np.asarray(made.dataset[index][0]) for index in range(made.num_clips)]
    sources = np.concatenate([BENCH.originals.clips(name)[items] for name, items in made.items.items()])
    assert np.abs(np.stack(pixels).astype(int) - sources).mean() < 25


def test_a_mean_that_alone_is_too_large_is_said() -> None:
    """A single clip: its mean is the clip, and HOSVD cut to r takes less."""
    table = svd_against_hosvd([bench_of(make_originals(counts={"jump": 1, "run": 1}))])
    assert table.column("accuracy, %")[1] == "not possible"
    assert any("mean clip alone takes" in note for note in table.notes)


def test_sampling_has_the_papers_rows_and_hosvd_makes_room() -> None:
    bench = bench_of(make_originals())
    whole = make_paper(bench.originals, None, rank_ratio=1.0)
    assert isinstance(whole, TrainingSet)
    ipc = Fraction(whole.stored_bytes - 2500, bench.allowed(Fraction(1)))
    table = sampling([bench], ipc=ipc)
    rows = {str(row[1]): row for row in table.rows}
    assert list(rows) == list(paper.SAMPLING_PERCENT)
    clips = {name: str(row[4]) for name, row in rows.items()}
    assert clips["k-means"] == clips["DPP only"]
    assert clips["DPP + HOSVD"] == "3 to 6"
    assert clips["DPP only"] != clips["DPP + HOSVD"]
    for row in table.rows:
        assert int(str(row[3])) <= int(str(row[2]))
        assert row[-1] is None
    assert COUNTS["jump"] == 6


def test_published_sampling_stands_beside_ssv2_at_ipc_5_alone() -> None:
    bench = benchmark_bench("SSv2", 3)
    assert _published(sampling([bench]), "SSv2") == list(paper.SAMPLING_PERCENT.values())
    assert _published(sampling([bench], ipc=Fraction(4)), "SSv2") == [None] * 3
    absent = sampling([BENCH])
    assert _published(absent, "SSv2") == list(paper.SAMPLING_PERCENT.values())
    assert _published(absent, "videos") == [None] * 3
    assert _published(sampling([BENCH], ipc=Fraction(1)), "SSv2") == []


def test_ratios_have_no_published_figures() -> None:
    table = rank_ratios([benchmark_bench("SSv2", 3)], ratios=(paper.RANK_RATIO,))
    assert "published, %" not in table.columns
    assert table.column("metric") == ("top-5",)

import itertools

import pytest

from lvdd_assets.distill import paper


def _field_bytes(benchmark: paper.Benchmark) -> int:
    pixels = benchmark.frames * benchmark.size**2 * paper.BUDGET_CHANNELS
    return benchmark.num_classes * pixels * paper.BUDGET_BYTES_PER_VALUE


def test_field_budget_of_miniucf_is_the_published_115_megabytes() -> None:
    assert _field_bytes(paper.BENCHMARKS["MiniUCF"]) == 120_422_400


@pytest.mark.parametrize(
    ("dataset", "mebibytes"),
    [("MiniUCF", 114.8), ("HMDB51", 117.1), ("K400", 150.0)],
)
def test_field_budgets_in_mebibytes(dataset: str, mebibytes: float) -> None:
    assert _field_bytes(paper.BENCHMARKS[dataset]) / 2**20 == pytest.approx(mebibytes, abs=0.06)


def test_convnet3d_constants_give_the_published_number_of_parameters() -> None:
    kernel = paper.CONVNET3D_KERNEL[0] * paper.CONVNET3D_KERNEL[1] * paper.CONVNET3D_KERNEL[2]
    widths = (paper.BUDGET_CHANNELS, *paper.CONVNET3D_WIDTHS)
    convolutions = sum(a * b * kernel + b for a, b in itertools.pairwise(widths))
    for num_classes in (50, 51):
        total = convolutions + (widths[-1] + 1) * num_classes
        assert round(total / 1e6, 2) == paper.CONVNET3D_PARAMETERS_MILLIONS


def test_each_published_result_stands_once_and_agrees_with_its_benchmark() -> None:
    places = [(r.method, r.dataset, r.ipc) for r in paper.PUBLISHED_RESULTS]
    assert len(places) == len(set(places))
    for result in paper.PUBLISHED_RESULTS:
        if result.dataset in paper.BENCHMARKS:
            assert result.metric == paper.BENCHMARKS[result.dataset].metric


def test_lvdd_leads_every_column_and_agrees_with_the_ablations() -> None:
    by_place = {(r.method, r.dataset, r.ipc): r.accuracy_percent for r in paper.PUBLISHED_RESULTS}
    for (_, dataset, ipc), accuracy in by_place.items():
        assert accuracy <= by_place["LVDD", dataset, ipc]
    assert paper.CROSS_ARCHITECTURE_PERCENT["ConvNet3D"] == by_place["LVDD", "MiniUCF", 1]
    assert paper.SAMPLING_PERCENT["DPP + HOSVD"] == by_place["LVDD", "SSv2", 5]
    assert paper.SVD_INSTEAD_OF_HOSVD_PERCENT["MiniUCF"] < by_place["LVDD", "MiniUCF", 5]


def test_an_accuracy_outside_the_percentages_is_refused() -> None:
    with pytest.raises(ValueError, match="percentage"):
        paper.PublishedResult("x", "MiniUCF", 1, "top-1", 348.0)

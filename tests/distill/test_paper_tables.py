"""Tables have the rows that were promised; published figures are those on record, beside their own dataset only."""

from dataclasses import replace
from fractions import Fraction

import pytest

from lvdd_assets.distill import evaluation, paper, paper_tables
from lvdd_assets.distill.benches import Bench
from lvdd_assets.distill.candidates import CODEC, FULL, PAPER, TIGHT
from lvdd_assets.distill.paper_tables import cross_architecture, methods, rate_accuracy, run_tables
from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.tables import PAPER_TABLES, Table
from tests.distill.nearest_mean import Calls
from tests.distill.tiny_benches import benchmark_bench, small_bench

CALLS: Calls = []
BENCH = small_bench(CALLS)
UCF_CALLS: Calls = []
UCF = benchmark_bench("MiniUCF", 50, UCF_CALLS)
PUBLISHED = {(r.method, r.dataset, r.ipc): r.accuracy_percent for r in paper.PUBLISHED_RESULTS}


def _rows(table: Table, dataset: str) -> list[tuple[object, ...]]:
    return [row for row in table.rows if row[0] == dataset]


def test_methods_beside_every_published_figure_of_that_dataset_and_no_other() -> None:
    names = (PAPER, "herding, float32", "random, uint8")
    table = methods([UCF], names=names)
    ours = _rows(table, "MiniUCF")
    assert [row[1] for row in ours[:2]] == [FULL, "chance"]
    shown = {(str(row[1]), int(str(row[2]))): row[-1] for row in ours[2:]}
    for ipc in (1, 5):
        known = {
            method: value for (method, dataset, at), value in PUBLISHED.items() if (dataset, at) == ("MiniUCF", ipc)
        }
        assert shown[PAPER, ipc] == known.pop("LVDD")
        assert shown["herding, float32", ipc] == known.pop("Herding")
        assert shown["random, uint8", ipc] is None
        others = {name: value for (name, at), value in shown.items() if at == ipc and name not in names}
        assert others == known
    for name in ("HMDB51", "K400", "SSv2"):
        absent = {(str(row[1]), int(str(row[2]))): row[-1] for row in _rows(table, name)}
        assert absent == {(m, i): value for (m, dataset, i), value in PUBLISHED.items() if dataset == name}
        assert {row[7] for row in _rows(table, name)} == {"not run: dataset absent"}


def test_a_dataset_that_is_no_benchmark_has_no_published_figure() -> None:
    table = methods([BENCH], ipcs=(Fraction(1), Fraction(1, 10)), names=(TIGHT, PAPER, "random, float32"))
    ours = _rows(table, "videos")
    assert [row[-1] for row in ours] == [None] * len(ours)
    assert [row[1:3] for row in ours] == [
        (FULL, None),
        ("chance", None),
        (TIGHT, "1"),
        (PAPER, "1"),
        ("random, float32", "1"),
        (TIGHT, "1/10"),
        (PAPER, "1/10"),
        ("random, float32", "1/10"),
    ]
    one = {str(row[1]): row for row in ours if row[2] == "1"}
    assert one["random, float32"][4] == BENCH.allowed(Fraction(1))  # IPC 1 holds one float32 clip of each class
    assert one["random, float32"][5] == "1"
    tenth = {str(row[1]): row for row in ours if row[2] == "1/10"}
    assert tenth["random, float32"][7] == "not possible"
    assert any("random, float32: one clip of each of the 3 classes takes" in note for note in table.notes)


def test_cross_architecture_trains_each_network_and_stands_beside_miniucf() -> None:
    UCF_CALLS.clear()
    # Without recipe tight, which takes long for 50 classes.
    table = cross_architecture([replace(UCF, originals=replace(UCF.originals, decoding=None))])
    assert [protocol.network for _, protocol in UCF_CALLS] == ["convnet3d", "cnn-gru", "cnn-lstm"]
    known = {str(row[1]): row[-1] for row in _rows(table, "MiniUCF") if row[2] == PAPER}
    assert known == paper.CROSS_ARCHITECTURE_PERCENT
    assert {row[-1] for row in _rows(table, "MiniUCF") if row[2] != PAPER} == {None}
    ours = cross_architecture([BENCH])
    assert {row[-1] for row in _rows(ours, "videos")} == {None}
    assert {str(row[1]): row[-1] for row in _rows(ours, "MiniUCF")} == paper.CROSS_ARCHITECTURE_PERCENT
    assert _rows(cross_architecture([BENCH], ipc=Fraction(2)), "MiniUCF") == []


def test_widths_of_one_network_are_not_those_of_another() -> None:
    CALLS.clear()
    thin = replace(BENCH, protocol=replace(BENCH.protocol, widths=(2, 2, 2)))
    cross_architecture([thin], networks={"ConvNet3D": "convnet3d", "CNN+GRU": "cnn-gru"})
    assert [(protocol.network, protocol.widths) for _, protocol in CALLS] == [
        ("convnet3d", (2, 2, 2)),
        ("cnn-gru", None),
    ]


def test_the_curve_has_every_set_at_every_budget_with_full_data_and_chance() -> None:
    table = rate_accuracy([BENCH], shares=(Fraction(1, 30), Fraction(1, 2)), names=(TIGHT, CODEC))
    assert [row[1:3] for row in table.rows] == [
        (FULL, None),
        ("chance", None),
        (TIGHT, "1/30"),
        (CODEC, "1/30"),
        (TIGHT, "1/2"),
        (CODEC, "1/2"),
    ]
    assert table.rows[1][7] == pytest.approx(100 / 3)
    for row in table.rows[2:]:
        assert row[7] == "not possible" or int(str(row[4])) <= int(str(row[3]))


def test_every_table_runs_by_name_and_prints() -> None:
    few = small_bench(counts={"jump": 3, "run": 2})
    tables = dict(run_tables(PAPER_TABLES, [few], ipc=Fraction(1)))
    assert tuple(tables) == PAPER_TABLES
    for table in tables.values():
        text = table.to_markdown()
        assert text.count("\n| ") == len(table.rows) + 2
        assert table.to_json()
        assert any("Not run, dataset absent: MiniUCF" in note for note in table.notes)
    assert len(tables["memory"].rows) == len(tables["runtime"].rows) == 4


def test_no_figure_is_published_that_is_not_on_record() -> None:
    """In all tables, of a benchmark and of another dataset, at the paper's own budgets."""
    known = {*PUBLISHED.values(), *paper.CROSS_ARCHITECTURE_PERCENT.values(), *paper.SAMPLING_PERCENT.values()}
    known |= set(paper.SVD_INSTEAD_OF_HOSVD_PERCENT.values())
    known |= {size for sizes in paper.STORAGE_MEGABYTES.values() for size in sizes.values()}
    for _, table in run_tables(("cross-architecture", "svd", "storage", "sampling"), [BENCH]):
        printed = {row[-1] for row in table.rows} - {None}
        assert printed
        assert printed <= known
        assert {row[-1] for row in _rows(table, "videos")} == {None}


def test_unknown_tables_and_repeated_datasets_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="unknown tables table 9; known: methods"):
        run_tables(["table 9"], [BENCH])
    for benches in ([], [BENCH, BENCH]):
        with pytest.raises(ValueError, match="one or more different datasets"):
            run_tables(["storage"], benches)


def test_a_real_comparison_gives_the_rows() -> None:
    """The evaluation as it is, with a tiny network: three updates, so that it is of numbers and not of accuracy."""
    import torch
    from torch.utils.data import TensorDataset

    clips = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8)
    test = TensorDataset(clips, torch.arange(3))

    def evaluate(sets, protocol):  # type: ignore[no-untyped-def]
        rows = {made.name: made.dataset for made in sets}
        return evaluation.compare(rows, test, num_classes=3, protocol=protocol)

    protocol = Protocol(epochs=1, batch_size=5, seeds=(0, 1), network="cnn-gru", widths=(2, 2, 2, 2))
    bench = Bench(BENCH.originals, evaluate, protocol, stored_ladders=BENCH.stored_ladders)
    table = methods([bench], ipcs=(Fraction(1),), names=(PAPER, "random, uint8"))
    ours = {str(row[1]): row for row in _rows(table, "videos")}
    for name in (FULL, PAPER, "random, uint8"):
        if ours[name][7] != "not possible":
            assert 0 <= float(str(ours[name][7])) <= 100
            assert ours[name][9] == 2
    assert paper_tables.METHOD_SETS[0] == TIGHT

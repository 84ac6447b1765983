"""The paper's tables as jobs on datasets that are there, and the front that runs all of them by name.

Each figure is measured, and the published one stands beside it where there is one for that very dataset. Ablations
belong to `ablation_tables`, what needs no training to `cost_tables`, datasets with their judge to `benches`. What was
not measured says "not run" or "not possible" and why.

Names of sets are those of `candidates`. "recipe paper" is what the paper describes, and the published figures of LVDD
stand beside it; those of herding beside herding in the field's float32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from lvdd_assets.distill import cost_tables, paper
from lvdd_assets.distill.ablation_tables import rank_ratios, sampling, svd_against_hosvd
from lvdd_assets.distill.benches import (
    ABSENT,
    ACCURACY,
    BYTES,
    Bench,
    Measured,
    absent_benchmarks,
    all_notes,
    cells_of,
    ipc_text,
    measure_curve,
    measure_sets,
    published,
    reasons_of,
)
from lvdd_assets.distill.candidates import CODEC, FULL, PAPER, TIGHT, make_candidates
from lvdd_assets.distill.cost_tables import FIELD_IPCS
from lvdd_assets.distill.plain_subsets import METHODS
from lvdd_assets.distill.tables import PAPER_TABLES, Cell, Table

METHOD_SETS = (TIGHT, PAPER, CODEC, *(f"{method}, float32" for method in METHODS), "random, uint8", "random, AV1")
NETWORKS = {"ConvNet3D": "convnet3d", "CNN+GRU": "cnn-gru", "CNN+LSTM": "cnn-lstm"}
SHARES = (Fraction(1, 1000), Fraction(1, 300), Fraction(1, 100), Fraction(1, 30), Fraction(1, 10), Fraction(1))

_CHANCE = "chance"
_OTHERS = "not run: method of another paper"
# Published methods by the set that stands for them here.
_PUBLISHED_AS = {PAPER: "LVDD", "herding, float32": "Herding"}


def methods(
    benches: Sequence[Bench],
    *,
    ipcs: Sequence[Fraction] = FIELD_IPCS,
    names: Sequence[str] = METHOD_SETS,
    seed: int = 0,
) -> Table:
    """Table 1: methods at the field's budgets.

    Args:
        benches: the datasets that are there.
        ipcs: budgets as instances per class, or shares of one.
        names: sets to compare.
        seed: of plain subsets.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    for bench in benches:
        rows += _lines_of_dataset(bench)
        for ipc in ipcs:
            measured = measure_sets(bench, bench.allowed(ipc), names, seed=seed)
            reasons += reasons_of(bench, measured, at=f"IPC {ipc_text(ipc)}")
            for point in measured:
                name = point.candidate.name
                known = published(bench, _PUBLISHED_AS.get(name, ""), ipc)
                rows.append((bench.name, name, ipc_text(ipc), *cells_of(bench, point), known))
            there = {_PUBLISHED_AS[name] for name in names if name in _PUBLISHED_AS}
            rows += _published_lines(bench.name, bench.benchmark, ipc, but=there, why=_OTHERS)
    for name in absent_benchmarks(benches):
        for ipc in ipcs:
            rows += _published_lines(name, name, ipc, but=set(), why=ABSENT)
    columns = ("dataset", "set", "IPC", *BYTES, *ACCURACY, "published, %")
    note = "IPC n allows what n clips of each class take as float32 pixels. Labels of plain subsets are free."
    return Table("Table 1: methods by budget", columns, tuple(rows), all_notes(benches, note, *reasons))


def _lines_of_dataset(bench: Bench) -> list[tuple[Cell, ...]]:
    """What does not depend on the budget: all train clips, and guessing."""
    row = bench.score([])[FULL]
    full = cells_of(bench, Measured(bench.full.stored_bytes, bench.full, row))
    chance = (None, None, None, bench.metric, bench.chance, None, None)
    return [(bench.name, FULL, None, *full, None), (bench.name, _CHANCE, None, *chance, None)]


def _published_lines(
    dataset: str, benchmark: str | None, ipc: Fraction, *, but: set[str], why: str
) -> list[tuple[Cell, ...]]:
    """Printed figures of methods that are not measured here."""
    nothing = (None, None, None)
    return [
        (dataset, result.method, ipc_text(ipc), *nothing, result.metric, why, None, None, result.accuracy_percent)
        for result in paper.PUBLISHED_RESULTS
        if (result.dataset, result.ipc) == (benchmark, ipc) and result.method not in but
    ]


def cross_architecture(
    benches: Sequence[Bench], *, ipc: Fraction = Fraction(1), networks: Mapping[str, str] = NETWORKS
) -> Table:
    """Table 2: the same sets, other networks.

    Args:
        benches: the datasets that are there.
        ipc: the budget.
        networks: names for the protocol (`protocols.NETWORKS`) by names in the table.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    place = ("MiniUCF", Fraction(1))  # what the paper's table is of
    for bench in benches:
        allowed = bench.allowed(ipc)
        made = list(make_candidates(bench.originals, allowed, names=(TIGHT, PAPER), sources=bench.sources))
        for shown, network in networks.items():
            # Widths are a network's own, but for the one that the protocol names.
            same = network == bench.protocol.network
            protocol = bench.protocol if same else replace(bench.protocol, network=network, widths=None)
            scores = bench.score(made, protocol)
            measured = [Measured(allowed, candidate, scores.get(candidate.name)) for candidate in (bench.full, *made)]
            for point in measured:
                name = point.candidate.name
                is_published = name == PAPER and (bench.benchmark, ipc) == place
                known = paper.CROSS_ARCHITECTURE_PERCENT.get(shown) if is_published else None
                rows.append((bench.name, shown, name, *cells_of(bench, point), known))
        reasons += reasons_of(bench, measured, at=f"IPC {ipc_text(ipc)}")
    if place[0] in absent_benchmarks(benches) and ipc == place[1]:
        for shown, percent in paper.CROSS_ARCHITECTURE_PERCENT.items():
            rows.append((place[0], shown, PAPER, None, None, None, "top-1", ABSENT, None, None, percent))
    columns = ("dataset", "network", "set", *BYTES, *ACCURACY, "published, %")
    title = f"Table 2: cross-architecture at IPC {ipc_text(ipc)}"
    return Table(title, columns, tuple(rows), all_notes(benches, *reasons))


def rate_accuracy(
    benches: Sequence[Bench],
    *,
    shares: Sequence[Fraction] = SHARES,
    names: Sequence[str] = (TIGHT, PAPER, CODEC),
    seed: int = 0,
) -> Table:
    """The rate–accuracy curve as a table: sets by budget, with full data and chance.

    Args:
        benches: the datasets that are there.
        shares: budgets as shares of IPC 1.
        names: of `candidates.NAMES`.
        seed: of plain subsets.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    for bench in benches:
        rows += [line[:-1] for line in _lines_of_dataset(bench)]
        at = {bench.allowed(share): ipc_text(share) for share in shares}
        measured = measure_curve(bench, list(at), names=names, seed=seed)
        rows += [(bench.name, point.candidate.name, at[point.allowed], *cells_of(bench, point)) for point in measured]
        for point in measured:
            reasons += reasons_of(bench, [point], at=f"IPC {at[point.allowed]}")
    columns = ("dataset", "set", "IPC", *BYTES, *ACCURACY)
    return Table("Rate and accuracy", columns, tuple(rows), all_notes(benches, *reasons))


# --- The front -------------------------------------------------------------------------------------

_ONE, _FIVE = FIELD_IPCS

# By name, in the paper's order: tables 1 to 6, contrast, and the curve. The second argument is one budget instead of
# the paper's own.
_JOBS: Mapping[str, Callable[[Sequence[Bench], Fraction | None], Table]] = {
    "methods": lambda benches, ipc: methods(benches, ipcs=FIELD_IPCS if ipc is None else (ipc,)),
    "cross-architecture": lambda benches, ipc: cross_architecture(benches, ipc=ipc or _ONE),
    "rank-ratio": lambda benches, _: rank_ratios(benches),
    "svd": lambda benches, ipc: svd_against_hosvd(benches, ipc=ipc or _FIVE),
    "storage": lambda benches, ipc: cost_tables.storage(benches, ipcs=FIELD_IPCS if ipc is None else (ipc,)),
    "sampling": lambda benches, ipc: sampling(benches, ipc=ipc or _FIVE),
    "contrast": lambda benches, ipc: cost_tables.contrast(benches, ipc=ipc or _ONE),
    "rate-accuracy": lambda benches, _: rate_accuracy(benches),
}
# Table 7 and runtime share one measurement.
_COSTS = {"memory": cost_tables.peak_memory, "runtime": cost_tables.runtime}

UNTRAINED = ("storage", "contrast", *_COSTS)
"""Those for which no network is trained."""


def run_tables(
    names: Sequence[str], benches: Sequence[Bench], *, ipc: Fraction | None = None
) -> Iterator[tuple[str, Table]]:
    """Tables by name, each as soon as it is there.

    Args:
        names: some of `tables.PAPER_TABLES`.
        benches: the datasets that are there; benchmarks that are not are listed as absent.
        ipc: one budget for all tables that have one, instead of the paper's (1 or 5 instances a class).

    Raises:
        ValueError: an unknown name, two benches of one dataset, or none.
    """
    unknown = [name for name in names if name not in PAPER_TABLES]
    if unknown:
        raise ValueError(f"unknown tables {', '.join(unknown)}; known: {', '.join(PAPER_TABLES)}")
    datasets = [bench.name for bench in benches]
    if not benches or len(set(datasets)) != len(datasets):
        raise ValueError(f"expected one or more different datasets, got {datasets}")
    return _run(names, benches, ipc)


def _run(names: Sequence[str], benches: Sequence[Bench], ipc: Fraction | None) -> Iterator[tuple[str, Table]]:
    stages = {}
    if any(name in _COSTS for name in names):
        # First of all: a peak is more telling while nothing is in memory yet.
        for bench in benches:
            stages[bench.name] = cost_tables.measure_stages(bench, allowed=bench.allowed(ipc or _ONE))
    for name in names:
        yield name, _COSTS[name](benches, stages) if name in _COSTS else _JOBS[name](benches, ipc)

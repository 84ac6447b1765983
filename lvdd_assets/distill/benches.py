"""What the paper's tables are made from: a dataset with its judge, and which published figures may stand beside it.

A published figure is one that `paper` has, and it stands only beside the very dataset that it was published for. What
was not measured says so.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from lvdd_assets.distill import paper
from lvdd_assets.distill.budget import field_budget_bytes
from lvdd_assets.distill.candidates import (
    CODEC,
    PAPER,
    TIGHT,
    latent_sources,
    make_candidates,
    make_full,
    video_ladders,
)
from lvdd_assets.distill.filling import Source
from lvdd_assets.distill.measuring import Stage
from lvdd_assets.distill.protocols import Protocol
from lvdd_assets.distill.scores import Row
from lvdd_assets.distill.tables import Cell
from lvdd_assets.distill.training_sets import Candidate, NotPossible, Originals, TrainingSet
from lvdd_assets.distill.video_ladders import VideoLadder

Evaluate = Callable[[Sequence[TrainingSet], Protocol], Sequence[Row]]
"""Trains on each set alike, as long as the largest needs, and tests on the dataset's test clips: a row for each set, by
its name. Devices and caches are the caller's."""

ABSENT = "not run: dataset absent"
BYTES = ("allowed, B", "stored, B", "clips a class")
ACCURACY = ("metric", "accuracy, %", "std, %", "seeds")
BENCHMARK_NAMES = tuple(dict.fromkeys(result.dataset for result in paper.PUBLISHED_RESULTS))


@dataclass(frozen=True, eq=False)
class Bench:
    """A dataset that is there, and how sets made of it are judged.

    Attributes:
        originals: its train clips.
        evaluate: see `Evaluate`.
        protocol: how networks are trained.
        stages: what the pipeline's steps took when they ran, for the tables of cost.
        stored_sources: recipe tight's sources where they are stored; else computed.
        stored_ladders: recipe codec's encodings where they are stored; else computed.
    """

    originals: Originals
    evaluate: Evaluate = field(repr=False)
    protocol: Protocol
    stages: tuple[Stage, ...] = ()
    stored_sources: Mapping[str, Source] | None = field(default=None, repr=False)
    stored_ladders: Mapping[str, VideoLadder] | None = field(default=None, repr=False)

    @functools.cached_property
    def sources(self) -> Mapping[str, Source] | None:
        """Recipe tight's sources; None where there are no latents, or no decoder for them."""
        if self.stored_sources is not None or self.originals.latents is None or self.originals.decoding is None:
            return self.stored_sources
        return latent_sources(self.originals)

    @functools.cached_property
    def ladders(self) -> Mapping[str, VideoLadder]:
        """Recipe codec's encodings."""
        return video_ladders(self.originals) if self.stored_ladders is None else self.stored_ladders

    @property
    def has_ladders(self) -> bool:
        """Whether `ladders` is there already."""
        return self.stored_ladders is not None or "ladders" in vars(self)

    @functools.cached_property
    def full(self) -> TrainingSet:
        """All train clips."""
        return make_full(self.originals)

    @property
    def name(self) -> str:
        """The dataset's."""
        return self.originals.dataset

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.originals.num_clips)

    @property
    def metric(self) -> str:
        """What is reported: what the benchmark reports, and top-1 for any other dataset."""
        metrics = {result.dataset: result.metric for result in paper.PUBLISHED_RESULTS}
        benchmark = self.benchmark
        return "top-1" if benchmark is None else metrics[benchmark]

    @property
    def benchmark(self) -> str | None:
        """The published benchmark that this dataset is by name (in any case) and number of classes; None for others."""
        for name in BENCHMARK_NAMES:
            if name.casefold() == self.name.casefold():
                known = paper.BENCHMARKS.get(name)
                return name if known is None or known.num_classes == self.num_classes else None
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before comparing with published figures."""
        known, shape = paper.BENCHMARKS.get(self.benchmark or ""), self.originals.shape
        if self.benchmark is None:
            alike = [name for name in BENCHMARK_NAMES if name.casefold() == self.name.casefold()]
            number = paper.BENCHMARKS[alike[0]].num_classes if alike else 0
            return tuple(
                f"{self.name} has {self.num_classes} classes, the benchmark {name} {number}: its published figures "
                "belong to another dataset."
                for name in alike
            )
        if known is not None and (known.frames, known.size) != (shape.frames, shape.size):
            return (
                f"{known.name} is published at {known.frames} frames of {known.size} px; here {shape.frames} frames of "
                f"{shape.size} px.",
            )
        return ()

    def allowed(self, ipc: Fraction | float) -> int:
        """Bytes of a share of instances per class, as the field counts them."""
        return int(field_budget_bytes(self.num_classes, 1, self.originals.shape) * Fraction(ipc))

    def accuracy(self, row: Row | None) -> tuple[Cell, Cell, Cell]:
        """Mean and standard deviation in percent by this dataset's metric, and the number of seeds; a single seed has
        no deviation."""
        if row is None:
            return None, None, None
        mean, std = (row.mean_top1, row.std_top1) if self.metric == "top-1" else (row.mean_top5, row.std_top5)
        return 100 * mean, 100 * std if len(row.scores) > 1 else None, len(row.scores)

    @property
    def chance(self) -> float:
        """Accuracy of guesses, in percent."""
        return 100 * min(1 if self.metric == "top-1" else 5, self.num_classes) / self.num_classes

    def score(self, candidates: Iterable[Candidate], protocol: Protocol | None = None) -> dict[str, Row]:
        """Rows by name. The full data is among them, so that all comparisons of a dataset train for as long."""
        sets = [made for made in candidates if isinstance(made, TrainingSet) and made.name != self.full.name]
        rows = self.evaluate([self.full, *sets], protocol or self.protocol)
        return {row.name: row for row in rows}


def published(bench_or_name: Bench | str, method: str, ipc: Fraction | float) -> float | None:
    """The accuracy in percent that was printed for a method on that dataset; None where none was."""
    name = bench_or_name.benchmark if isinstance(bench_or_name, Bench) else bench_or_name
    for result in paper.PUBLISHED_RESULTS:
        if (result.dataset, result.method, result.ipc) == (name, method, ipc):
            return result.accuracy_percent
    return None


def absent_benchmarks(benches: Sequence[Bench]) -> tuple[str, ...]:
    """Published benchmarks that no bench is."""
    there = {bench.benchmark for bench in benches}
    return tuple(name for name in BENCHMARK_NAMES if name not in there)


def all_notes(benches: Sequence[Bench], *more: str, trained: bool = True) -> tuple[str, ...]:
    """What is to be said, and notes of all benches, each once; of training only below what was trained."""
    protocols = [_protocol_note(bench.protocol) for bench in benches] if trained else []
    absent = absent_benchmarks(benches)
    missing = [f"Not run, dataset absent: {', '.join(absent)}."] if absent else []
    return tuple(dict.fromkeys([*more, *protocols, *missing, *(note for bench in benches for note in bench.notes)]))


def _protocol_note(protocol: Protocol) -> str:
    counting = "equal updates for all sets" if protocol.counting == "equal" else "equal epochs for all sets"
    return (
        f"Training: {protocol.network}, {protocol.epochs} epochs of the full data in batches of {protocol.batch_size}, "
        f"{counting}, {len(protocol.seeds)} seed{'s' if len(protocol.seeds) > 1 else ''}."
    )


def ipc_text(ipc: Fraction | float) -> str:
    """`5`, `1/10`."""
    return str(Fraction(ipc).limit_denominator(10_000))


@dataclass(frozen=True)
class Measured:
    """A training set in some bytes, and what it is worth.

    Attributes:
        allowed: bytes that it could take.
        candidate: the set, or why there is none.
        row: its scores; None where there is no set.
    """

    allowed: int
    candidate: Candidate
    row: Row | None


def measure_sets(bench: Bench, allowed: int, names: Sequence[str], *, seed: int = 0) -> list[Measured]:
    """Sets by name in some bytes, all trained for as long as the full data needs, which is among them."""
    made = list(
        make_candidates(
            bench.originals,
            allowed,
            names=names,
            seed=seed,
            sources=bench.sources if TIGHT in names else None,
            ladders=bench.ladders if CODEC in names else None,
        )
    )
    rows = bench.score(made)
    return [Measured(allowed, candidate, rows.get(candidate.name)) for candidate in made]


def measure_curve(
    bench: Bench, budgets: Sequence[int], *, names: Sequence[str] = (TIGHT, PAPER, CODEC), seed: int = 0
) -> list[Measured]:
    """The rate–accuracy curve: every set at every budget, by budget. What does not depend on the budget is done once.

    Args:
        bench: the dataset.
        budgets: bytes.
        names: of `candidates.NAMES`.
        seed: of plain subsets.
    """
    return [measured for allowed in budgets for measured in measure_sets(bench, allowed, names, seed=seed)]


def cells_of(bench: Bench, measured: Measured) -> tuple[Cell, ...]:
    """Bytes and accuracy: the columns `BYTES` and `ACCURACY`."""
    made = measured.candidate
    if isinstance(made, NotPossible):
        return (measured.allowed, None, None, bench.metric, "not possible", None, None)
    return (
        measured.allowed,
        made.stored_bytes,
        made.clips_per_class,
        bench.metric,
        *bench.accuracy(measured.row),
    )


def reasons_of(bench: Bench, measured: Sequence[Measured], *, at: str) -> list[str]:
    """Why sets are not possible, a sentence each."""
    found = [point.candidate for point in measured]
    return [f"{bench.name}, {at}, {made.name}: {made.reason}." for made in found if isinstance(made, NotPossible)]

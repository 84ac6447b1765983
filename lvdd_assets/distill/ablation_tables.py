"""The paper's ablations as jobs: rank-compression ratio, SVD against HOSVD, how clips are selected.

Each figure is measured, the published one beside it where it is of that very dataset. Other tables belong to
`paper_tables` and `cost_tables`, datasets with their judge to `benches`.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from lvdd_assets.distill import class_coding, paper, tucker
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
    published,
    reasons_of,
)
from lvdd_assets.distill.candidates import make_paper, make_svd
from lvdd_assets.distill.plain_subsets import choose
from lvdd_assets.distill.tables import Cell, Table
from lvdd_assets.distill.training_sets import Candidate, NotPossible, Originals

RATIOS = (paper.RANK_RATIO_COLLAPSED, 0.25, 0.50, paper.RANK_RATIO, 0.90, 1.0)


def rank_ratios(benches: Sequence[Bench], *, ratios: Sequence[float] = RATIOS) -> Table:
    """Table 3: recipe paper by rank-compression ratio, with all selected clips, whatever they take.

    Args:
        benches: the datasets that are there.
        ratios: each in (0, 1].
    """
    rows: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    for bench in benches:
        made = [make_paper(bench.originals, None, rank_ratio=ratio, name=f"r = {ratio:g}") for ratio in ratios]
        scores = bench.score(made)
        for ratio, candidate in zip(ratios, made, strict=True):
            point = Measured(0, candidate, scores.get(candidate.name))
            reasons += reasons_of(bench, [point], at="all selected clips")
            kept = None if isinstance(candidate, NotPossible) else latent_snr(bench.originals, ratio)
            rows.append((bench.name, ratio, *cells_of(bench, point)[1:], kept))
    columns = ("dataset", "r", *BYTES[1:], *ACCURACY, "latents' SNR, dB")
    note = f"The paper chooses r = {paper.RANK_RATIO:g}; its figures by ratio are not on record here."
    return Table("Table 3: rank-compression ratio", columns, tuple(rows), all_notes(benches, note, *reasons))


def latent_snr(originals: Originals, rank_ratio: float) -> float:
    """Signal-to-noise ratio of all selected latents as recipe paper stores them, in dB."""
    power, error = 0.0, 0.0
    for name in originals.class_names:
        latents = originals.selected_latents(name)
        ranks = tucker.ranks_from_ratio(latents.shape[1:], rank_ratio)
        decoded = class_coding.decode(class_coding.encode_tucker(tucker.decompose(latents, ranks=ranks)))
        power += float(np.square(latents, dtype=np.float64).sum())
        error += float(np.square(latents.astype(np.float64) - decoded).sum())
    # Float32 keeps 24 bits: below its rounding there is nothing to measure.
    return 10 * float(np.log10(power / max(error, power * 2.0**-50)))


def svd_against_hosvd(benches: Sequence[Bench], *, ipc: Fraction = Fraction(5)) -> Table:
    """Table 4: a plain SVD instead of HOSVD, the same clips in the same bytes.

    Args:
        benches: the datasets that are there.
        ipc: the budget.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    for bench in benches:
        allowed = bench.allowed(ipc)
        hosvd = make_paper(bench.originals, allowed, name="HOSVD")
        made: list[Candidate] = [hosvd, _svd_like(bench.originals, hosvd)]
        scores = bench.score(made)
        measured = [Measured(allowed, candidate, scores.get(candidate.name)) for candidate in made]
        reasons += reasons_of(bench, measured, at=f"IPC {ipc_text(ipc)}")
        for shown, point in zip(("HOSVD", "SVD"), measured, strict=True):
            known = _published_compression(bench.benchmark, shown, ipc)
            rows.append((bench.name, shown, *cells_of(bench, point), known))
    for name in absent_benchmarks(benches):
        for shown in ("HOSVD", "SVD"):
            known = _published_compression(name, shown, ipc)
            if known is not None and name in paper.SVD_INSTEAD_OF_HOSVD_PERCENT:
                rows.append((name, shown, None, None, None, "top-1", ABSENT, None, None, known))
    columns = ("dataset", "compression", *BYTES, *ACCURACY, "published, %")
    note = (
        f"SVD of each class has the largest rank whose bytes are not above those of HOSVD at r = {paper.RANK_RATIO:g}."
    )
    title = f"Table 4: SVD against HOSVD at IPC {ipc_text(ipc)}"
    return Table(title, columns, tuple(rows), all_notes(benches, note, *reasons))


def _svd_like(originals: Originals, hosvd: Candidate) -> Candidate:
    if isinstance(hosvd, NotPossible):
        return NotPossible("HOSVD, SVD", "there is no HOSVD to be compared with")
    return make_svd(originals, hosvd)


def _published_compression(name: str | None, shown: str, ipc: Fraction) -> float | None:
    if ipc != 5 or name is None:
        return None
    return paper.SVD_INSTEAD_OF_HOSVD_PERCENT.get(name) if shown == "SVD" else published(name, "LVDD", ipc)


def sampling(benches: Sequence[Bench], *, ipc: Fraction = Fraction(5), seed: int = 0) -> Table:
    """Table 6: how clips are selected: k-means and the project's selection (by default a k-DPP) with whole latents in
    float32, and the latter with truncated ones, of which more fit.

    Args:
        benches: the datasets that are there.
        ipc: the budget.
        seed: of k-means.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    place = ("SSv2", Fraction(5))  # what the paper's table is of
    for bench in benches:
        allowed = bench.allowed(ipc)
        alone = make_paper(bench.originals, allowed, rank_ratio=1.0, name="DPP only")
        both = make_paper(bench.originals, allowed, name="DPP + HOSVD")
        made = [_k_means_like(bench.originals, alone, allowed, seed), alone, both]
        scores = bench.score(made)
        measured = [Measured(allowed, candidate, scores.get(candidate.name)) for candidate in made]
        reasons += reasons_of(bench, measured, at=f"IPC {ipc_text(ipc)}")
        for point in measured:
            name = point.candidate.name
            known = paper.SAMPLING_PERCENT.get(name) if (bench.benchmark, ipc) == place else None
            rows.append((bench.name, name, *cells_of(bench, point), known))
    if place[0] in absent_benchmarks(benches) and ipc == place[1]:
        for name, percent in paper.SAMPLING_PERCENT.items():
            rows.append((place[0], name, None, None, None, "top-5", ABSENT, None, None, percent))
    columns = ("dataset", "selection", *BYTES, *ACCURACY, "published, %")
    note = (
        "Without HOSVD latents are kept whole (Tucker at r = 1, float32). DPP stands for the selection that was given."
    )
    title = f"Table 6: sampling at IPC {ipc_text(ipc)}"
    return Table(title, columns, tuple(rows), all_notes(benches, note, *reasons))


def _k_means_like(originals: Originals, alone: Candidate, allowed: int, seed: int) -> Candidate:
    """As many clips of each class as the other selection has, those at the centres of k-means."""
    if isinstance(alone, NotPossible):
        return NotPossible("k-means", alone.reason)
    centres = {name: choose(originals, name, "k-means", len(items), seed) for name, items in alone.items.items()}
    return make_paper(replace(originals, selected=centres), allowed, rank_ratio=1.0, name="k-means")

"""The paper's tables that need no training: storage, peak memory and runtime by stage, contrast between frames.

What needs training belongs to `paper_tables`. Memory and seconds are measured on this machine or not there.

Legend: N clips, T frames, C channels, H, W pixels.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lvdd_assets.distill import paper, selection
from lvdd_assets.distill.benches import ABSENT, Bench, absent_benchmarks, all_notes, ipc_text
from lvdd_assets.distill.candidates import (
    CODEC,
    PAPER,
    TIGHT,
    latent_sources,
    make_candidates,
    make_tight,
)
from lvdd_assets.distill.measuring import Stage, measure
from lvdd_assets.distill.tables import Cell, Table
from lvdd_assets.distill.training_sets import Candidate, NotPossible, Originals, TrainingSet

RECIPES = (TIGHT, PAPER, CODEC)
FIELD_IPCS: tuple[Fraction, ...] = (Fraction(1), Fraction(5))

_MEBIBYTE = 2**20


def storage(benches: Sequence[Bench], *, ipcs: Sequence[Fraction] = FIELD_IPCS) -> Table:
    """Table 5: bytes that each recipe takes at the field's budgets, beside what the paper says it stores.

    Args:
        benches: the datasets that are there.
        ipcs: budgets, as instances per class.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons = []
    for bench in benches:
        for ipc in ipcs:
            allowed = bench.allowed(ipc)
            for made in recipes_of(bench, allowed):
                known = _published_storage(bench.benchmark, ipc) if made.name == PAPER else None
                start = (bench.name, ipc_text(ipc), made.name, allowed)
                if isinstance(made, NotPossible):
                    reasons.append(f"{bench.name}, IPC {ipc_text(ipc)}, {made.name}: {made.reason}.")
                    rows.append((*start, "not possible", None, None, known))
                else:
                    share = 100 * made.stored_bytes / allowed
                    rows.append((*start, made.stored_bytes, share, made.clips_per_class, known))
    for name in absent_benchmarks(benches):
        for ipc in ipcs:
            if (known := _published_storage(name, ipc)) is not None:
                rows.append((name, ipc_text(ipc), PAPER, None, ABSENT, None, None, known))
    columns = ("dataset", "IPC", "set", "allowed, B", "stored, B", "used, %", "clips a class", "published, MB")
    note = "Stored is the file on disk, decoder included, for recipe paper the encoder as well, as the paper counts it."
    return Table("Table 5: storage", columns, tuple(rows), all_notes(benches, note, *reasons, trained=False))


def _published_storage(name: str | None, ipc: Fraction) -> int | None:
    return paper.STORAGE_MEGABYTES.get(int(ipc), {}).get(name or "") if ipc.denominator == 1 else None


def recipes_of(bench: Bench, allowed: int) -> list[Candidate]:
    """The three recipes in so many bytes."""
    return list(make_candidates(bench.originals, allowed, names=RECIPES, sources=bench.sources, ladders=bench.ladders))


# --- Memory and time -------------------------------------------------------------------------------


def measure_stages(bench: Bench, *, allowed: int) -> tuple[Stage, ...]:
    """Runs what distils a dataset, from latents and clips to a file and back, and measures each stage.

    Args:
        bench: the dataset. Encoding video takes longer than all the rest, so that its result stays with the bench; it
            is not measured where there is one.
        allowed: bytes of the file.
    """
    originals, stages = bench.originals, []
    if originals.latents is not None and originals.decoding is not None:
        with measure("select clips (k-DPP on latents)") as stage:
            _select(originals)
        stages.append(stage)
        with measure("HOSVD, and code at trial steps") as stage:
            sources = latent_sources(originals)
        stages.append(stage)
        with measure("fill the bytes and pack (recipe tight)") as stage:
            made = make_tight(originals, allowed, sources=sources)
        stages.append(stage)
        if isinstance(made, TrainingSet):
            with measure("decode all clips (recipe tight)") as stage:
                _read_all(made)
            stages.append(stage)
    if not bench.has_ladders:
        with measure("encode video at all rates (recipe codec)") as stage:
            _ = bench.ladders
        stages.append(stage)
    return tuple(stages)


def _select(originals: Originals) -> None:
    assert originals.latents is not None
    for name in originals.class_names:
        selection.select(originals.latents(name), len(originals.selected_items(name)), selection.Rules(), seed=0)


def _read_all(made: TrainingSet) -> None:
    for index in range(made.num_clips):
        made.dataset[index]


def peak_memory(benches: Sequence[Bench], measured: Mapping[str, Sequence[Stage]]) -> Table:
    """Table 7: peak memory by stage.

    Args:
        benches: the datasets that are there.
        measured: stages by dataset, as `measure_stages` gives them.
    """
    rows: list[tuple[Cell, ...]] = [
        (bench.name, stage.name, *(_mebibytes(size) for size in _sizes(stage)))
        for bench in benches
        for stage in (*bench.stages, *measured.get(bench.name, ()))
    ]
    known = ", ".join(f"{method} {size:,} MiB" for method, size in paper.PEAK_GPU_MEMORY_MEBIBYTES.items())
    notes = (
        "Peak is the process's resident memory, libraries and what it holds from before included; added is what lies "
        "above the stage's start.",
        f"Published, of the GPU and for a dataset that is not on record, so not the same thing: {known}.",
    )
    columns = ("dataset", "stage", "peak, MiB", "added, MiB", "GPU peak, MiB")
    return Table("Table 7: peak memory, measured", columns, tuple(rows), all_notes(benches, *notes, trained=False))


def _sizes(stage: Stage) -> tuple[int | None, ...]:
    return stage.peak_bytes, stage.grown_bytes, stage.device_peak_bytes


def _mebibytes(size: int | None) -> Cell:
    return "not measured" if size is None else size / _MEBIBYTE


def runtime(benches: Sequence[Bench], measured: Mapping[str, Sequence[Stage]]) -> Table:
    """Runtime by stage, measured on this machine; arguments as for `peak_memory`."""
    rows: list[tuple[Cell, ...]] = []
    for bench in benches:
        stages = (*bench.stages, *measured.get(bench.name, ()))
        rows += [(bench.name, stage.name, stage.seconds) for stage in stages]
    known = "; ".join(
        f"{method} {', '.join(f'{time} ({size} datasets)' for size, time in times.items())}"
        for method, times in paper.DISTILLATION_TIME.items()
    )
    note = f"Published, on one H100: {known}."
    columns = ("dataset", "stage", "seconds")
    return Table("Runtime by stage, measured", columns, tuple(rows), all_notes(benches, note, trained=False))


# --- Contrast between frames -----------------------------------------------------------------------


def frame_contrast(clips_NTCHW: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean absolute difference of each frame to the next one over all clips, in grey levels: float64 [T − 1].

    Raises:
        ValueError: no uint8 clips of two frames or more.
    """
    if clips_NTCHW.dtype != np.uint8 or clips_NTCHW.ndim != 5 or clips_NTCHW.shape[1] < 2 or len(clips_NTCHW) == 0:
        raise ValueError(f"expected uint8 [N, T ≥ 2, C, H, W], got {clips_NTCHW.dtype} {clips_NTCHW.shape}")
    total = np.zeros(clips_NTCHW.shape[1] - 1)
    for clip_TCHW in clips_NTCHW:
        signed = clip_TCHW.astype(np.int16)
        total += np.abs(signed[1:] - signed[:-1]).mean(axis=(1, 2, 3))
    return total / len(clips_NTCHW)


def contrast(benches: Sequence[Bench], *, ipc: Fraction = Fraction(1)) -> Table:
    """The inter-frame contrast figure: how much neighbouring frames differ in what each recipe gives back, and in the
    originals of the very same clips.

    Args:
        benches: the datasets that are there.
        ipc: the budget.
    """
    rows: list[tuple[Cell, ...]] = []
    reasons = []
    for bench in benches:
        for made in recipes_of(bench, bench.allowed(ipc)):
            if isinstance(made, NotPossible):
                reasons.append(f"{bench.name}, {made.name}: {made.reason}.")
                rows.append((bench.name, made.name, None, "not possible", None, None))
                continue
            original, decoded = (float(values.mean()) for values in contrast_of(bench.originals, made))
            ratio = 100 * decoded / original if original > 0 else None
            rows.append((bench.name, made.name, made.num_clips, original, decoded, ratio))
    columns = ("dataset", "set", "clips", "original, grey levels", "decoded, grey levels", "decoded / original, %")
    notes = ("Mean absolute difference of neighbouring frames over all pixels and channels, of the same clips.",)
    title = f"Inter-frame contrast at IPC {ipc_text(ipc)}"
    return Table(title, columns, tuple(rows), all_notes(benches, *notes, *reasons, trained=False))


def contrast_of(originals: Originals, made: TrainingSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contrast of the originals of a set's clips, and of what the set gives, frame by frame: float64 [T − 1] each."""
    before, after, start = [], [], 0
    for name, items in made.items.items():
        before.append(len(items) * frame_contrast(originals.clips(name)[items]))
        decoded = np.stack([np.asarray(made.dataset[start + place][0]) for place in range(len(items))])
        after.append(len(items) * frame_contrast(decoded))
        start += len(items)
    return np.sum(before, axis=0) / made.num_clips, np.sum(after, axis=0) / made.num_clips

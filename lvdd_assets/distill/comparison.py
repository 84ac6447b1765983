"""A release beside its alternatives: which training sets are compared, in which bytes, and what the report then holds.

Everything is read through stores that the pipeline wrote; training belongs to `evaluation`, training sets to
`candidates`, wording and pages to `report`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from lvdd_assets.distill import candidates, evaluation, soft_labels
from lvdd_assets.distill.candidates import CODEC, PAPER, TIGHT
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.plain_subsets import FORMS, METHODS, Form, make_subset
from lvdd_assets.distill.protocols import Protocol, named_protocol, updates_for
from lvdd_assets.distill.release import Release
from lvdd_assets.distill.report_data import CurvePoint, Metric, NotRun, ReportRow, Role
from lvdd_assets.distill.score_cache import ScoreCache
from lvdd_assets.distill.stores import Partition
from lvdd_assets.distill.training_sets import (
    Candidate,
    NotPossible,
    Originals,
    TrainingSet,
    paper_decoding,
    read_decoding,
)
from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.distill.vae_folders import own_classes

RELEASE = "this release"
SOFT_RELEASE = "this release, soft labels"
VIDEO = "video"
RIVALS: Mapping[str, tuple[str, ...]] = {
    VIDEO: (),
    "paper": (PAPER,),
    "tight": (TIGHT,),
    "codec": (CODEC,),
    **{method: tuple(f"{method}, {form}" for form in FORMS) for method in METHODS},
}
"""What a release can be compared with: plain video in the better codec, recipes, and rules by which real clips are
kept, each in every form."""

_VIDEO_FORMS: tuple[Form, ...] = ("AV1", "H.264")

CURVE_RECIPES: Mapping[str, str] = {"tight": TIGHT, "codec": CODEC, "paper": PAPER}
PLAIN_VIDEO = "plain video"
"""Its name on the curve, where one line may have points of both codecs."""

Open = Callable[[str, str], Partition]
"""Opens what a step stored of a class ("" for the dataset)."""


@dataclass(frozen=True)
class Trainer:
    """How and where everything is trained.

    Attributes:
        protocol: alike for all.
        device: in torch's words.
        cache: scores that are known.
        progress: called after each update with updates done and to do.
        announce: called with what is done next.
        metric: which accuracy the curve shows.
    """

    protocol: Protocol
    device: str = "cpu"
    cache: ScoreCache | None = None
    progress: evaluation.Progress | None = None
    announce: Callable[[str], None] | None = None
    metric: Metric = "top1"


@dataclass(frozen=True)
class Compared:
    """What was measured: rows for the report, those that could not be, and the curve."""

    rows: tuple[ReportRow, ...]
    not_run: tuple[NotRun, ...]
    curve: tuple[CurvePoint, ...]


def read_split(open_partition: Open, class_names: Sequence[str], split: str) -> TensorDataset:
    """All clips of a split, uint8 [N, T, 3, H, W], and their labels, int64 [N].

    Raises:
        ValueError: a class has none.
    """
    clips, labels = [], []
    for label, name in enumerate(class_names):
        partition = open_partition("raw_clips", name)
        if partition.num_rows(split) == 0:
            raise ValueError(
                f"class {name!r} has no usable {split} clip, so accuracy cannot be measured: add one or mend the split"
            )
        clips.append(partition.read(split))
        labels.append(np.full(len(clips[-1]), label, dtype=np.int64))
    return TensorDataset(torch.from_numpy(np.concatenate(clips)), torch.from_numpy(np.concatenate(labels)))


def stored_originals(
    open_partition: Open, spec: DatasetSpec, class_names: Sequence[str], *, selected: bool, latents: bool
) -> Originals:
    """A dataset's train clips as the pipeline stored them, and what its recipes need.

    Args:
        open_partition: opens partitions of raw_clips, and of whatever else is wanted.
        spec: its registry entry.
        class_names: its classes, in the order of the labels.
        selected: whether the selection is wanted, of dpp_subsets.
        latents: whether latents and the decoder are, of latents and quantized_vae.
    """
    stored = {name: open_partition("raw_clips", name) for name in class_names}

    def read(step: str, array: str) -> Callable[[str], NDArray[Any]]:
        return lambda name: open_partition(step, name).read(array)

    originals = Originals(
        dataset=spec.name,
        shape=spec.shape,
        num_clips={name: partition.num_rows("train") for name, partition in stored.items()},
        clips=read("raw_clips", "train"),
        selected={name: open_partition("dpp_subsets", name).read("items") for name in class_names if selected},
        file_bytes=sum(partition.commit.metrics["train_file_bytes"] for partition in stored.values()),
    )
    if not latents:
        return originals
    trusted = own_classes(spec.vae)
    vae = load_autoencoder(spec.vae, base=spec.base)
    stored_decoding = read_decoding(open_partition("quantized_vae", ""))
    if stored_decoding is not None:  # recipe tight ships no encoder, whatever the dataset's own recipe stored
        stored_decoding = dataclasses.replace(stored_decoding, encoder=b"", trusted_classes=trusted)
    return dataclasses.replace(
        originals,
        latents=read("latents", "latents"),
        decoding=stored_decoding,
        paper_decoding=paper_decoding(vae, trusted),
    )


def needs_chain(rivals: Sequence[str], curve: Sequence[int]) -> bool:
    """Whether a comparison has recipes, which keep what the chain selected and encoded."""
    return bool(curve) or not CURVE_RECIPES.keys().isdisjoint(rivals)


def compare_release(
    release: Release,
    originals: Originals,
    test: TensorDataset,
    trainer: Trainer,
    *,
    rivals: Sequence[str] = (),
    curve: Sequence[int] = (),
    seed: int = 0,
) -> Compared:
    """Trains on all data, on the release, and on each rival in as many bytes as the release has; then along the curve.

    Args:
        release: as its loader gives it.
        originals: the dataset that it was made from.
        test: clips uint8 [N, T, 3, H, W] and labels int64 [N].
        trainer: how and where.
        rivals: some of `RIVALS`.
        curve: numbers of bytes at which `CURVE_RECIPES` are compared, and plain video where it is a rival.
        seed: of the rivals' choice of clips.

    Raises:
        ValueError: the release is of another dataset, or a rival is unknown.
    """
    _refuse_another(release, originals)
    unknown = [name for name in rivals if name not in RIVALS]
    if unknown:
        raise ValueError(f"unknown rivals {', '.join(unknown)}; known: {', '.join(RIVALS)}")
    full = candidates.make_full(originals)
    updates = updates_for(full.num_clips, trainer.protocol)
    possible, not_run = _make_rivals(originals, release.stored_bytes, rivals, trainer, seed)
    sets: dict[str, evaluation.LabelledClips] = {full.name: full.dataset, RELEASE: release.dataset()}
    if release.has_soft_labels:
        sets[SOFT_RELEASE] = release.dataset(labels="soft")
        possible += [(one, "subset") for one in _under_soft_labels(release, originals, possible, trainer)]
    sets |= {one.name: one.dataset for one, _ in possible}
    results = {row.name: row for row in _train(sets, release, test, trainer, updates)}
    file_note = "the file on disk, all that is needed to train"
    rows = [
        ReportRow(results[full.name], full.stored_bytes, "full", full.note),
        ReportRow(results[RELEASE], release.stored_bytes, "release", file_note),
    ]
    if release.has_soft_labels:
        rows.append(
            ReportRow(results[SOFT_RELEASE], release.stored_bytes, "other", "the same file, a teacher's labels")
        )
    for one, role in possible:
        group = one.name.split(", ")[1] if role == "subset" else ""
        rows.append(ReportRow(results[one.name], one.stored_bytes, role, one.note, group))
    points, missing = _curve(originals, release, test, trainer, curve, updates, seed, with_video=VIDEO in rivals)
    return Compared(tuple(rows), (*not_run, *missing), points)


def _make_rivals(
    originals: Originals, allowed: int, rivals: Sequence[str], trainer: Trainer, seed: int
) -> tuple[list[tuple[TrainingSet, Role]], list[NotRun]]:
    """Rivals in so many bytes, and those that do not fit."""
    if trainer.announce is not None and rivals:
        trainer.announce(f"make {', '.join(rivals)} of {allowed} B")
    made: list[tuple[Candidate, Role]] = []
    if VIDEO in rivals:
        made.append((_plain_video(originals, allowed, seed), "video"))
    names = [name for rival in rivals for name in RIVALS[rival]]
    for candidate in candidates.make_candidates(originals, allowed, names=names, seed=seed):
        made.append((candidate, "recipe" if candidate.name in CURVE_RECIPES.values() else "subset"))
    return (
        [(one, role) for one, role in made if isinstance(one, TrainingSet)],
        [NotRun(one.name, one.reason) for one, _ in made if isinstance(one, NotPossible)],
    )


def _under_soft_labels(
    release: Release, originals: Originals, possible: Sequence[tuple[TrainingSet, Role]], trainer: Trainer
) -> list[TrainingSet]:
    """The random subsets again, labelled by the teacher that labelled the release: is it the clips or the labels?

    The teacher is trained anew as the release's provenance says, and knows nothing of the subset. Its labels are free.
    """
    subsets = [one for one, _ in possible if one.name.startswith("random, ")]
    settings = release.provenance.get("soft_labels")
    if not subsets or not isinstance(settings, Mapping):
        return []
    if trainer.announce is not None:
        trainer.announce("teacher")
    clips = np.concatenate([originals.clips(name) for name in originals.class_names])
    labels = np.repeat(np.arange(len(originals.num_clips)), list(originals.num_clips.values()))
    teacher = soft_labels.train_teacher(
        clips,
        labels,
        num_classes=len(originals.num_clips),
        protocol=named_protocol("quick", len(clips), epochs=settings["teacher_epochs"]),
        seed=settings["teacher_seed"],
        device=trainer.device,
    )
    softened = []
    for one in subsets:
        kept = np.stack([np.asarray(one.dataset[index][0]) for index in range(one.num_clips)])
        targets = teacher.label(kept, temperature=settings["temperature"])
        dataset = TensorDataset(torch.from_numpy(kept), torch.from_numpy(targets))
        softened.append(dataclasses.replace(one, name=f"{one.name}, soft labels", dataset=dataset))
    return softened


def _plain_video(originals: Originals, allowed: int, seed: int) -> Candidate:
    """What an engineer would keep in as many bytes: of AV1 and H.264 the one that keeps more clips, and of two that
    keep all, the one with the higher PSNR."""
    best: tuple[tuple[int, float], TrainingSet] | None = None
    reasons = []
    for form in _VIDEO_FORMS:
        made = make_subset(originals, "random", form, allowed, seed=seed)
        if isinstance(made, NotPossible):
            reasons.append(made.reason)
            continue
        named = dataclasses.replace(made, name=f"the same bytes as {form}")
        all_kept = made.num_clips == originals.total_clips
        quality = (made.num_clips, _psnr(originals, made) if all_kept else 0.0)
        if best is None or quality > best[0]:
            best = (quality, named)
    return best[1] if best is not None else NotPossible("the same bytes as video", "; ".join(reasons))


def _psnr(originals: Originals, made: TrainingSet) -> float:
    """Of a set that keeps all clips, in the order of the labels."""
    kept = (np.asarray(made.dataset[index][0]) for index in range(made.num_clips))
    errors = [
        np.square(next(kept).astype(np.float32) - originals.clips(name)[item]).mean()
        for name, items in made.items.items()
        for item in items
    ]
    return float(10 * np.log10(255**2 / max(float(np.mean(errors)), 1e-9)))


def _train(
    sets: Mapping[str, evaluation.LabelledClips], release: Release, test: TensorDataset, trainer: Trainer, updates: int
) -> list[evaluation.Row]:
    return evaluation.compare(
        sets,
        test,
        num_classes=release.num_classes,
        protocol=trainer.protocol,
        progress=trainer.progress,
        announce=trainer.announce,
        class_names=release.class_names,
        device=trainer.device,
        cache=trainer.cache,
        num_updates=None if trainer.protocol.counting == "epochs" else updates,
    )


def _curve(
    originals: Originals,
    release: Release,
    test: TensorDataset,
    trainer: Trainer,
    budgets: Sequence[int],
    updates: int,
    seed: int,
    *,
    with_video: bool,
) -> tuple[tuple[CurvePoint, ...], tuple[NotRun, ...]]:
    """Each recipe at each budget; a set is in memory only while it is trained on. What is coded once serves all."""
    if not budgets:
        return (), ()
    sources = candidates.latent_sources(originals) if originals.decoding is not None else None
    ladders = candidates.video_ladders(originals)
    names = [name for name in CURVE_RECIPES.values() if name != TIGHT or sources is not None]

    def sets(allowed: int) -> Iterator[Candidate]:
        yield from candidates.make_candidates(
            originals, allowed, names=names, seed=seed, sources=sources, ladders=ladders
        )
        if with_video:
            yield dataclasses.replace(_plain_video(originals, allowed, seed), name=PLAIN_VIDEO)

    points, missing = [], []
    measured: set[tuple[str, int]] = set()
    for allowed in sorted(budgets):
        for candidate in sets(allowed):
            if isinstance(candidate, NotPossible):
                missing.append(NotRun(f"{candidate.name} in {allowed} B", candidate.reason))
                continue
            if (candidate.name, candidate.stored_bytes) in measured:
                reason = f"it can use no more than {candidate.stored_bytes} B, which are on the curve already"
                missing.append(NotRun(f"{candidate.name} in {allowed} B", reason))
                continue
            measured.add((candidate.name, candidate.stored_bytes))
            (row,) = _train({f"{candidate.name}, {allowed} B": candidate.dataset}, release, test, trainer, updates)
            accuracies = tuple(score.top1 if trainer.metric == "top1" else score.top5 for score in row.scores)
            points.append(CurvePoint(candidate.name, candidate.stored_bytes, accuracies))
    return tuple(points), tuple(missing)


def _refuse_another(release: Release, originals: Originals) -> None:
    if release.class_names == originals.class_names and release.shape == originals.shape:
        return
    here, there = (
        f"{len(one.class_names)} classes ({', '.join(one.class_names[:3])}, …)" for one in (originals, release)
    )
    clips = [f"{one.shape.frames} frames of {one.shape.size}×{one.shape.size}" for one in (release, originals)]
    raise ValueError(
        f"the release {release.name!r} has {there}, {clips[0]}; dataset {originals.dataset!r} has {here}, {clips[1]}: "
        "evaluate it on the dataset that it was made from (--dataset NAME)"
    )


def paired_clips(
    release: Release, originals: Originals, most: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """The first kept clip of some classes as it was, as the release gives it back, [n, T, 3, H, W], and their names.

    Only for a release that was made from the selection that these originals have.
    """
    before, after, names = [], [], []
    dataset = release.dataset()
    for label, name in enumerate(release.class_names[:most]):
        position = int(np.flatnonzero(release.labels == label)[0])
        before.append(originals.clips(name)[originals.selected_items(name)[0]])
        after.append(dataset[position][0].numpy())
        names.append(name)
    return np.stack(before), np.stack(after), names

"""Makes a release from a dataset's stores: spends the budget by the recipe, and writes the file with its ledger.

How bytes are spent belongs to `distill.filling`, how they lie in the file to `distill.release`; here stands what is
read from which step.
"""

import functools
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lvdd_assets.distill import class_stores
from lvdd_assets.distill.asset_plots import class_bytes_png, ledger_png
from lvdd_assets.distill.budget import FINEST_STEP, BudgetError, Ledger, allowed_bytes, format_bytes
from lvdd_assets.distill.class_coding import SharedBasis
from lvdd_assets.distill.devices import find_device
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.filling import Source, fill_with_latents, fill_with_videos
from lvdd_assets.distill.protocols import named_protocol
from lvdd_assets.distill.release import (
    SUFFIX,
    CodedClips,
    ReleaseParts,
    load_release,
    pack,
    package_version,
    read_ledger,
)
from lvdd_assets.distill.soft_labels import quantize, train_teacher
from lvdd_assets.distill.training_sets import Decoding, read_decoding
from lvdd_assets.distill.utility import decode_judged, judged_positions, train_judge
from lvdd_assets.distill.vae_folders import own_classes
from lvdd_assets.steps import Task

# Enough of a fingerprint to tell two apart; every byte of the provenance counts against the budget.
_SHORT = 16

Levels = Mapping[str, NDArray[np.uint8]] | None
"""Soft labels of each class's selected clips, in their order; None where labels are hard only."""


def _provenance(task: Task) -> dict[str, Any]:
    soft = {name: task.config[name] for name in ("temperature", "teacher_epochs", "teacher_seed")}
    return {
        "lvdd_assets": package_version(),
        "release": task.fingerprint[:_SHORT],
        "recipe": task.dataset.recipe,
        "vae": Path(task.dataset.vae).name,
        "inputs": {name: fingerprint[:_SHORT] for name, fingerprint in task.inputs.items()},
        "budget": task.settings["registry"]["budget"],
        **({"license": task.dataset.license} if task.dataset.license is not None else {}),
        **({"soft_labels": soft} if task.config["soft_labels"] else {}),
    }


@dataclass(frozen=True)
class _Filled:
    """A release before it is written, and how the budget was spent on it."""

    parts: ReleaseParts
    figures: dict[str, Any]


def _read_decoder(task: Task) -> Decoding:
    decoding = read_decoding(task.open("quantized_vae", ""))
    if decoding is None:
        raise ValueError(
            "quantized_vae has stored no decoder, which this recipe needs: materialize quantized_vae again"
        )
    return decoding


def _soft_labels(task: Task) -> tuple[Levels, dict[str, Any]]:
    """Levels of all selected clips by a teacher trained on all train clips, and its figures; none unless asked for."""
    if not task.config["soft_labels"]:
        return None, {}
    clips = [task.open("raw_clips", name).read("train") for name in task.class_names]
    labels = np.repeat(np.arange(len(clips)), [len(of_class) for of_class in clips])
    protocol = named_protocol("quick", len(labels), epochs=task.config["teacher_epochs"])
    with tqdm(desc="teacher", unit="update", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        teacher = train_teacher(
            np.concatenate(clips),
            labels,
            num_classes=len(clips),
            protocol=protocol,
            seed=task.config["teacher_seed"],
            device=find_device(task.device),
            progress=show,
        )
    levels, agree = {}, []
    for label, (name, of_class) in enumerate(zip(task.class_names, clips, strict=True)):
        kept = of_class[task.open("dpp_subsets", name).read("items")]
        levels[name] = quantize(teacher.label(kept, temperature=task.config["temperature"]))
        agree += list(levels[name].argmax(axis=1) == label)
    return levels, {"teacher_agrees": float(np.mean(agree))}


def _build(
    task: Task, decoder: Decoding, levels: Levels, classes: Mapping[str, CodedClips], shared: SharedBasis | None = None
) -> ReleaseParts:
    name, shape = task.dataset.name, task.dataset.shape
    parts = ReleaseParts(name, shape, classes, decoder.spec, decoder.weights, _provenance(task), decoder.scheme)
    return replace(parts, encoder=decoder.encoder, shared=shared, soft_labels=levels)


def _fill_paper(task: Task, allowed: int, levels: Levels) -> _Filled:
    """The one coding that the recipe fixes: it is written as it is, and the budget check judges it."""
    classes = {name: class_stores.read_coded(task.open("hosvd_cores", name)) for name in task.class_names}
    return _Filled(_build(task, _read_decoder(task), levels, classes), {"step": 0.0})


def _fill_tight(task: Task, allowed: int, levels: Levels) -> _Filled:
    sources = {}
    for name in task.class_names:
        cores = task.open("hosvd_cores", name)
        figures = cores.commit.metrics
        rates = {row["step"]: row["bytes"] for row in figures["rates"]}
        sources[name] = Source(functools.partial(class_stores.read_hosvd, cores), figures["num_clips"], rates)
    with tqdm(desc="release", bar_format="{desc}: {postfix} [{elapsed}]", disable=not sys.stderr.isatty()) as bar:
        parts, fit = fill_with_latents(
            sources,
            functools.partial(_build, task, _read_decoder(task), levels),
            allowed=allowed,
            coarsest=task.config["coarsest_step"],
            progress=bar.set_postfix_str,
        )
    return _Filled(parts, {"step": fit.step, "clip_share": fit.share, "finest_kept": fit.step <= FINEST_STEP})


def _fill_codec(task: Task, allowed: int, levels: Levels) -> _Filled:
    ladders = {name: class_stores.read_videos(task.open("hosvd_cores", name)) for name in task.class_names}
    provenance = _provenance(task)

    def build(classes: Mapping[str, CodedClips], _shared: SharedBasis | None) -> ReleaseParts:
        parts = ReleaseParts(task.dataset.name, task.dataset.shape, classes, None, None, provenance)
        return replace(parts, soft_labels=levels)

    parts = fill_with_videos(ladders, build, allowed=allowed)
    kept = sum(coded.num_clips for coded in parts.classes.values())
    finest = {name: ladder.keep([0] * ladder.num_clips) for name, ladder in ladders.items()}
    figures = {
        "clip_share": kept / sum(ladder.num_clips for ladder in ladders.values()),
        "finest_kept": all(parts.classes[name] == videos for name, videos in finest.items()),
    }
    return _Filled(parts, figures)


def _fill_auto(task: Task, allowed: int, levels: Levels) -> _Filled:
    """Latents or video, whichever keeps more of what a network sees of the clips; video alone where only that fits."""
    tried: dict[str, _Filled] = {}
    errors = []
    for name, fill in (("latents", _fill_tight), ("video", _fill_codec)):
        try:
            tried[name] = fill(task, allowed, levels)
        except BudgetError as error:
            errors.append(f"as {name}: {error}")
    if not tried:
        raise BudgetError("; ".join(errors))
    kept = _signal_kept(task, {name: filled.parts for name, filled in tried.items()})
    best = max(kept, key=kept.__getitem__)
    figures = {"picked": best, "signal_kept": kept, "not_possible": errors}
    return _Filled(tried[best].parts, tried[best].figures | figures)


def _signal_kept(task: Task, candidates: Mapping[str, ReleaseParts]) -> dict[str, float]:
    """Share of the kept clips' signal in each candidate; 1.0 for a candidate that has no rival."""
    if len(candidates) == 1:
        return dict.fromkeys(candidates, 1.0)
    items = {name: task.open("dpp_subsets", name).read("items") for name in task.class_names}
    judged = judged_positions({name: len(kept) for name, kept in items.items()})
    originals = np.concatenate(
        [task.open("raw_clips", name).read("train", items[name][judged[name]]) for name in task.class_names]
    )
    labels = np.repeat(np.arange(len(judged)), [len(positions) for positions in judged.values()])
    judge = train_judge(originals, labels, num_classes=len(judged), device=find_device(task.device))
    with tempfile.TemporaryDirectory() as folder:
        kept = {}
        for name, parts in candidates.items():
            path = Path(folder) / name
            path.write_bytes(pack(parts))
            dataset = load_release(path, trusted_classes=own_classes(task.dataset.vae)).dataset()
            counts = {name: coded.num_clips for name, coded in parts.classes.items()}
            kept[name] = judge.signal_kept(originals, *decode_judged(dataset, counts, judged))
    return kept


_FILL: Mapping[str, Callable[[Task, int, Levels], _Filled]] = {
    "paper": _fill_paper,
    "tight": _fill_tight,
    "codec": _fill_codec,
    "auto": _fill_auto,
}


def make_release(task: Task) -> None:
    """Fills the budget from a dataset's stores and stores the file, with its ledger and pictures.

    Raises:
        BudgetError: nothing fits.
        ValueError: something that the recipe needs is not stored.
    """
    allowed = allowed_bytes(task.dataset.budget, num_classes=len(task.class_names), shape=task.dataset.shape)
    levels, teacher = _soft_labels(task)
    filled = _FILL[task.dataset.recipe](task, allowed, levels)
    data = pack(filled.parts)
    name = f"{task.dataset.name}{SUFFIX}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        # Read back as a stranger would, before it replaces anything.
        release = load_release(path, trusted_classes=own_classes(task.dataset.vae))
        ledger = read_ledger(path)
    metrics = {
        "file": str(FileStore(task.data_root, task.step).path(name)),
        "stored_bytes": len(data),
        "allowed_bytes": allowed,
        "used_share": len(data) / allowed,
        "num_clips": release.num_clips,
        **filled.figures,
        **teacher,
        "verdict": _verdict(task, len(data), allowed, filled),
        "ledger": [{str(key): value for key, value in row.items()} for row in ledger.table().to_dict("records")],
    }
    files = {name: data, **_plots(task.dataset.name, ledger, allowed)}
    FileStore(task.data_root, task.step).write(task.key, files=files, metrics=metrics, **task.commit_arguments())


def _plots(name: str, ledger: Ledger, allowed: int) -> dict[str, bytes]:
    """Pictures of the ledger, for the asset's page; they lie in a folder beside the release."""
    parts: Counter[str] = Counter()
    for line in ledger.lines:
        parts[line.part] += line.num_bytes
    return {
        f"{name}/ledger.png": ledger_png(parts, allowed),
        f"{name}/classes.png": class_bytes_png(ledger.by_class(), allowed),
    }


def _verdict(task: Task, num_bytes: int, allowed: int, filled: _Filled) -> str:
    text = f"{format_bytes(num_bytes)} of {format_bytes(allowed)} allowed"
    if "picked" in filled.figures:
        text += f", kept as {filled.figures['picked']}"
    if filled.figures.get("finest_kept"):
        marks = [task.open("dpp_subsets", name).commit.metrics for name in task.class_names]
        if any(mark["num_wanted"] < mark["num_clips"] for mark in marks):
            selected, clips = (sum(mark[count] for mark in marks) for count in ("num_selected", "num_clips"))
            return (
                f"{text}: the {selected} selected clips are kept as finely as the recipe has them. For more of the "
                f"{clips} train clips raise clips_per_class"
            )
        return f"{text}: all clips are kept as finely as the recipe has them, a larger budget buys nothing"
    share = filled.figures.get("clip_share", 1.0)
    return text if share == 1 else f"{text}: room for {share:.0%} of the clips"

"""`eval_report`: what the release is worth, by training on it, on all data, and on the same bytes kept as plain
video."""

import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import numpy as np
import torch
from pydantic import Field
from torch.utils.data import TensorDataset
from tqdm import tqdm

from lvdd_assets.distill import codec, evaluation, report
from lvdd_assets.distill.architectures import NETWORKS
from lvdd_assets.distill.budget import allowed_bytes, judge_release
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.class_coding import CodedClass
from lvdd_assets.distill.devices import find_device
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.protocols import AUGMENTATIONS, Protocol, named_protocol
from lvdd_assets.distill.release import SUFFIX, Release, load_release, read_ledger
from lvdd_assets.distill.stores import FileStore
from lvdd_assets.distill.vae_folders import own_classes
from lvdd_assets.incremental import Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_DATASET, CLASS_TO_DATASET

_NUM_PREVIEWS = 4
_FULL, _RELEASE = "full data", "this release"


class EvalReportConfig(dg.Config):
    """How the judges are trained. All rows of the comparison get the same number of updates."""

    protocol: Literal["quick", "literature"] = Field(
        default="quick",
        description=(
            "quick: one cycle of the learning rate, 12 epochs of the full data or 150 updates if that is more. "
            "literature: 500 epochs in batches of 256 and five seeds, as the papers train. What is given below "
            "changes it."
        ),
    )
    network: str = Field(default="convnet3d", description=f"The network that is trained: {', '.join(NETWORKS)}.")
    epochs: int | None = Field(
        default=None, ge=1, description="Passes over the full data; every row gets as many updates."
    )
    batch_size: int | None = Field(default=None, ge=1, description="Clips per update.")
    learning_rate: float | None = Field(default=None, gt=0, description="The largest of the schedule.")
    augmentation: list[str] | None = Field(
        default=None,
        description=(
            f"What is done to clips at random: {', '.join(AUGMENTATIONS)}. Leave flip off where left and right are "
            "different classes."
        ),
    )
    counting: Literal["equal", "epochs"] = Field(
        default="equal",
        description="equal: every row gets as many updates as the largest set; epochs: as the literature counts.",
    )
    seeds: list[int] | None = Field(default=None, description="One network is trained for each seed and row.")
    video_codec: Literal["best", "av1", "h264"] = Field(
        default="best",
        description=(
            "Codec of the plain competitor, which gets as many bytes as the release file; best is the one that "
            "keeps more clips, and of two that keep all, the one with the higher PSNR."
        ),
    )


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {}


def _protocol(config: Mapping[str, Any], num_clips: int) -> Protocol:
    changes = {name: config[name] for name in ("network", "epochs", "batch_size", "learning_rate", "counting")}
    for name in ("augmentation", "seeds"):
        changes[name] = None if config[name] is None else tuple(config[name])
    return named_protocol(config["protocol"], num_clips, **changes)


def _refuse_over_budget(task: Task, path: Path) -> int:
    """The allowance; a release that breaks its promise is not worth the hours of evaluating it."""
    allowed = allowed_bytes(task.dataset.budget, num_classes=len(task.class_names), shape=task.dataset.shape)
    verdict = judge_release(
        read_ledger(path), file_bytes=path.stat().st_size, allowed=allowed, expected_classes=task.class_names
    )
    if not verdict.passed:
        raise ValueError(
            f"release {task.dataset.name} is not evaluated: {'; '.join(verdict.reasons)}. "
            "Raise its budget in the registry, or choose a recipe or ranks that take less, and materialize release "
            "again"
        )
    return allowed


def _read_split(task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All clips of a split, uint8 [N, T, C, H, W], and their labels, int64 [N]."""
    clips, labels = [], []
    for label, class_name in enumerate(task.class_names):
        partition = task.open("raw_clips", class_name)
        if partition.num_rows(split) == 0:
            raise ValueError(
                f"class {class_name!r} has no usable {split} clip, so accuracy cannot be measured: add one or mend "
                "the split"
            )
        clips.append(partition.read(split))
        labels.append(np.full(len(clips[-1]), label, dtype=np.int64))
    return np.concatenate(clips), np.concatenate(labels)


def _as_dataset(clips: np.ndarray, labels: np.ndarray) -> TensorDataset:
    return TensorDataset(torch.from_numpy(clips), torch.from_numpy(labels))


def _plain_video(
    clips: np.ndarray, labels: np.ndarray, num_bytes: int, choice: Literal["best", "av1", "h264"]
) -> tuple[codec.KeptVideos, str]:
    """What an engineer would keep in the same bytes, and the name of the codec."""
    names: dict[Literal["av1", "h264"], str] = {"av1": "AV1", "h264": "H.264"}
    tried = [
        (codec.fill_budget(clips, labels, num_bytes=num_bytes, codec=key, seed=0), name)
        for key, name in names.items()
        if choice in (key, "best")
    ]
    if len(tried) == 1:
        return tried[0]

    def quality(item: tuple[codec.KeptVideos, str]) -> tuple[int, float]:
        kept = item[0]
        return kept.num_clips, psnr(clips, kept.clips_NTCHW) if kept.num_clips == len(clips) else 0.0

    return max(tried, key=quality)


def _compute(task: Task) -> None:
    path = FileStore(task.data_root, "release").path(f"{task.dataset.name}{SUFFIX}")
    allowed = _refuse_over_budget(task, path)
    release = load_release(path, trusted_classes=own_classes(task.dataset.vae))
    train_clips, train_labels = _read_split(task, "train")
    test = _as_dataset(*_read_split(task, "test"))
    videos, codec_name = _plain_video(train_clips, train_labels, release.stored_bytes, task.config["video_codec"])
    video_row = f"the same bytes as {codec_name}"
    rows = {
        _FULL: _as_dataset(train_clips, train_labels),
        _RELEASE: release.dataset(),
        video_row: _as_dataset(videos.clips_NTCHW, videos.labels_N),
    }
    protocol = _protocol(task.config, len(train_clips))
    bar = tqdm(desc="eval_report", unit="update", disable=not sys.stderr.isatty(), leave=False)

    def progress(step: int, total: int) -> None:
        bar.total = total
        bar.update(step - bar.n)

    with bar:
        results = evaluation.compare(
            rows,
            test,
            num_classes=release.num_classes,
            protocol=protocol,
            progress=progress,
            device=find_device(task.device),
            class_names=release.class_names,
        )
    file_bytes = sum(task.open("raw_clips", name).commit.metrics["train_file_bytes"] for name in task.class_names)
    notes = {
        _FULL: (file_bytes, "full", "video files as they are"),
        _RELEASE: (release.stored_bytes, "release", "the file on disk, decoder included"),
        video_row: (videos.stored_bytes, "video", f"packets only, crf {videos.crf}"),
    }
    data = report.ReportData(
        dataset=task.dataset.name,
        class_names=release.class_names,
        rows=tuple(report.ReportRow(row, *notes[row.name]) for row in results),  # type: ignore[arg-type]
        allowed_bytes=allowed,
        ledger=release.ledger,
        settings=_shown_settings(task, release, protocol),
        provenance=release.provenance,
        versions=_versions(),
        sheets=(_original_against_decoded(task, release),),
    )
    _store(task, data)


def _shown_settings(task: Task, release: Release, protocol: Protocol) -> dict[str, object]:
    shape = task.dataset.shape
    return {
        "clip": f"{shape.frames} frames, stride {shape.stride}, {shape.size}×{shape.size}",
        "recipe": task.dataset.recipe,
        "autoencoder": release.provenance.get("vae", ""),
        "quantiser step": _step(release),
        **task.config,
        **asdict(protocol),
    }


def _step(release: Release) -> object:
    steps = {coded.step for coded in release.coded if isinstance(coded, CodedClass)}
    return steps.pop() if len(steps) == 1 else "none: video" if not steps else f"{min(steps):g} to {max(steps):g}"


def _versions() -> dict[str, object]:
    packages = {name: version(name) for name in ("lvdd-assets", "dagster", "torch", "diffusers", "zarr")}
    return {"python": platform.python_version(), **packages, "cores": torch.get_num_threads()}


def _original_against_decoded(task: Task, release: Release) -> report.Sheet:
    """The first clip of some classes, and what the release gives back for it (the indices are upstream of the
    release)."""
    originals, decoded = [], []
    dataset = release.dataset()
    for label, class_name in enumerate(release.class_names[:_NUM_PREVIEWS]):
        items = task.open("dpp_subsets", class_name).read("items")
        originals.append(task.open("raw_clips", class_name).read("train", items[:1])[0])
        position = int(np.flatnonzero(release.labels == label)[0])
        decoded.append(dataset[position][0].numpy())
    names = ", ".join(release.class_names[:_NUM_PREVIEWS])
    return report.Sheet(
        report.pair_sheet(np.stack(originals), np.stack(decoded)),
        f"Original clip and, below it, the release's: {names}",
    )


def _store(task: Task, data: report.ReportData) -> None:
    name = task.dataset.name
    with tempfile.TemporaryDirectory() as folder:
        written = report.write_report(Path(folder), data)
        files = {f"{name}/{path.name}": path.read_bytes() for path in written}
    files[f"{name}/preview.png"] = data.sheets[0].png
    store = FileStore(task.data_root, task.step)
    metrics = {
        "report": str(store.path(f"{name}/report.html")),
        "verdict": report.verdict(data),
        "num_test_clips": data.num_test_clips,
        "top1_full": data.full.result.mean_top1,
        "top1_release": data.release.result.mean_top1,
        "scores": report.scores_table(data).to_dict("records"),
        "summary": report.summary_table(data),
    }
    store.write(task.key, files=files, metrics=metrics, **task.commit_arguments())


STEP = Step(
    name="eval_report",
    by="dataset",
    compute=_compute,
    settings=_settings,
    defaults=EvalReportConfig().model_dump(),
    upstream=("raw_clips", "release"),
    modules=(
        "lvdd_assets.distill.networks",
        "lvdd_assets.distill.architectures",
        "lvdd_assets.distill.protocols",
        "lvdd_assets.distill.training",
        "lvdd_assets.distill.evaluation",
        "lvdd_assets.distill.codec",
        "lvdd_assets.distill.report",
        __name__,
    ),
    files=True,
)


@dg.asset(
    deps=[
        dg.AssetDep("raw_clips", partition_mapping=CLASS_TO_DATASET),
        "release",
    ],
    partitions_def=BY_DATASET,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"torch", "html"},
    code_version=STEP.code_version,
    description=(
        "report.html and scores.csv: top-1 and top-5 of ConvNet3D trained from scratch on all train clips, on the "
        "release file as its loader gives it, and on the same bytes kept as plain video, with equal numbers of "
        "updates."
    ),
)
def eval_report(
    context: dg.AssetExecutionContext, config: EvalReportConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

"""`eval_report`: what the release is worth, by training on it, on all data, and on the same bytes kept otherwise."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from lvdd_assets import distill
from lvdd_assets.distill.budget import allowed_bytes, judge_release
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.file_stores import FileStore
from lvdd_assets.distill.protocols import AUGMENTATIONS, NETWORKS
from lvdd_assets.distill.vae_folders import own_classes
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_DATASET, CLASS_TO_DATASET
from lvdd_assets.steps import Step, Task

if TYPE_CHECKING:
    from lvdd_assets.distill.report_data import ReportData

# With the modules, what decides how a report looks.
_TEMPLATES = tuple(sorted((Path(distill.__file__).parent / "templates").iterdir()))


class EvalReportConfig(StepConfig):
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
    rivals: list[str] = Field(
        default=["video", "paper"],
        description=(
            "What the release is compared with, in as many bytes: video (AV1 or H.264, whichever keeps more), "
            "paper, tight, codec (recipes), and random, herding, k-center, k-means (real clips, each kept as float32, "
            "uint8, H.264 and AV1). What does not fit is said, and costs nothing."
        ),
    )
    curve: list[str] = Field(
        default=[],
        description=(
            "Sizes, e.g. 50kB, 200kB, 1MB, at which recipes tight, codec and paper are trained on as well, and video "
            "where it is a rival."
        ),
    )


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {}


def _refuse_over_budget(task: Task, path: Path) -> int:
    """The allowance; a release that breaks its promise is not worth the hours of evaluating it."""
    from lvdd_assets.distill.release import read_ledger

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


def _compute(task: Task) -> None:
    from lvdd_assets.distill.devices import find_device
    from lvdd_assets.distill.release import SUFFIX, load_release
    from lvdd_assets.evaluating import Site, evaluate_release

    path = task.open_files("release").fetch(task.key, f"{task.dataset.name}{SUFFIX}")
    allowed = _refuse_over_budget(task, path)
    release = load_release(path, trusted_classes=own_classes(task.dataset.vae))
    site = Site(
        task.dataset,
        task.class_names,
        lambda step, class_name: task.open(step, class_name),
        task.data_root,
        find_device(task.device),
    )
    _store(task, evaluate_release(site, release, task.config, allowed=allowed, own=True))


def _store(task: Task, data: "ReportData") -> None:
    from lvdd_assets.distill import report

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
    defaults=EvalReportConfig.defaults(),
    upstream=("raw_clips", "latents", "dpp_subsets", "quantized_vae", "release"),
    module=__name__,
    templates=_TEMPLATES,
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
        "report.html and scores.csv: top-1 and top-5 of a network trained from scratch on all train clips, on the "
        "release file as its loader gives it, and on the same bytes kept as plain video, by the paper's recipe or as "
        "chosen clips, with equal numbers of updates; with a list of sizes, accuracy along them."
    ),
)
def eval_report(
    context: dg.AssetExecutionContext, config: EvalReportConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

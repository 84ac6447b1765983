"""`release`: everything that a stranger needs to train, in one file within the budget."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from lvdd_assets.distill.budget import COARSEST_STEP
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.protocols import SOFT_LABEL_TEMPERATURE
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_DATASET, CLASS_TO_DATASET
from lvdd_assets.steps import Step, Task


class ReleaseConfig(StepConfig):
    """How the budget is spent; how large it is stands in the registry."""

    coarsest_step: float = Field(
        default=COARSEST_STEP,
        gt=0,
        description=(
            "Recipe tight: quantiser step, in units of the latents' scale (about 1), beyond which clips are left out "
            "rather than coded still coarser."
        ),
    )
    soft_labels: bool = Field(
        default=False,
        description=(
            "Also keep, for each clip, the probabilities of all classes by a teacher that is trained on all train "
            "clips. They take up to one byte a clip and class out of the budget, as labels."
        ),
    )
    temperature: float = Field(
        default=SOFT_LABEL_TEMPERATURE,
        gt=0,
        description="Soft labels: the teacher's logits are divided by it; above 1 unlikely classes get more.",
    )
    teacher_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Soft labels: the teacher's passes over the train clips. Unset: the quick protocol's.",
    )
    teacher_seed: int = Field(default=0, ge=0, description="Soft labels: seed of the teacher's training.")


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    budget = {"ipc": spec.budget.ipc, "bytes": spec.budget.num_bytes}
    shape = spec.shape
    about = {} if spec.license is None else {"license": spec.license}  # who names none need not compute anew
    return {"budget": budget, "frames": shape.frames, "stride": shape.stride, "size": shape.size, **about}


def _compute(task: Task) -> None:
    from lvdd_assets.releasing import make_release

    make_release(task)


STEP = Step(
    name="release",
    by="dataset",
    compute=_compute,
    settings=_settings,
    defaults=ReleaseConfig.defaults(),
    upstream=("hosvd_cores", "quantized_vae"),
    module=__name__,
    files=True,
)


@dg.asset(
    deps=[dg.AssetDep("hosvd_cores", partition_mapping=CLASS_TO_DATASET), "quantized_vae"],
    partitions_def=BY_DATASET,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"zarr"},
    code_version=STEP.code_version,
    description=(
        "The distilled dataset: one zip that plain zarr opens, with the decoder, the coded clips of every class, "
        "labels, class names and provenance. Its size on disk is what the budget counts; the ledger says what each "
        "byte is for. All classes are cut at one step, the finest that fits."
    ),
)
def release(
    context: dg.AssetExecutionContext, config: ReleaseConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

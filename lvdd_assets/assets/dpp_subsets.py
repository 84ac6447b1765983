"""`dpp_subsets`: which clips of a class are kept, drawn by a k-DPP over the latents."""

import hashlib
from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
from pydantic import Field

from lvdd_assets.distill import dpp, paper
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.report import contact_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_CLASS

_NUM_PREVIEWS = 4
_NUM_UNIFORM_DRAWS = 20


class DppSubsetsConfig(dg.Config):
    """How clips are chosen."""

    kernel: str = Field(
        default="rbf",
        description=f"Similarity of two clips: {', '.join(dpp.KERNELS)}. rbf takes its bandwidth from the data.",
    )
    clips_per_class: int | None = Field(
        default=None,
        description=(
            "Clips kept per class. Unset: the registry's clips_per_class; unset there too: "
            f"{paper.RELEASED_IPC1_CLIPS_PER_CLASS}, or the whole class where it has fewer."
        ),
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw; each class derives its own from it.")


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"clips_per_class": spec.clips_per_class}


def _clips_to_keep(task: Task, num_clips: int) -> int:
    asked = task.config["clips_per_class"] or task.dataset.clips_per_class
    if asked is None:
        return min(paper.RELEASED_IPC1_CLIPS_PER_CLASS, num_clips)
    if asked > num_clips:
        raise ValueError(
            f"class {task.class_name!r} has {num_clips} usable train clips, clips_per_class asks for {asked}: "
            "lower it in the registry or the run config, or add clips"
        )
    return int(asked)


def _class_seed(seed: int, class_name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {class_name}".encode()).digest()[:8], "big")


def _compute(task: Task) -> None:
    latents = task.open("latents").read("latents")
    # For names and pictures only; what latents were made from is upstream of them, and fresh whenever they are.
    clips = task.open("raw_clips")
    k = _clips_to_keep(task, len(latents))
    kernel = dpp.build_kernel(latents.reshape(len(latents), -1), kind=task.config["kernel"])
    seed = _class_seed(task.config["seed"], task.class_name)
    items = dpp.order_by_gain(kernel, dpp.sample(kernel, k, seed=seed))
    uniform = dpp.uniform_log_dets(kernel, k, num_draws=_NUM_UNIFORM_DRAWS, seed=seed)
    names = [row["file"] for row in clips.read_json("files")["train"]]
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("items", items)
        shown = clips.read("train", np.sort(items[:_NUM_PREVIEWS]))
        out.put("preview", np.frombuffer(contact_sheet(shown), dtype=np.uint8))
        out.metrics = {
            "num_selected": k,
            "num_clips": len(latents),
            "log_det": dpp.log_det(kernel, items),
            "log_det_uniform_mean": float(np.mean(uniform)),
            "log_det_uniform_max": float(np.max(uniform)),
            "bandwidth": kernel.bandwidth,
            "max_off_diagonal": kernel.max_off_diagonal,
            "selected": [names[item] for item in items],
        }


STEP = Step(
    name="dpp_subsets",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=DppSubsetsConfig().model_dump(),
    upstream=("latents",),
    modules=("lvdd_assets.distill.dpp", __name__),
)


@dg.asset(
    deps=["latents"],
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"numpy"},
    code_version=STEP.code_version,
    description=(
        "Indices of the train clips that are kept for a class, int64 [k]: one exact k-DPP draw over the flattened "
        "latents, ordered so that every prefix is diverse. log_det stands beside 20 uniform draws of the same size."
    ),
)
def dpp_subsets(
    context: dg.AssetExecutionContext, config: DppSubsetsConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

"""`dpp_subsets`: which clips of a class are kept, by default drawn by a k-DPP over the latents."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
from pydantic import Field

from lvdd_assets.distill import dpp, features, kernels, paper, selection
from lvdd_assets.distill.asset_plots import projection_png
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.report_pictures import contact_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_CLASS
from lvdd_assets.steps import Step, Task

_NUM_PREVIEWS = 4


class DppSubsetsConfig(StepConfig):
    """How clips are chosen."""

    method: str = Field(default="k-dpp", description=f"How clips are chosen: {', '.join(selection.METHODS)}.")
    kernel: str = Field(
        default="rbf",
        description=(
            f"Similarity of two clips: {', '.join(kernels.KERNELS)}. rbf takes its bandwidth from the data; exp is the "
            "released code's, which is the identity on real latents."
        ),
    )
    features: str = Field(
        default="flat",
        description=f"What of the latents is compared: {', '.join(features.FEATURES)} (averages over time and space, "
        "or a Gaussian random projection).",
    )
    feature_dim: int = Field(
        default=512, ge=1, description="Dimensions of projected features; pooled ones have at most so many."
    )
    quality: float = Field(
        default=0.0,
        ge=0.0,
        description="How much nearness to the class's mean counts beside diversity (k-dpp, map). 0 is off.",
    )
    clips_per_class: int | None = Field(
        default=None,
        description=(
            "Clips kept per class. Unset: the registry's clips_per_class, which may be all; unset there too: "
            f"{selection.DEFAULT_CLIPS} (recipe paper: {paper.RELEASED_IPC1_CLIPS_PER_CLASS}), or the whole class "
            "where it has fewer."
        ),
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw; each class derives its own from it.")


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"clips_per_class": spec.clips_per_class or f"at most {selection.default_clips(spec.recipe)}"}


def _select(task: Task, latents: np.ndarray, wanted: int, *, exactly: bool) -> selection.Selection:
    """As many clips as wanted, or an error; but copies of a clip, which add nothing to a k-DPP, are left out where not
    exactly so many were asked for."""
    if wanted > len(latents):
        raise ValueError(
            f"class {task.class_name!r} has {len(latents)} usable train clips, clips_per_class asks for {wanted}: "
            "lower it in the registry or the run config, or add clips"
        )
    select = functools.partial(
        selection.select, latents, rules=_rules(task.config), seed=_class_seed(task.config["seed"], task.class_name)
    )
    try:
        return select(wanted)
    except dpp.RankError as error:
        if exactly or error.rank == 0:
            raise
        return select(error.rank)


def _class_seed(seed: int, class_name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {class_name}".encode()).digest()[:8], "big")


def _rules(config: Mapping[str, Any]) -> selection.Rules:
    # One projection for all classes: the run's seed, not the class's.
    names = ("method", "kernel", "features", "feature_dim", "quality")
    return selection.Rules(**{name: config[name] for name in names}, projection_seed=config["seed"])


def _compute(task: Task) -> None:
    latents = task.open("latents").read("latents")
    clips = task.open("raw_clips")
    asked = task.config["clips_per_class"] or task.dataset.clips_per_class
    wanted = selection.clips_wanted(asked, recipe=task.dataset.recipe, num_clips=len(latents))
    chosen = _select(task, latents, wanted, exactly=isinstance(asked, int))
    names = [row["file"] for row in clips.read_json("files")["train"]]
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("items", chosen.items)
        shown = clips.read("train", np.sort(chosen.items[:_NUM_PREVIEWS]))
        out.put("preview", np.frombuffer(contact_sheet(shown), dtype=np.uint8))
        out.put("projection", np.frombuffer(projection_png(latents, chosen.items), dtype=np.uint8))
        counts = {"num_selected": len(chosen.items), "num_wanted": wanted, "num_clips": len(latents)}
        out.metrics = counts | chosen.metrics()
        if len(chosen.items) < wanted:
            left_out = (
                f"{len(latents) - len(chosen.items)} of {len(latents)} clips add nothing to the others, as copies do, "
                "and are left out."
            )
            out.metrics["warning"] = " ".join([left_out, *chosen.warnings()])
        out.metrics["selected"] = [names[item] for item in chosen.items]


STEP = Step(
    name="dpp_subsets",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=DppSubsetsConfig.defaults(),
    upstream=("raw_clips", "latents"),
    module=__name__,
)


@dg.asset(
    deps=["latents"],
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"numpy"},
    code_version=STEP.code_version,
    description=(
        "Indices of the train clips that are kept for a class, int64 [k], in an order of which every prefix is a "
        "subset by itself. By default one exact k-DPP draw over the flattened latents, ordered by gain. log det, "
        "distances within the subset and coverage of the class stand beside 20 uniform draws of the same size."
    ),
)
def dpp_subsets(
    context: dg.AssetExecutionContext, config: DppSubsetsConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

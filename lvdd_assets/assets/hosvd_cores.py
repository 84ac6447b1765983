"""`hosvd_cores`: the kept latents of a class as HOSVD cores and factors, coded at a ladder of sizes."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
from pydantic import Field

from lvdd_assets.distill import coding, paper, tucker
from lvdd_assets.distill.budget import build_ladder
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.fidelity import psnr, snr
from lvdd_assets.distill.report import pair_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import load_autoencoder
from lvdd_assets.incremental import Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_CLASS

_NUM_PREVIEWS = 3


class HosvdCoresConfig(dg.Config):
    """How latents are decomposed and coded."""

    rank_ratio: float = Field(
        default=paper.RANK_RATIO,
        description="Recipe paper: share of each mode (T, h, w) that is kept, in (0, 1].",
    )
    ranks: list[int] | None = Field(
        default=None, description="Ranks of the modes T, C, h, w; unset: full (tight) or by rank_ratio (paper)."
    )
    hooi_iterations: int = Field(
        default=0, ge=0, description="Rounds of HOOI after the HOSVD; the paper's released code allows 100."
    )
    finest_step: float = Field(
        default=0.125,
        gt=0,
        description="Recipe tight: smallest quantiser step, in units of the latents' scale (about 1).",
    )
    coarsest_step: float = Field(
        default=4.0, gt=0, description="Recipe tight: largest quantiser step; beyond it, fewer clips are kept."
    )
    steps_per_octave: int = Field(default=4, ge=1, description="Recipe tight: steps from one size to its double.")


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"recipe": spec.recipe}


def _code_class(latents_NTChw: np.ndarray, recipe: str, config: Mapping[str, Any]) -> list[coding.CodedClass]:
    """The class's ladder: one rung of raw float32 for `paper`, falling sizes for `tight`."""
    ranks = tuple(config["ranks"]) if config["ranks"] else None
    if recipe == "paper":
        ranks = ranks or tucker.ranks_from_ratio(latents_NTChw.shape[1:], config["rank_ratio"])
        result = tucker.decompose(latents_NTChw, ranks=ranks, num_iterations=config["hooi_iterations"])
        return [coding.encode(result.core, result.factors, codec="tucker-f32")]
    result = tucker.decompose(latents_NTChw, ranks=ranks, num_iterations=config["hooi_iterations"])
    factors = tuple(factor.astype(np.float16).astype(np.float32) for factor in result.factors)
    core = tucker.project(latents_NTChw, factors)  # on the factors as the reader will have them
    rungs = build_ladder(
        len(core),
        finest=config["finest_step"],
        coarsest=config["coarsest_step"],
        steps_per_octave=config["steps_per_octave"],
    )
    return [coding.encode(core[: rung.num_clips], factors, codec="hosvd-lzma", step=rung.step) for rung in rungs]


def _compute(task: Task) -> None:
    items = task.open("dpp_subsets").read("items")
    latents = task.open("latents").read("latents")[items].astype(np.float32)
    ladder = _code_class(latents, task.dataset.recipe, task.config)
    data, table = coding.pack_ladder(ladder)
    for row, coded in zip(table, ladder, strict=True):
        row["latent_snr_db"] = snr(latents[: coded.num_clips], _decode(coded))
    shown = coding.middle_rung(ladder)
    # For the picture only; raw_clips is upstream of latents, and fresh whenever they are.
    originals = task.open("raw_clips").read("train", items[:_NUM_PREVIEWS])
    vae = load_autoencoder(task.dataset.vae, base=task.dataset.base)
    decoded = vae.decode(_decode(shown)[:_NUM_PREVIEWS], num_frames=task.dataset.shape.frames)
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("ladder", data)
        out.put("preview", np.frombuffer(pair_sheet(originals[: len(decoded)], decoded), dtype=np.uint8))
        out.metrics = {
            "num_clips": len(items),
            "largest_bytes": table[0]["bytes"],
            "smallest_bytes": table[-1]["bytes"],
            "preview_bytes": len(shown.data),
            "preview_step": shown.step,
            "psnr_db": psnr(originals[: len(decoded)], decoded),
            "ladder": table,
        }


def _decode(coded: coding.CodedClass) -> np.ndarray:
    return tucker.reconstruct(tucker.TuckerTensor(*coding.decode(coded)))


STEP = Step(
    name="hosvd_cores",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=HosvdCoresConfig().model_dump(),
    upstream=("latents", "dpp_subsets"),
    modules=("lvdd_assets.distill.tucker", "lvdd_assets.distill.coding", __name__),
)


@dg.asset(
    deps=["latents", "dpp_subsets"],
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"tensorly", "zarr"},
    code_version=STEP.code_version,
    description=(
        "The kept latents of a class as HOSVD core and orthonormal factors, coded at a ladder of falling sizes (recipe "
        "tight: one quantiser step a rung, LZMA) or once as float32 (recipe paper). release picks one rung for all "
        "classes, so a changed budget recodes no class. The preview decodes a middle rung."
    ),
)
def hosvd_cores(
    context: dg.AssetExecutionContext, config: HosvdCoresConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

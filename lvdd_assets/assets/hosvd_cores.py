"""`hosvd_cores`: the kept clips of a class, as HOSVD core and factors or as video, and what they take at each rate."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
import numpy as np
from pydantic import Field

from lvdd_assets.distill import class_coding, paper, tucker, video_ladders
from lvdd_assets.distill.asset_plots import spectrum_png
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.class_coding import TRIAL_STEPS, ClassCoder, CodedClass
from lvdd_assets.distill.class_stores import keep_coded, keep_hosvd, keep_videos
from lvdd_assets.distill.fidelity import psnr, snr
from lvdd_assets.distill.report_pictures import pair_sheet
from lvdd_assets.distill.stores import Writer, ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_CLASS
from lvdd_assets.steps import Step, Task

_NUM_PREVIEWS = 3
_PREVIEW_STEP = 1.0  # near the latents' own scale


class HosvdCoresConfig(StepConfig):
    """How latents are decomposed. Recipe tight has nothing to choose: it keeps the whole basis."""

    rank_ratio: float = Field(
        default=paper.RANK_RATIO,
        description="Recipe paper: share of each mode (T, h, w) that is kept, in (0, 1].",
    )
    ranks: list[int] | None = Field(
        default=None, description="Recipe paper: ranks of the modes T, C, h, w instead of rank_ratio."
    )
    channel_ratio: float | None = Field(
        default=None, description="Recipe paper: share of the channels that is kept; unset: all, as the released code."
    )
    instance_ratio: float | None = Field(
        default=None, description="Recipe paper: share of the mode of the clips that is kept; unset: it has no factor."
    )
    hooi_iterations: int = Field(
        default=0, ge=0, description="Recipe paper: rounds of HOOI after the HOSVD; the released code allows 100."
    )
    video_codec: Literal["av1", "hevc", "h264"] = Field(
        default="av1", description="Recipes codec and auto: in what clips are encoded."
    )
    svd: bool = Field(
        default=False,
        description="Recipe paper: a truncated SVD in as many bytes instead of HOSVD, the paper's ablation.",
    )


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"recipe": spec.recipe}


def _truncate(latents_NTChw: np.ndarray, config: Mapping[str, Any]) -> CodedClass:
    """Core and factors in float32, as the paper keeps them, or its ablation in as many bytes."""
    sizes = latents_NTChw.shape[1:]
    ranks = tuple(config["ranks"] or ()) or tucker.ranks_from_ratio(
        sizes, config["rank_ratio"], channels=config["channel_ratio"]
    )
    ratio = config["instance_ratio"]
    result = tucker.decompose(
        latents_NTChw,
        ranks=ranks,
        num_iterations=config["hooi_iterations"],
        instance_rank=None if ratio is None else tucker.rank_from_ratio(len(latents_NTChw), ratio),
    )
    coded = class_coding.encode_tucker(result)
    if not config["svd"]:
        return coded
    rank = tucker.svd_rank_for_bytes(len(latents_NTChw), sizes, len(coded.data))
    return class_coding.encode_svd(tucker.truncated_svd(latents_NTChw, rank))


def _compute(task: Task) -> None:
    items = task.open("dpp_subsets").read("items")
    clips = task.open("raw_clips")
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.metrics = {"num_clips": len(items)}
        originals = clips.read("train", items[:_NUM_PREVIEWS])
        recipe = task.dataset.recipe
        shown = _keep_videos(task, out, clips.read("train", items)) if recipe in ("codec", "auto") else originals[:0]
        if recipe != "codec":
            from lvdd_assets.distill.vae import load_autoencoder

            vae = load_autoencoder(task.dataset.vae, base=task.dataset.base)
            latents = _keep_latents(task, out, items)[:_NUM_PREVIEWS]
            shown = vae.decode(latents, num_frames=task.dataset.shape.frames)
        out.metrics["psnr_db"] = psnr(originals[: len(shown)], shown)
        out.put("preview", np.frombuffer(pair_sheet(originals[: len(shown)], shown), dtype=np.uint8))


def _keep_latents(task: Task, out: Writer, items: np.ndarray) -> np.ndarray:
    """Stores the class as the recipe has it, with its spectrum; returns latents as they come back, at a middle step
    where there is one."""
    latents = task.open("latents").read("latents")[items].astype(np.float32)
    decoded = _keep_coefficients(task, out, latents)
    spectra = [tucker.singular_values(values) for values in (latents, decoded)]
    out.put("spectrum", np.frombuffer(spectrum_png(*spectra), dtype=np.uint8))
    return decoded


def _keep_coefficients(task: Task, out: Writer, latents: np.ndarray) -> np.ndarray:
    if task.dataset.recipe == "paper":
        coded = _truncate(latents, task.config)
        decoded = class_coding.decode(coded)
        out.metrics |= {"bytes": len(coded.data), "latent_snr_db": snr(latents, decoded)}
        out.metrics["coded"] = keep_coded(out, coded)
        return decoded
    hosvd = tucker.decompose(latents)
    keep_hosvd(out, hosvd)
    coder = ClassCoder(hosvd)
    trials = {step: coder.encode(step) for step in TRIAL_STEPS}
    decoded_at = {step: class_coding.decode(trial) for step, trial in trials.items()}
    out.metrics |= {
        "rates": [
            {"step": step, "bytes": len(trial.data), "latent_snr_db": snr(latents, decoded_at[step])}
            for step, trial in trials.items()
        ],
        "largest_bytes": len(trials[TRIAL_STEPS[0]].data),
        "smallest_bytes": len(trials[TRIAL_STEPS[-1]].data),
        "preview_bytes": len(trials[_PREVIEW_STEP].data),
        "preview_step": _PREVIEW_STEP,
    }
    return decoded_at[_PREVIEW_STEP]


def _keep_videos(task: Task, out: Writer, clips_NTCHW: np.ndarray) -> np.ndarray:
    """Stores the class as video at every rung; returns the first clips as they come back from a middle one."""
    ladder = video_ladders.build_ladder(clips_NTCHW, codec=task.config["video_codec"])
    keep_videos(out, ladder)
    num_values = clips_NTCHW.size
    out.metrics["videos"] = [
        {"frame_height": size[0], "crf": crf, "bytes": int(sizes.sum()), "psnr_db": _psnr(errors.sum() / num_values)}
        for size, crf, sizes, errors in zip(
            ladder.sizes, ladder.crfs, ladder.clip_bytes, ladder.squared_errors, strict=True
        )
    ]
    out.metrics |= {"smallest_bytes": out.metrics["videos"][-1]["bytes"]}
    return ladder.keep([len(ladder.crfs) // 2] * min(_NUM_PREVIEWS, len(clips_NTCHW))).decode()


def _psnr(mean_squared_error: float) -> float:
    return float(10 * np.log10(255**2 / max(mean_squared_error, 1e-9)))


STEP = Step(
    name="hosvd_cores",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=HosvdCoresConfig.defaults(),
    upstream=("raw_clips", "latents", "dpp_subsets"),
    module=__name__,
)


@dg.asset(
    deps=["latents", "dpp_subsets"],
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"numpy", "zarr"},
    code_version=STEP.code_version,
    description=(
        "The kept latents of a class as HOSVD core and orthonormal factors. Recipe tight keeps all of them, with the "
        "bytes that they take at a range of quantiser steps; release codes all classes at the one step that fills the "
        "budget, so a changed budget recomputes no class. Recipe paper truncates them and stores float32, as "
        "published. Recipe codec keeps the clips as video at a ladder of rates, recipe auto both."
    ),
)
def hosvd_cores(
    context: dg.AssetExecutionContext, config: HosvdCoresConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

"""`latents`: what the autoencoder makes of the train clips."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from pydantic import Field

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.report import pair_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import VideoAutoencoder, autoencoder_fingerprint, load_autoencoder
from lvdd_assets.incremental import Outside, Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_CLASS

_NUM_PREVIEWS = 3


class LatentsConfig(dg.Config):
    """How the clips are encoded."""

    batch_clips: int = Field(default=8, ge=1, description="Clips encoded at a time; bounds the memory.")


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"vae": spec.vae}


def _outside(spec: DatasetSpec, classes: Sequence[str], data_root: Path) -> Mapping[str, Outside]:
    weights = autoencoder_fingerprint(spec.vae, spec.base)
    return {name: Outside({"vae": weights}) for name in classes}


@functools.lru_cache(maxsize=1)
def _autoencoder(name: str, base: Path, fingerprint: str) -> VideoAutoencoder:
    """The autoencoder, kept from class to class; the fingerprint makes changed weights another one."""
    return load_autoencoder(name, base=base)


def _compute(task: Task) -> None:
    vae = _autoencoder(task.dataset.vae, task.dataset.base, task.inputs["vae"])
    clips = task.open("raw_clips")
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        total, squares, num_values = 0.0, 0.0, 0
        for batch in clips.batches("train", task.config["batch_clips"]):
            latents = vae.encode(batch)
            out.append("latents", latents)
            total, squares = total + float(latents.sum()), squares + float((latents.astype(np.float64) ** 2).sum())
            num_values += latents.size
        few = clips.read("train", slice(0, _NUM_PREVIEWS))
        decoded = vae.decode(vae.encode(few))
        out.put("preview", np.frombuffer(pair_sheet(few, decoded), dtype=np.uint8))
        mean = total / num_values
        out.metrics = {
            "num_clips": clips.num_rows("train"),
            "latent_shape": "×".join(map(str, vae.latent_shape(task.dataset.shape))),
            "latent_bytes": 4 * num_values,
            "latent_mean": mean,
            "latent_std": float(np.sqrt(max(squares / num_values - mean**2, 0.0))),
            "psnr_db": psnr(few, decoded),
            "vae": vae.name,
        }


STEP = Step(
    name="latents",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=LatentsConfig().model_dump(),
    upstream=("raw_clips",),
    outside=_outside,
    modules=("lvdd_assets.distill.vae", __name__),
)


@dg.asset(
    deps=["raw_clips"],
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"torch", "zarr"},
    code_version=STEP.code_version,
    description=(
        "Latents of a class's train clips as float32 [N, T, C, h, w] of unit scale, by the dataset's autoencoder "
        "(its mode, no sampling). Lies in latents.zarr. The PSNR is that of three clips encoded and decoded again."
    ),
)
def latents(
    context: dg.AssetExecutionContext, config: LatentsConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

"""`quantized_vae`: the autoencoder's decoder with int8 weights, calibrated on the latents that it will decode."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import torch
from pydantic import Field

from lvdd_assets.distill import coding, paper, quantization, tucker
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.report import pair_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae import autoencoder_fingerprint, load_autoencoder
from lvdd_assets.incremental import Outside, Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_DATASET, CLASS_TO_DATASET

_NUM_PREVIEWS = 3


class QuantizedVaeConfig(dg.Config):
    """How the decoder is quantised."""

    bits: int = Field(
        default=paper.WEIGHT_BITS,
        ge=2,
        le=8,
        description="Bits of a weight. Below 8 the file shrinks by what zstd makes of fewer different bytes.",
    )

    calibration_clips: int = Field(
        default=2, ge=1, description="Clips of each class whose coded latents calibrate the decoder."
    )


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"vae": spec.vae}


def _outside(spec: DatasetSpec, classes: Sequence[str], data_root: Path) -> Mapping[str, Outside]:
    return {"": Outside({"vae": autoencoder_fingerprint(spec.vae, spec.base)})}


def _calibration_latents(task: Task) -> np.ndarray:
    """Some clips of every class, as they come back from a middle rung of their ladder: float32 [N, T, C, h, w]."""
    parts = []
    for class_name in task.class_names:
        cores = task.open("hosvd_cores", class_name)
        rung = coding.middle_rung(coding.unpack_ladder(cores.read("ladder"), cores.commit.metrics["ladder"]))
        latents = tucker.reconstruct(tucker.TuckerTensor(*coding.decode(rung)))
        parts.append(latents[: task.config["calibration_clips"]])
    return np.concatenate(parts)


def _compute(task: Task) -> None:
    vae = load_autoencoder(task.dataset.vae, base=task.dataset.base)
    full = vae.decoder()
    latents = _calibration_latents(task)
    frames = torch.from_numpy(latents.reshape(-1, *latents.shape[2:]))
    weights = quantization.calibrate(
        full, latents=frames, forward=lambda module, batch: module(batch), bits=task.config["bits"]
    )
    quantized = vae.decoder()
    quantized.load_state_dict(quantization.dequantize(weights))
    before, after = full.decode(latents), quantized.decode(latents)
    num_parameters = sum(value.numel() for value in full.state_dict().values())
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("weights", np.frombuffer(weights.to_bytes(), dtype=np.uint8))
        out.put("preview", np.frombuffer(pair_sheet(before[:_NUM_PREVIEWS], after[:_NUM_PREVIEWS]), dtype=np.uint8))
        out.metrics = {
            "num_parameters": num_parameters,
            "float32_bytes": 4 * num_parameters,
            "int8_bytes": weights.stored_bytes,
            "psnr_db": psnr(before, after),
            "num_calibration_clips": len(latents),
            "decoder": vae.decoder_spec.to_json(),
        }


STEP = Step(
    name="quantized_vae",
    by="dataset",
    compute=_compute,
    settings=_settings,
    defaults=QuantizedVaeConfig().model_dump(),
    upstream=("hosvd_cores",),
    outside=_outside,
    modules=("lvdd_assets.distill.vae", "lvdd_assets.distill.quantization", __name__),
)


@dg.asset(
    deps=[dg.AssetDep("hosvd_cores", partition_mapping=CLASS_TO_DATASET)],
    partitions_def=BY_DATASET,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"torch"},
    code_version=STEP.code_version,
    description=(
        "The autoencoder's decoder with int8 weights (a scale per output channel, the rest float16), its biases "
        "corrected on the coded latents of every class. The encoder is not needed to train and not kept. The PSNR is "
        "against the float32 decoder."
    ),
)
def quantized_vae(
    context: dg.AssetExecutionContext, config: QuantizedVaeConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

"""`quantized_vae`: the autoencoder's decoder with integer weights, calibrated on the latents that it will decode."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import numpy as np
from pydantic import Field

from lvdd_assets.distill import paper
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.class_stores import read_latents
from lvdd_assets.distill.places import Place
from lvdd_assets.distill.report_pictures import pair_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae_folders import find_autoencoder
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_DATASET, CLASS_TO_DATASET
from lvdd_assets.steps import Outside, Step, Task

if TYPE_CHECKING:
    from lvdd_assets.distill.decoder_quantization import Reference
    from lvdd_assets.distill.latent_decoders import LatentDecoder
    from lvdd_assets.distill.vae import VideoAutoencoder

_NUM_PREVIEWS = 3
_CODED_AT = 1.0  # quantiser step of the latents that calibrate: near their own scale, whatever the budget buys later


class QuantizedVaeConfig(StepConfig):
    """How the decoder is quantised."""

    bits: int | None = Field(
        default=None,
        ge=2,
        le=8,
        description=(
            "Bits of a weight; below 8 the file shrinks by what zstd makes of fewer different bytes. Unset: recipes "
            "tight and auto take the fewest of 8, 6 and 4 that cost at most max_bits_loss_db; recipe paper takes 8."
        ),
    )
    max_bits_loss_db: float = Field(
        default=0.3, ge=0, description="PSNR to the original clips that fewer bits may cost, in dB."
    )
    max_loss_db: float = Field(
        default=0.5,
        ge=0,
        description="PSNR to the original clips that quantising may cost before its check fails, in dB.",
    )
    arithmetic: Literal["auto", "weights", "static", "two_stage"] = Field(
        default="auto",
        description=(
            "weights: integers are for storage alone. static: also measure int8 arithmetic with calibrated activations "
            "(2D). two_stage: int8 for linear layers, float16 for the rest (3D). auto: as the paper has it for recipe "
            "paper, weights for tight."
        ),
    )
    calibration_clips: int = Field(
        default=2, ge=1, description="Clips of each class whose coded latents calibrate the decoder."
    )
    held_out_clips: int = Field(
        default=2, ge=0, description="Further clips of each class on which the loss is measured, where there are any."
    )


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"vae": spec.vae, "recipe": spec.recipe}


def _outside(spec: DatasetSpec, classes: Sequence[str], data_root: Place) -> Mapping[str, Outside]:
    return {"": Outside({"vae": find_autoencoder(spec.vae, spec.base).fingerprint()})}


def _references(task: Task, full: "LatentDecoder") -> "tuple[Reference, Reference | None]":
    """Some clips of every class, as they come back from coding at a middle step: to calibrate, and held out."""
    from lvdd_assets.distill.decoder_quantization import Reference

    num_calibrate, num_held_out = task.config["calibration_clips"], task.config["held_out_clips"]
    latents: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    originals: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for class_name in task.class_names:
        cores = task.open("hosvd_cores", class_name)
        coded = read_latents(cores, step=_CODED_AT, most_clips=num_calibrate + num_held_out)
        items = task.open("dpp_subsets", class_name).read("items")[: len(coded)]
        clips = task.open("raw_clips", class_name).read("train", items)
        for part, rows in enumerate((slice(num_calibrate), slice(num_calibrate, None))):
            latents[part].append(coded[rows])
            originals[part].append(clips[rows])
    calibrate, held_out = (
        Reference(full, np.concatenate(latents[part]), np.concatenate(originals[part])) for part in (0, 1)
    )
    return calibrate, held_out if len(held_out.latents) else None


def _arithmetic(task: Task, vae: "VideoAutoencoder") -> str:
    asked = str(task.config["arithmetic"])
    if asked == "auto":
        if task.dataset.recipe != "paper":
            return "weights"
        return "two_stage" if vae.decoder_spec.is_temporal else "static"
    if (asked == "static") == vae.decoder_spec.is_temporal and asked != "weights":
        kind = "3D" if vae.decoder_spec.is_temporal else "2D"
        raise ValueError(f"arithmetic {asked!r} does not fit the {kind} autoencoder {vae.name}: use auto")
    return asked


def _compute(task: Task) -> None:
    from lvdd_assets.distill.decoder_quantization import choose_bits, quantize_decoder
    from lvdd_assets.distill.quantization import quantize_weights
    from lvdd_assets.distill.vae import load_autoencoder

    if task.dataset.recipe == "codec":  # clips are kept as video, and need no decoder of ours
        with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
            out.metrics = {"needed": False}
        return
    vae = load_autoencoder(task.dataset.vae, base=task.dataset.base)
    arithmetic = _arithmetic(task, vae)
    calibration, held_out = _references(task, vae.decoder())
    judged = held_out or calibration
    is_paper = task.dataset.recipe == "paper"
    bits = task.config["bits"] or (paper.WEIGHT_BITS if is_paper else None)
    table: list[dict[str, Any]] = []
    if arithmetic == "two_stage":
        result = quantize_decoder(calibration, bits=paper.WEIGHT_BITS, scheme="linear")
    elif bits is not None:
        result = quantize_decoder(calibration, bits=bits)
    else:
        result, table = choose_bits(calibration, judged, max_loss_db=task.config["max_bits_loss_db"])
    encoder = quantize_weights(vae.encoder).to_bytes() if is_paper else b""
    figures = result.figures | {
        "psnr_db": judged.psnr_to_full(result.decoder),
        "loss_db": judged.loss(result.decoder),
        "calibration_psnr_db": calibration.psnr_to_full(result.decoder),
        "calibration_loss_db": calibration.loss(result.decoder),
        "num_calibration_clips": len(calibration.latents),
        "num_held_out_clips": len(held_out.latents) if held_out else 0,
        "encoder_bytes": len(encoder),
        "decoder": vae.decoder_spec.to_json(),
        "bits_tried": table,
    }
    figures |= _measure_arithmetic(arithmetic, calibration, judged)
    before, after = judged.full_clips[:_NUM_PREVIEWS], judged.decode(result.decoder)[:_NUM_PREVIEWS]
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        out.put("weights", np.frombuffer(result.weights.to_bytes(), dtype=np.uint8))
        if encoder:
            out.put("encoder", np.frombuffer(encoder, dtype=np.uint8))
        out.put("preview", np.frombuffer(pair_sheet(before, after), dtype=np.uint8))
        out.metrics = figures


def _measure_arithmetic(arithmetic: str, calibration: "Reference", judged: "Reference") -> dict[str, Any]:
    """What the paper's quantised arithmetic takes and costs; nothing for integers that are for storage alone."""
    if arithmetic == "weights":
        return {}
    import torch

    from lvdd_assets.distill.int8_arithmetic import static_int8, two_stage_int8

    if arithmetic == "static":
        static = static_int8(calibration.full, calibration=[calibration.batch()])
        return {
            "static_bytes": static.stored_bytes,
            "static_share": static.quantized_share,
            "static_activations": static.activation_tensors,
            "static_psnr_db": judged.psnr_to_full(static.module),
            "static_loss_db": judged.loss(static.module),
        }
    staged = two_stage_int8(calibration.full, sample=calibration.batch())
    return {
        "two_stage_bytes": staged.stored_bytes,
        "two_stage_int8_share": staged.linear_share,
        "two_stage_half_share": staged.half_share,
        "two_stage_psnr_db": judged.psnr_to_full(staged.module, dtype=torch.float16),
        "two_stage_loss_db": judged.loss(staged.module, dtype=torch.float16),
    }


STEP = Step(
    name="quantized_vae",
    by="dataset",
    compute=_compute,
    settings=_settings,
    defaults=QuantizedVaeConfig.defaults(),
    upstream=("raw_clips", "dpp_subsets", "hosvd_cores"),
    outside=_outside,
    module=__name__,
)


@dg.asset(
    deps=[
        dg.AssetDep(name, partition_mapping=CLASS_TO_DATASET) for name in ("raw_clips", "dpp_subsets", "hosvd_cores")
    ],
    partitions_def=BY_DATASET,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"torch"},
    code_version=STEP.code_version,
    description=(
        "The autoencoder's decoder with integer weights (a scale per output channel, the rest float16), rounded by "
        "error feedback on the coded latents of every class, with as few bits as cost next to nothing. The encoder is "
        "not needed to train and not kept, but by recipe paper. psnr_db is against the float32 decoder, loss_db what "
        "quantising costs against the original clips, both on clips that did not calibrate."
    ),
)
def quantized_vae(
    context: dg.AssetExecutionContext, config: QuantizedVaeConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

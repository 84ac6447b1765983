"""Whether the quantised decoder still decodes: what quantising costs against the original clips.

The figures are measured where the decoder is quantised, on clips that calibrated it and on clips that did not; here
they are only judged.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lvdd_assets.distill.budget import format_bytes
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import markdown_table
from lvdd_assets.partitions import datasets_of_run

_ARITHMETIC = ("static", "two_stage")


@dg.asset_check(
    asset="quantized_vae",
    name="decoder_keeps_its_quality",
    blocking=True,
    description=(
        "Quantising the decoder costs no more PSNR to the original clips than max_loss_db of quantized_vae allows, on "
        "the clips that calibrated it and on held-out ones."
    ),
)
def decoder_keeps_its_quality(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> dg.AssetCheckResult:
    """Stops what comes after where the quantised decoder lost too much."""
    store = ZarrStore(pipeline.workspace.data_root, "quantized_vae")
    rows, sentences, passed = [], [], True
    for spec in datasets_of_run(context, pipeline.workspace.catalog()):
        commit = store.commit_of(spec.name)
        if commit is None:
            passed = False
            sentences.append(f"{spec.name}: no quantised decoder is stored; materialize quantized_vae")
            continue
        if not commit.metrics.get("needed", True):
            sentences.append(f"{spec.name}: recipe codec keeps video, which needs no decoder")
            continue
        allowed = float(commit.settings["config"]["max_loss_db"])
        losses = _losses(commit.metrics)
        passed &= max(losses.values()) <= allowed
        worst = max(losses, key=losses.__getitem__)
        sentences.append(_sentence(spec.name, commit.metrics, worst, losses[worst], allowed))
        rows += [
            {"dataset": spec.name, "measured on": name, "loss dB": loss, "allowed dB": allowed}
            for name, loss in losses.items()
        ]
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=". ".join(sentences),
        metadata={"losses": dg.MetadataValue.md(markdown_table(rows))},
    )


def _losses(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The measured losses in dB by what they were measured on; held-out ones where there were any."""
    losses = {"calibration clips": metrics["calibration_loss_db"]}
    if metrics["num_held_out_clips"]:
        losses["held-out clips"] = metrics["loss_db"]
    for name in _ARITHMETIC:
        if f"{name}_loss_db" in metrics:
            losses[f"{name.replace('_', ' ')} arithmetic"] = metrics[f"{name}_loss_db"]
    return losses


def _sentence(dataset: str, metrics: Mapping[str, Any], worst: str, loss: float, allowed: float) -> str:
    sizes = f"{format_bytes(metrics['float32_bytes'])} to {format_bytes(metrics['release_bytes'])}"
    text = f"{dataset}: {sizes} at {metrics['bits']} bits, at most {loss:.2f} dB lost ({worst}), {allowed:.2f} allowed"
    if loss > allowed:
        text += "; raise bits or max_loss_db, or calibrate on more clips"
    return text

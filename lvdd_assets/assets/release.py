"""`release`: everything that a stranger needs to train, in one file within the budget."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from lvdd_assets.distill import coding
from lvdd_assets.distill.budget import allowed_bytes, choose_rung, format_bytes
from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.coding import CodedClass
from lvdd_assets.distill.decoder_specs import DecoderSpec
from lvdd_assets.distill.latent_decoders import build_decoder
from lvdd_assets.distill.quantization import read_weights
from lvdd_assets.distill.release import SUFFIX, ReleaseParts, load_release, pack, package_version
from lvdd_assets.distill.stores import FileStore
from lvdd_assets.incremental import Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_DATASET, CLASS_TO_DATASET

# Enough of a fingerprint to tell two apart; every byte of the provenance counts against the budget.
_SHORT = 16


class ReleaseConfig(dg.Config):
    """The budget comes from the registry; there is nothing else to choose."""


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    budget = {"ipc": spec.budget.ipc, "bytes": spec.budget.num_bytes}
    shape = spec.shape
    return {"budget": budget, "frames": shape.frames, "stride": shape.stride, "size": shape.size}


def _provenance(task: Task) -> dict[str, Any]:
    return {
        "lvdd_assets": package_version(),
        "release": task.fingerprint[:_SHORT],
        "recipe": task.dataset.recipe,
        "vae": Path(task.dataset.vae).name,
        "inputs": {name: fingerprint[:_SHORT] for name, fingerprint in task.inputs.items()},
        "budget": task.settings["registry"]["budget"],
    }


def _compute(task: Task) -> None:
    ladders: dict[str, list[CodedClass]] = {}
    for class_name in task.class_names:
        cores = task.open("hosvd_cores", class_name)
        ladders[class_name] = coding.unpack_ladder(cores.read("ladder"), cores.commit.metrics["ladder"])
    decoder = task.open("quantized_vae", "")
    spec = DecoderSpec.from_json(decoder.commit.metrics["decoder"])
    module = build_decoder(spec, trusted_classes=(spec.class_name,))
    scheme = decoder.commit.metrics["scheme"]
    weights = read_weights(decoder.read("weights").tobytes(), module, scheme)
    encoder = decoder.read("encoder").tobytes() if decoder.num_rows("encoder") else b""
    provenance = _provenance(task)

    def packed(rung: int) -> bytes:
        classes = {name: ladder[rung] for name, ladder in ladders.items()}
        dataset = task.dataset
        return pack(ReleaseParts(dataset.name, dataset.shape, classes, spec, weights, provenance, scheme, encoder))

    allowed = allowed_bytes(task.dataset.budget, num_classes=len(ladders), shape=task.dataset.shape)
    num_rungs = len(next(iter(ladders.values())))
    # A recipe with one rung fixes its own size: it is written as it is, and the budget check judges it.
    rung = choose_rung(num_rungs, lambda index: len(packed(index)), allowed=allowed) if num_rungs > 1 else 0
    data = packed(rung)
    name = f"{task.dataset.name}{SUFFIX}"
    FileStore(task.data_root, task.step).write(
        task.key, files={name: data}, metrics=_metrics(task, data, ladders, rung, allowed), **task.commit_arguments()
    )


def _metrics(
    task: Task, data: bytes, ladders: Mapping[str, list[CodedClass]], rung: int, allowed: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "release.zip"
        path.write_bytes(data)
        release = load_release(path)  # read back as a stranger would, before it replaces anything
        ledger = release.ledger.to_dict("records")
    first = next(iter(ladders.values()))[rung]
    return {
        "file": str(FileStore(task.data_root, task.step).path(f"{task.dataset.name}{SUFFIX}")),
        "stored_bytes": len(data),
        "allowed_bytes": allowed,
        "used_share": len(data) / allowed,
        "num_clips": release.num_clips,
        "step": first.step,
        "finest_kept": rung == 0,
        "verdict": f"{format_bytes(len(data))} of {format_bytes(allowed)} allowed",
        "ledger": [{str(key): value for key, value in row.items()} for row in ledger],
    }


STEP = Step(
    name="release",
    by="dataset",
    compute=_compute,
    settings=_settings,
    defaults=ReleaseConfig().model_dump(),
    upstream=("hosvd_cores", "quantized_vae"),
    modules=("lvdd_assets.distill.release", "lvdd_assets.distill.budget", __name__),
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

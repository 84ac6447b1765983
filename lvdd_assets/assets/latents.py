"""`latents`: what the autoencoder makes of the train clips."""

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from lvdd_assets.distill.catalog import DatasetSpec
from lvdd_assets.distill.fidelity import psnr
from lvdd_assets.distill.places import Place
from lvdd_assets.distill.report_pictures import pair_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.vae_folders import find_autoencoder
from lvdd_assets.incremental import Pipeline
from lvdd_assets.materialize import StepConfig, materialize
from lvdd_assets.partitions import BY_CLASS
from lvdd_assets.steps import Outside, Step, Task

if TYPE_CHECKING:
    from lvdd_assets.distill.vae import VideoAutoencoder

_NUM_PREVIEWS = 3


class LatentsConfig(StepConfig):
    """How the clips are encoded."""

    posterior: Literal["mode", "sample"] = Field(
        default="mode",
        description="Which latent of the encoder's distribution: its mode, or one drawn from it for every clip.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw, for posterior sample.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="What convolutions compute in; auto is bfloat16 where the device has it, float32 elsewhere.",
    )


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    return {"vae": spec.vae}


def _outside(spec: DatasetSpec, classes: Sequence[str], data_root: Place) -> Mapping[str, Outside]:
    weights = find_autoencoder(spec.vae, spec.base).fingerprint()
    return {name: Outside({"vae": weights}) for name in classes}


@functools.lru_cache(maxsize=1)
def _autoencoder(name: str, base: Path, fingerprint: str, precision: str, device: str) -> "VideoAutoencoder":
    """The autoencoder, kept from class to class; the fingerprint makes changed weights another one."""
    import torch

    from lvdd_assets.distill.devices import precision_for
    from lvdd_assets.distill.vae import load_autoencoder

    dtype = precision_for(device) if precision == "auto" else getattr(torch, precision)
    return load_autoencoder(name, base=base, dtype=dtype, device=device)


@dataclass
class _Moments:
    """Sums over latents, from which mean and deviation come."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, latents: NDArray[np.float16]) -> None:
        values = latents.astype(np.float64)
        self.count += values.size
        self.total += float(values.sum())
        self.squares += float((values**2).sum())

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def std(self) -> float:
        return float(np.sqrt(max(self.squares / self.count - self.mean**2, 0.0)))


def _compute(task: Task) -> None:
    from lvdd_assets.distill.devices import find_device
    from lvdd_assets.distill.encoding import encode_stream

    config, shape = task.config, task.dataset.shape
    device = find_device(task.device)
    vae = _autoencoder(task.dataset.vae, task.dataset.base, task.inputs["vae"], config["precision"], device)
    clips = task.open("raw_clips")
    num_clips, moments = clips.num_rows("train"), _Moments()
    # Only the process in front of a terminal draws bars; those of a pool would draw over each other.
    quiet = not sys.stderr.isatty() or parent_process() is not None
    with (
        ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out,
        tqdm(total=num_clips, desc=f"encode {task.class_name}", unit="clip", disable=quiet, leave=False) as bar,
    ):

        def count(num_done: int) -> None:
            bar.update(num_done)

        stream = encode_stream(
            vae,
            lambda part: clips.read("train", part),
            num_clips,
            clips_per_batch=vae.clips_per_batch(shape),
            seed=config["seed"] if config["posterior"] == "sample" else None,
            progress=count,
        )
        few: list[NDArray[np.float16]] = []
        for latents in stream:
            out.append("latents", latents)
            moments.add(latents)
            if len(few) < _NUM_PREVIEWS:
                few.append(latents[:_NUM_PREVIEWS])
        originals = clips.read("train", slice(0, _NUM_PREVIEWS))
        decoded = vae.decode(np.concatenate(few)[:_NUM_PREVIEWS], num_frames=shape.frames)
        out.put("preview", np.frombuffer(pair_sheet(originals, decoded), dtype=np.uint8))
        out.metrics = {
            "num_clips": num_clips,
            "latent_shape": "×".join(map(str, vae.latent_shape(shape))),
            "latent_bytes": 2 * moments.count,
            "latent_mean": moments.mean,
            "latent_std": moments.std,
            "psnr_db": psnr(originals, decoded),
            "vae": vae.name,
        }


STEP = Step(
    name="latents",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=LatentsConfig.defaults(),
    upstream=("raw_clips",),
    outside=_outside,
    module=__name__,
    on_device=True,
)


@dg.asset(
    deps=["raw_clips"],
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"torch", "zarr"},
    code_version=STEP.code_version,
    description=(
        "Latents of a class's train clips as float16 [N, T, C, h, w] of unit scale, by the dataset's autoencoder: a 3D "
        "one makes one of several frames. Lies in latents.zarr. The PSNR is that of three clips encoded and decoded "
        "again."
    ),
)
def latents(
    context: dg.AssetExecutionContext, config: LatentsConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)

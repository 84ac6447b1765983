"""`raw_clips`: the sampled, resized frames of every usable video file of a class."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np

from lvdd_assets.distill.catalog import DatasetSpec, content_hash, list_class, list_clips
from lvdd_assets.distill.report import contact_sheet
from lvdd_assets.distill.stores import ZarrStore
from lvdd_assets.distill.video import VideoError, read_clip
from lvdd_assets.incremental import Pipeline, Step, Task
from lvdd_assets.materialize import materialize
from lvdd_assets.partitions import BY_CLASS

_NUM_PREVIEWS = 4


class RawClipsConfig(dg.Config):
    """Clip shape and split come from the registry; there is nothing else to choose."""


def _settings(spec: DatasetSpec) -> Mapping[str, Any]:
    shape = spec.shape
    return {"frames": shape.frames, "stride": shape.stride, "size": shape.size}


def _inputs(spec: DatasetSpec) -> Mapping[str, Mapping[str, str]]:
    """Content of every file, by class; a test clip is another input than a train clip."""
    return {
        class_name: {
            f"{'test' if clip.is_test else 'train'} {clip.name}": content_hash(spec.root / clip.name) for clip in clips
        }
        for class_name, clips in list_clips(spec).items()
    }


def _compute(task: Task) -> None:
    spec = task.dataset
    names: dict[str, list[str]] = {"train": [], "test": []}
    excluded, shortened = [], []
    previews: list[np.ndarray] = []
    with ZarrStore(task.data_root, task.step).write(task.key, **task.commit_arguments()) as out:
        for file in list_class(spec, task.class_name):
            try:
                clip = read_clip(spec.root / file.name, spec.shape)
            except VideoError as error:
                excluded.append({"file": file.name, "reason": str(error)})
                continue
            split = "test" if file.is_test else "train"
            names[split].append(file.name)
            out.append(split, clip.frames_TCHW[None])
            if clip.stride != spec.shape.stride:
                shortened.append({"file": file.name, "stride": clip.stride, "frames": clip.num_source_frames})
            if split == "train" and len(previews) < _NUM_PREVIEWS:
                previews.append(clip.frames_TCHW)
        if not names["train"]:
            raise ValueError(
                f"class {task.class_name!r} has no usable train clip: {len(excluded)} files excluded, "
                f"{len(names['test'])} test clips. {_first_reason(excluded)}Add clips, or mend the split."
            )
        out.put("preview", np.frombuffer(contact_sheet(np.stack(previews)), dtype=np.uint8))
        out.metrics = {
            "num_train": len(names["train"]),
            "num_test": len(names["test"]),
            "num_excluded": len(excluded),
            "num_shortened": len(shortened),
            "train_file_bytes": sum((spec.root / name).stat().st_size for name in names["train"]),
            "raw_bytes": (len(names["train"]) + len(names["test"])) * int(previews[0].nbytes),
            "excluded": excluded,
            "shortened": shortened,
            "train": names["train"],
            "test": names["test"],
        }


def _first_reason(excluded: list[dict[str, str]]) -> str:
    return f"First exclusion: {excluded[0]['file']}: {excluded[0]['reason']}. " if excluded else ""


STEP = Step(
    name="raw_clips",
    by="class",
    compute=_compute,
    settings=_settings,
    defaults=RawClipsConfig().model_dump(),
    inputs=_inputs,
    modules=("lvdd_assets.distill.video", __name__),
)


@dg.asset(
    partitions_def=BY_CLASS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="distill",
    kinds={"video", "zarr"},
    code_version=STEP.code_version,
    description=(
        "Clips of one class as uint8 [N, T, C, H, W], train and test apart: T frames at the registry's stride from the "
        "middle of each video, short side resized, centre cropped. Files that cannot be used are left out by name."
    ),
)
def raw_clips(
    context: dg.AssetExecutionContext, config: RawClipsConfig, pipeline: dg.ResourceParam[Pipeline]
) -> dg.MaterializeResult:
    """See the asset's description."""
    return materialize(context, pipeline, STEP.name, config)
